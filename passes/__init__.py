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
    from .base.errors import CompressError as CompressError
    from .base.errors import ContractError as ContractError
    from .base.errors import GateError as GateError
    from .base.errors import NothingError as NothingError
    from .base.errors import SilentError as SilentError
    from .base.errors import UsageError as UsageError
    from .base.errors import WrongError as WrongError
    from .cost.costs import KINDS as KINDS
    from .cost.costs import Costs as Costs
    from .coupling.groups import Axis as Axis
    from .coupling.groups import Coupling as Coupling
    from .coupling.groups import Frozen as Frozen
    from .coupling.groups import Group as Group
    from .coupling.groups import couple as couple
    from .frontend.torch_export import capture as capture
    from .importance.magnitude import CRITERIA as CRITERIA
    from .importance.measure import Measured as Measured
    from .ir.pass_base import PassResult as PassResult
    from .ir.pass_base import apply as apply
    from .ir.program import Program as Program
    from .pipeline.multi_step import STEPS as STEPS
    from .pipeline.multi_step import contest as contest
    from .pipeline.text import plan_to_text as plan_to_text
    from .pipeline.text import program_to_text as program_to_text
    from .pipeline.text import to_text as to_text
    from .planning.budget import Budget as Budget
    from .planning.budget import Options as Options
    from .planning.choice import Plan as Plan
    from .planning.choice import Trial as Trial
    from .planning.choice import choose as choose
    from .planning.targets import Amount as Amount
    from .planning.targets import Milliseconds as Milliseconds
    from .planning.targets import Ratio as Ratio
    from .planning.targets import Target as Target
    from .proof.equal import Proof as Proof
    from .proof.equal import prove as prove
    from .repair.repair import Repair as Repair
    from .repair.repair import Repaired as Repaired
    from .repair.repair import mend as mend
    from .transforms.prune import Shrink as Shrink

_HOMES = {
    "frontend.torch_export": ["capture"],
    "ir.pass_base": ["PassResult", "apply"],
    "cost.costs": ["KINDS", "Costs"],
    "coupling.groups": ["Axis", "Coupling", "Frozen", "Group", "couple"],
    "base.errors": [
        *("CompressError", "ContractError", "GateError", "NothingError", "UsageError"),
        *("SilentError", "WrongError"),
    ],
    "importance.magnitude": ["CRITERIA"],
    "importance.measure": ["Measured"],
    "planning.budget": ["Budget", "Options"],
    "planning.choice": ["Plan", "Trial", "choose"],
    "ir.program": ["Program"],
    "proof.equal": ["Proof", "prove"],
    "repair.repair": ["Repair", "Repaired", "mend"],
    "transforms.prune": ["Shrink"],
    "pipeline.multi_step": ["STEPS", "contest"],
    "planning.targets": ["Amount", "Milliseconds", "Ratio", "Target"],
    "pipeline.text": ["plan_to_text", "program_to_text", "to_text"],
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value
