"""Axes that stay free: named by the user, symbolic in the capture, or refused with the reason."""

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compressor import passes
from models._random import normal, seeded


class Pictures(nn.Module):
    """Convolutions alone: any height and width."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return self.last(torch.relu(self.first(image)))


class Positions(nn.Module):
    """A table of positions that is added as a whole: one length."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20)
        self.positions = nn.Parameter(torch.zeros(6, 8))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids)
        x = x + self.positions
        return self.head(x)


class Sum(nn.Module):
    """Two streams that meet element by element."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.head = nn.Linear(4, 8), nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.head(torch.relu(self.one(x) + self.two(y)))


class Nested(nn.Module):
    """Inputs inside a list and a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 3)

    def forward(self, streams: list[Tensor], *, extra: dict[str, Tensor]) -> Tensor:
        x = torch.relu(self.body(streams[0])).mean(1) + self.body(extra["more"]).mean(1)
        return self.head(x)


IDS = torch.zeros(2, 6, dtype=torch.long)
X = normal(2, 5, 4)


def sizes(program: passes.Program) -> list[list[str]]:
    nodes = [n for n in program.module.graph.nodes if n.op == "placeholder"]
    return [[str(size) for size in node.meta["val"].shape] for node in nodes]


def test_named_axes_are_symbols_and_the_others_are_numbers():
    given = (normal(2, 3, 8, 6),)
    program = passes.capture(Pictures(), given, {}, {"image": {2: "height", -1: "width"}})
    assert program.free == {"height": 8, "width": 6}
    assert program.axes == {0: {2: "height", 3: "width"}}
    assert program.engine == "torch.export, dynamic batch, free height and width"
    (image,) = sizes(program)
    assert image[1] == "3"
    assert len({*image}) == 4
    plain = passes.capture(Pictures(), given, {})
    assert plain.free == {}
    assert sizes(plain)[0][1:] == ["3", "8", "6"]


def test_the_groups_do_not_depend_on_what_is_free():
    model, given = seeded(Pictures, 0), (normal(2, 3, 8, 6),)
    free = passes.capture(model, given, {}, {"image": {2: "height", 3: "width"}})
    plain = passes.capture(model, given, {})
    assert passes.to_text(passes.couple(free)) == passes.to_text(passes.couple(plain))


def test_the_small_network_and_the_proof_hold_at_another_size():
    program = passes.capture(
        seeded(Pictures, 0), (normal(2, 3, 8, 6),), {}, {"image": {2: "height", 3: "width"}}
    )
    plan = passes.choose(passes.couple(program), passes.Budget(channels=0.5), passes.Options())
    small = passes.apply(passes.Shrink(plan), program).program
    assert small.free == program.free
    others: Any = [((normal(2, 3, *size),), {}) for size in ((8, 6), (9, 7), (5, 16))]
    assert passes.prove(plan, small, others).max_rel < 1e-12
    assert small.module(normal(3, 3, 5, 16)).shape == (3, 2, 5, 16)


class Folded(nn.Module):
    """Norms of heads that are folded into the length."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Linear(4, 16), nn.LayerNorm(8), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        heads = self.norm(self.first(x).view(batch, length * 2, 8))
        return self.last(torch.relu(heads.view(batch, length, 16)))


def test_the_proof_holds_where_heads_are_folded_into_a_free_length():
    program = passes.capture(seeded(Folded, 0), (normal(2, 6, 4),), {}, {"x": {1: "length"}})
    plan = passes.choose(passes.couple(program), passes.Budget(channels=0.5), passes.Options())
    small = passes.apply(passes.Shrink(plan), program).program
    others: Any = [((normal(2, length, 4),), {}) for length in (6, 7, 3)]
    proof = passes.prove(plan, small, others)
    assert proof.max_rel < 1e-12
    assert proof.inexact


def test_one_name_is_one_size_and_inputs_by_name_and_inside_others_have_names():
    program = passes.capture(Sum(), (X,), {"y": X}, {"x": {1: "n"}, "y": {1: "n"}})
    assert program.free == {"n": 5}
    given = ([normal(2, 3, 4)],), {"extra": {"more": normal(2, 7, 4)}}
    dynamic = {"streams.0": {1: "a"}, "extra.more": {1: "b"}}
    program = passes.capture(Nested(), *given, dynamic)
    assert program.free == {"a": 3, "b": 7}


def test_what_fixes_an_axis_is_named_with_its_line():
    with pytest.raises(passes.UsageError) as refused:
        passes.capture(Positions(), (IDS,), {}, {"ids": {1: "sequence"}})
    error = refused.value
    assert error.what == (
        "the model Positions cannot be captured with these axes free: axis 1 of ids"
    )
    line = "x = x + self.positions"
    lines = Path(__file__).read_text().splitlines()
    number = 1 + next(i for i, text in enumerate(lines) if line in text)
    assert (
        error.why == f"axis 1 of ids is fixed at 6 by add at frontend/test_dynamic_axes.py:{number}"
    )
    assert "leave them out" in error.hint
    assert passes.capture(Positions(), (IDS,), {}).engine == "torch.export, dynamic batch"


def test_listening_leaves_the_loggers_as_they_were():
    logger = logging.getLogger("torch.fx.experimental.symbolic_shapes")
    before = logger.level, logger.propagate, list(logger.handlers)
    passes.capture(Sum(), (X, X), {}, {"x": {1: "n"}, "y": {1: "n"}})
    assert (logger.level, logger.propagate, list(logger.handlers)) == before


def test_a_model_that_cannot_be_captured_is_not_captured_with_numbers_instead():
    class Branch(Sum):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x if x.sum() > 0 else -x, y)

    with pytest.raises(passes.UsageError, match="with these axes free: axis 1 of x") as refused:
        passes.capture(Branch(), (X, X), {}, {"x": {1: "n"}, "y": {1: "n"}})
    assert "make_fx" not in refused.value.why


@pytest.mark.parametrize(
    ("dynamic", "what"),
    [
        ({"z": {1: "n"}}, "no input is called 'z'"),
        ({"x": {3: "n"}}, "there is no axis 3 of x: its sizes are [2, 5, 4]"),
        ({"x": {-4: "n"}}, "there is no axis -4 of x: its sizes are [2, 5, 4]"),
        ({"x": {0: "n"}}, "axis 0 of x is the batch"),
        ({"x": {1: "a b"}}, "'a b' cannot be the name of axis 1 of x"),
        ({"x": {1: "batch"}}, "'batch' cannot be the name of axis 1 of x"),
        ({"x": {1: "n"}, "y": {2: "n"}}, "axis 1 of x has size 5 and axis 2 of y has 4, but both"),
        ({"x": {1: "a"}, "y": {1: "b"}}, "the sizes 'a' and 'b' are the same in this model"),
        ({"x": {2: "n"}}, "cannot be captured with these axes free: axis 2 of x"),
    ],
)
def test_wrong_names_and_axes_are_refused(dynamic, what):
    with pytest.raises(passes.UsageError) as refused:
        passes.capture(Sum(), (X, X), {}, dynamic)
    assert what in refused.value.what


def test_a_size_of_one_cannot_be_free():
    x = normal(2, 1, 4)
    with pytest.raises(passes.UsageError, match="is free, but has size 1") as refused:
        passes.capture(Sum(), (x, x), {}, {"x": {1: "n"}, "y": {1: "n"}})
    assert "2 or more" in refused.value.hint
