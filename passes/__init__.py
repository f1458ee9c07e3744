"""The compiler: tensors and graphs in, values out. No files, no clock, no runtime, no CLI.

    program = capture(model, args, kwargs)      one flat ATen graph
    groups  = couple(program)                   which channels stand or fall together
    plan    = choose(groups, Budget(macs=0.5), Options())
    small   = apply(Shrink(plan), program).program
    proof   = prove(plan, small, [(program.args, program.kwargs)])

Start reading in `README.md` beside this file.
"""

from .capture import capture
from .contract import PassResult, apply
from .cost import KINDS, Costs
from .coupling import Axis, Coupling, Frozen, Group, couple
from .errors import CompressError, ContractError, GateError, UsageError
from .importance import CRITERIA
from .plan import Budget, Options, Plan, choose
from .program import Program
from .proof import Proof, prove
from .shrink import Shrink
from .text import plan_to_text, to_text

__all__ = [
    "CRITERIA", "KINDS", "Axis", "Budget", "CompressError", "ContractError", "Costs", "Coupling",
    "Frozen", "GateError", "Group", "Options", "PassResult", "Plan", "Program", "Proof", "Shrink",
    "UsageError", "apply", "capture", "choose", "couple", "plan_to_text", "prove", "to_text",
]  # fmt: skip
