"""Operators without a rule are taken apart, where every part has one."""

import operator

import torch
from compressor.passes.ir.program import where
from compressor.passes.operators import known
from torch import Tensor, nn

from compressor import passes
from models._random import normal, seeded

aten = torch.ops.aten


class Between(nn.Module):
    """before -> op -> after"""

    def __init__(self, op: object) -> None:
        super().__init__()
        self.before, self.op, self.after = nn.Linear(5, 8), op, nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.op(self.before(x)))


def captured(op: object) -> passes.Program:
    return passes.capture(seeded(lambda: Between(op), 1), (normal(2, 6, 5),), {})


def operators(program: passes.Program) -> list[object]:
    sizes = (operator.getitem, aten.sym_size.int)
    return [node.target for node in program.calls() if node.target not in sizes]


@torch.library.custom_op("compressor_tests::halved", mutates_args=())
def halved(x: Tensor) -> Tensor:
    """Nobody has said what it is made of."""
    return x / 2


@halved.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


library = torch.library.Library("compressor_tests_parts", "DEF")
library.define("doubled(Tensor x) -> Tensor")
library.define("half_known(Tensor x) -> Tensor")
library.impl("doubled", lambda x: torch.relu(x) * 2, "CompositeImplicitAutograd")
library.impl("half_known", lambda x: halved(x) * 2, "CompositeImplicitAutograd")


def test_an_operator_is_replaced_by_its_parts_and_they_mean_the_same():
    def op(x: Tensor) -> Tensor:
        return torch.inner(x.diff(dim=1), torch.eye(8))

    program = captured(op)
    assert not {aten.inner.default, aten.diff.default} & set(operators(program))
    assert all(known(op) for op in operators(program) if isinstance(op, torch._ops.OpOverload))
    for size in (2, 5):
        x = normal(size, 6, 5)
        torch.testing.assert_close(program.module(x), seeded(lambda: Between(op), 1)(x))


def test_the_batch_stays_dynamic():
    assert captured(lambda x: torch.tensordot(x, torch.eye(8), 1)).batch == 2


def test_the_parts_are_at_the_users_line():
    program = captured(lambda x: x.diff(dim=1))
    (part,) = [node for node in program.calls() if node.target is aten.sub.Tensor]
    assert "test_decompositions.py" in where(part)


def test_an_operator_of_an_extension_is_taken_apart_as_its_author_says():
    program = captured(torch.ops.compressor_tests_parts.doubled)
    assert operators(program)[1:-1] == [aten.relu.default, aten.mul.Tensor]


def test_an_operator_with_an_unknown_part_stays_whole_under_its_own_name():
    program = captured(torch.ops.compressor_tests_parts.half_known)
    assert operators(program)[1:-1] == [torch.ops.compressor_tests_parts.half_known.default]
    reasons = {frozen.why for frozen in passes.couple(program).frozen}
    assert any("no coupling rule for compressor_tests_parts.half_known" in why for why in reasons)


def test_an_operator_that_nothing_is_known_of_stays():
    program = captured(halved)
    assert operators(program)[1:-1] == [torch.ops.compressor_tests.halved.default]


def test_known_operators_are_left_alone():
    assert operators(captured(nn.Softmax(1)))[1:-1] == [aten.softmax.int]
