"""The compiler: tensors and graphs in, values out. No files, no clock, no runtime, no CLI.

    program = capture(model, args, kwargs)      one flat ATen graph
    groups  = couple(program)                   which channels stand or fall together
    plan    = choose(groups, Budget(macs=0.5), Options())
    small   = apply(Shrink(plan), program).program
    proof   = prove(plan, small, [(program.args, program.kwargs)])

Start reading in `README.md` beside this file. Names are loaded on first use, so that the errors can
be had without torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .contract import PassResult as PassResult
    from .contract import apply as apply
    from .cost import KINDS as KINDS
    from .cost import Costs as Costs
    from .coupling import Axis as Axis
    from .coupling import Coupling as Coupling
    from .coupling import Frozen as Frozen
    from .coupling import Group as Group
    from .coupling import couple as couple
    from .errors import CompressError as CompressError
    from .errors import ContractError as ContractError
    from .errors import GateError as GateError
    from .errors import NothingError as NothingError
    from .errors import SilentError as SilentError
    from .errors import UsageError as UsageError
    from .errors import WrongError as WrongError
    from .importance import CRITERIA as CRITERIA
    from .measure import Measured as Measured
    from .options import Budget as Budget
    from .options import Options as Options
    from .plan import Plan as Plan
    from .plan import Trial as Trial
    from .plan import choose as choose
    from .program import Program as Program
    from .proof import Proof as Proof
    from .proof import prove as prove
    from .repair import Repair as Repair
    from .repair import Repaired as Repaired
    from .repair import mend as mend
    from .shrink import Shrink as Shrink
    from .steps import STEPS as STEPS
    from .steps import contest as contest
    from .targets import Amount as Amount
    from .targets import Milliseconds as Milliseconds
    from .targets import Ratio as Ratio
    from .targets import Target as Target
    from .text import plan_to_text as plan_to_text
    from .text import program_to_text as program_to_text
    from .text import to_text as to_text
    from .tracing import capture as capture

_HOMES = {
    "tracing": ["capture"],
    "contract": ["PassResult", "apply"],
    "cost": ["KINDS", "Costs"],
    "coupling": ["Axis", "Coupling", "Frozen", "Group", "couple"],
    "errors": [
        *("CompressError", "ContractError", "GateError", "NothingError", "UsageError"),
        *("SilentError", "WrongError"),
    ],
    "importance": ["CRITERIA"],
    "measure": ["Measured"],
    "options": ["Budget", "Options"],
    "plan": ["Plan", "Trial", "choose"],
    "program": ["Program"],
    "proof": ["Proof", "prove"],
    "repair": ["Repair", "Repaired", "mend"],
    "shrink": ["Shrink"],
    "steps": ["STEPS", "contest"],
    "targets": ["Amount", "Milliseconds", "Ratio", "Target"],
    "text": ["plan_to_text", "program_to_text", "to_text"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
