"""Numbers that are none, where a network meets real inputs: said as what it is, with the place."""

from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from ..base.errors import UsageError
from ..ir.fake_weights import has_values
from ..ir.program import Program, by_name, fetch, tensor_name, where
from ..operators import row_of
from .steps_of_numbers import output_names


def refuse_overflow(node: Node, result: Any, batch: int) -> None:
    """Raise UsageError for a layer whose result holds NaN or infinities."""
    if not row_of(node).finite or not isinstance(result, Tensor):
        return
    if bool(torch.isfinite(result).all()):
        return
    raise UsageError(
        "the model computes no finite numbers on the calibration data",
        where=f"layer {where(node)}, batch {batch}",
        why=f"{count(result)} of its {result.numel():,} results",
        hint="look at the weights and the inputs there: either may be too large for "
        f"{str(result.dtype).removeprefix('torch.')}",
    )


def refuse_nan(module: GraphModule, outputs: Any, batch: int) -> None:
    """Raise UsageError for an output that holds NaN: it cannot be fitted, nor judged by."""
    leaves = pytree.tree_leaves(outputs)
    for place, leaf in enumerate(leaves):
        if isinstance(leaf, Tensor) and bool(torch.isnan(leaf).any()):
            names = output_names(module)
            name = names[place] if len(names) == len(leaves) else f"output {place}"
            raise UsageError(
                f"the model gives NaN on the calibration data: {name}",
                where=f"batch {batch}",
                why=f"{count(leaf)} of its {leaf.numel():,} numbers",
                hint="leave such inputs out, mend the model, or give no data: it is then cut "
                "without repair",
            )


def count(result: Tensor) -> str:
    """`3 NaN and 2 infinite`, of a tensor that is not finite."""
    counts = {"NaN": int(torch.isnan(result).sum()), "infinite": int(torch.isinf(result).sum())}
    return " and ".join(f"{number:,} {name}" for name, number in counts.items() if number)


def refuse_negative_variances(program: Program) -> None:
    """Raise UsageError for a norm that would take the root of a negative number."""
    for node in program.calls():
        name = tensor_name(node, "running_var")
        if not name:
            continue
        own = fetch(program.module, name)
        eps = float(by_name(node).get("eps", 1e-5))
        if not has_values(own) or not bool((own.detach().double() + eps <= 0).any()):
            continue
        bad = int((own.detach() < 0).sum())
        raise UsageError(
            f"{name} has {bad:,} negative among its {own.numel():,} values",
            where=where(node),
            why="the norm takes the square root of its running variance, which is NaN there",
            hint="a variance is never negative: look at how the checkpoint was made or changed",
        )
