"""The rule table: one row an operator, one file a family, merged once.

To add an operator, add a row to the table of its family and a case to `tests/passes/cases.py`.
"""

from collections.abc import Sequence
from functools import cache

import torch
from torch._ops import OpOverload
from torch.fx import Node

from ..ir.call import Call, Result
from ..ir.labels import Ledger
from . import (
    contraction,
    einsum,
    indexing,
    joining,
    movement,
    norm,
    patches,
    pointwise,
    recurrent,
    reduction,
)
from .table import Resizing, Rule, RuleTable

__all__ = ["ONNX", "RULES", "Resizing", "Rule", "known", "row_of", "rule_for"]

FAMILIES = (
    movement,
    joining,
    patches,
    contraction,
    einsum,
    norm,
    reduction,
    indexing,
    recurrent,
    pointwise,
)


def _merged(tables: Sequence[RuleTable]) -> RuleTable:
    rules: RuleTable = {}
    for table in tables:
        twice = rules.keys() & table.keys()
        if twice:
            raise AssertionError(f"two rules for {sorted(map(str, twice))}")
        rules |= table
    return rules


RULES: RuleTable = _merged([family.RULES for family in FAMILIES])
ONNX = {op._schema.name.removeprefix("aten::"): row.onnx for op, row in RULES.items() if row.onnx}
"""What ONNX calls elementwise kernels, by the names of their operators."""


def functional_twin(op: OpOverload) -> OpOverload:
    """`relu` for `relu_`; an operator that changes nothing in place is its own twin."""
    name = op._schema.name.removeprefix("aten::")
    if not name.endswith("_") or not hasattr(torch.ops.aten, name[:-1]):
        return op
    packet = getattr(torch.ops.aten, name[:-1])
    return getattr(packet, op._overloadname, op)


def frozen(ledger: Ledger, call: Call) -> Result:
    """What we do not know keeps all its channels, and says why."""
    return indexing.opaque(ledger, call, f"no coupling rule for {call.op}")


POINTWISE = Rule(pointwise.pointwise)
FROZEN = Rule(frozen)


def known(op: OpOverload) -> bool:
    """Whether the table knows the operator, or its tag does."""
    return rule_for(op) is not FROZEN


@cache
def rule_for(op: OpOverload) -> Rule:
    """The operator's row; elementwise operators share one; unknown ones are frozen."""
    names = (op, functional_twin(op))
    found = next((RULES[name] for name in names if name in RULES), None)
    if found is not None:
        return found
    return POINTWISE if any(torch.Tag.pointwise in name.tags for name in names) else FROZEN


def row_of(node: Node) -> Rule:
    """The row of the operator that a node calls; that of an unknown one for all other nodes."""
    return rule_for(node.target) if isinstance(node.target, OpOverload) else FROZEN
