"""Free heights, widths and lengths, from the user's request to the ONNX file."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
import torch.nn.functional as F
from compressor.passes.base.errors import UsageError
from torch import Tensor, nn
from typer.testing import CliRunner

from compressor import Budget, Built, compress
from compressor.cli.app import app
from compressor.loading.dynamic_axes import parse
from models._random import normal, seeded, tokens


class Pictures(nn.Module):
    """Down and up again: heights and widths are multiples of 2."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.down = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 2, stride=2)
        self.up, self.last = nn.ConvTranspose2d(16, 8, 2, stride=2), nn.Conv2d(16, 2, 1)

    def forward(self, image: Tensor) -> Tensor:
        fine = torch.relu(self.first(image))
        coarse = torch.relu(self.down(fine))
        return self.last(torch.cat([fine, self.up(coarse)], 1))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        q, k, v = (
            part(one).unflatten(-1, (2, 8)).transpose(1, 2)
            for part, one in ((self.q, x), (self.k, memory), (self.v, memory))
        )
        return x + self.o(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """A table of 12 positions, of which as many are used as there are tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 16), nn.Linear(16, 30)
        self.positions = nn.Parameter(torch.zeros(12, 16))
        self.attention, self.norm = Attention(), nn.LayerNorm(16)
        self.inside, self.outside = nn.Linear(16, 32), nn.Linear(32, 16)

    def encode(self, ids: Tensor) -> Tensor:
        x = self.embed(ids) + self.positions[: ids.shape[1]]
        x = self.norm(self.attention(x, x))
        return x + self.outside(F.gelu(self.inside(x)))

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.encode(ids))


class Translator(Transformer):
    """Two lengths."""

    def __init__(self) -> None:
        super().__init__()
        self.cross = Attention()

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.head(self.cross(self.encode(target), self.encode(source)))


class Branches(Pictures):
    """Another network for tall pictures, which no graph of this one has."""

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[2] > 8:
            return -super().forward(image)
        return super().forward(image)


class Square(Pictures):
    """A picture is a table of 64 pixels in the end."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Linear(64, 4)

    def forward(self, image: Tensor) -> Tensor:
        return self.table(super().forward(image).flatten(2))


def halved(make: Any, inputs: Any, dynamic: Any) -> Built:
    budget = Budget(channels=0.5)
    return compress(seeded(make, 1), inputs, budget=budget, uniform=True, dynamic=dynamic)


def dims(values: Any) -> list[list[Any]]:
    shapes = (value.type.tensor_type.shape.dim for value in values)
    return [[dim.dim_param or dim.dim_value for dim in shape] for shape in shapes]


CASES: dict[str, Any] = {
    "pictures": (
        Pictures,
        normal(2, 3, 8, 8),
        {"image": {2: "height", 3: "width"}},
        [["batch", 3, "height", "width"]],
        [(normal(1, 3, 12, 6),), (normal(3, 3, 4, 20),)],
    ),
    "transformer": (
        Transformer,
        tokens(30, 2, 7),
        {"ids": {1: "sequence"}},
        [["batch", "sequence"]],
        [(tokens(30, 1, 12),), (tokens(30, 4, 3),)],
    ),
    "translator": (
        Translator,
        {"source": tokens(30, 2, 7), "target": tokens(30, 2, 5)},
        {"source": {1: "source_length"}, "target": {1: "target_length"}},
        [["batch", "source_length"], ["batch", "target_length"]],
        [(tokens(30, 1, 12), tokens(30, 1, 3)), (tokens(30, 3, 4), tokens(30, 3, 11))],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_free_axes_stay_free_up_to_the_onnx_file_and_are_checked_at_other_sizes(name):
    make, inputs, dynamic, wanted, others = CASES[name]
    built = halved(make, inputs, dynamic)
    symbols = {symbol for axes in dynamic.values() for symbol in axes.values()}
    changed: dict[str, set[int]] = {symbol: set() for symbol in symbols}
    for sizes in built.sizes:
        for symbol, size in sizes.items():
            changed[symbol].add(size)
    assert all(len(sizes) == 2 for sizes in changed.values())
    assert len(symbols) == 1 or set(built.sizes[-1]) == symbols
    assert built.proof.max_rel < 1e-12
    parity = built.onnx.parity
    assert {tuple(one.sizes.items()) for one in parity} == {
        (),
        *(tuple(sizes.items()) for sizes in built.sizes),
    }
    assert {one.batch for one in parity} == {1, 5}
    model = onnx.load_model_from_string(built.onnx.data)
    assert dims(model.graph.input) == wanted
    session = ort.InferenceSession(built.onnx.data, providers=["CPUExecutionProvider"])
    for given in others:
        feed = {
            one.name: tensor.numpy()
            for one, tensor in zip(session.get_inputs(), given, strict=True)
        }
        with torch.no_grad():
            found, torchs = session.run(None, feed)[0], built.module(*given).numpy()
        np.testing.assert_allclose(found, torchs, atol=1e-4)
    assert built.report["parity"][-1]["sizes"] == dict(built.sizes[-1])


def test_a_size_that_only_looks_free_is_refused_with_the_line_that_needs_it():
    with pytest.raises(UsageError, match="runs at no other size of 'height' than 8") as refused:
        halved(Square, normal(2, 3, 8, 8), {"image": {2: "height", 3: "width"}})
    assert "RuntimeError" in refused.value.why
    assert "test_dynamic_axes.py:" in refused.value.why


def test_a_branch_on_a_size_is_refused():
    with pytest.raises(UsageError, match="does not hold for other sizes: height"):
        halved(Branches, normal(2, 3, 8, 8), {"image": {2: "height"}})


# ---------------------------------------------------------------------------- command line


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ([], {}),
        (["x:1=n"], {"x": {1: "n"}}),
        (["a.0:-1=n", "a.0:2=m", "b:1=n"], {"a.0": {-1: "n", 2: "m"}, "b": {1: "n"}}),
    ],
)
def test_options_are_read(options, wanted):
    assert parse(options) == wanted


@pytest.mark.parametrize("option", ["x", "x:1", "x=n", "x:one=n", ":1=n", "x:1=", "x:=n"])
def test_options_of_another_shape_are_refused(option):
    with pytest.raises(UsageError, match="cannot read what is dynamic") as refused:
        parse([option])
    assert "--dynamic input_ids:1=sequence" in refused.value.hint


def test_an_axis_that_is_named_twice_is_refused():
    with pytest.raises(UsageError, match="axis 1 of x is named twice"):
        parse(["x:1=n", "x:1=m"])


NET = """
import torch
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 3))

def example_inputs():
    return torch.randn(2, 3, 8, 8)
"""


def run(line: str) -> Any:
    return CliRunner().invoke(app, line.split())


def test_inspect_and_build_take_what_is_dynamic(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NET)
    seen = run("inspect net.py:make --dynamic input:2=height")
    assert seen.exit_code == 0, seen.stderr
    assert "free height" in seen.stdout
    line = "build net.py:make --macs 0.5 --dynamic input:2=h --dynamic input:3=w -o out -q"
    done = run(f"{line} --bench-seconds 0.1 --allow-slower")
    assert done.exit_code == 0, done.stderr
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert dims(model.graph.input) == [["batch", 3, "h", "w"]]
    wrong = run("inspect net.py:make --dynamic x:2=height")
    assert wrong.exit_code == 2
    assert "no input is called 'x'" in wrong.stderr
