"""What the exporter cannot say is said in other words, and means the same."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.fx import GraphModule

from compressor import passes
from compressor.onnx.constants import folded
from compressor.onnx.export import export, simplify
from compressor.onnx.lowering import exportable
from compressor.onnx.runtime import parity
from models._random import normal, seeded

aten = torch.ops.aten


def captured(model: nn.Module, *args: Tensor) -> passes.Program:
    return passes.capture(seeded(lambda: model, 1), args, {})


def operators(module: GraphModule) -> set[object]:
    return {node.target for node in module.graph.nodes}


class PerSample(nn.Module):
    """Every sample is convolved with a weight of its own."""

    def __init__(self, bias: bool) -> None:
        super().__init__()
        self.weight = nn.Linear(4, 6 * 4 * 9)
        self.bias = nn.Linear(4, 6) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        code = x.mean((2, 3))
        weight = self.weight(code).view(b * 6, c, 3, 3)
        bias = None if self.bias is None else self.bias(code).flatten()
        y = F.conv2d(x.reshape(1, b * c, h, w), weight, bias, 2, 1, groups=b)
        return y.view(b, 6, *y.shape[2:])


class Fixed(nn.Module):
    """A weight norm, a view of a weight, a random number, and a table too large to store."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.weight = nn.Parameter(torch.zeros(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x) @ self.weight.t()
        large = torch.arange(300.0)[:, None] * torch.arange(300.0)
        return x + 0 * torch.rand(4) + (x[:, :1] * large.flatten()).mean(1, keepdim=True)


def test_a_convolution_for_each_sample_is_a_product_with_patches():
    for bias in (True, False):
        x = normal(2, 4, 6, 6)
        program = captured(PerSample(bias), x)
        module = exportable(program)
        assert aten.conv2d.default in operators(program.module)
        assert aten.conv2d.default not in operators(module)
        for size in (2, 5):
            given = torch.cat([x] * 3)[:size]
            with torch.no_grad():
                torch.testing.assert_close(module(given), program.module(given))


def test_what_depends_on_no_input_is_computed_once_unless_it_is_large_or_random():
    program = captured(Fixed(), normal(2, 4))
    other = folded(program)
    assert aten._weight_norm_interface.default not in operators(other.module)
    assert aten._weight_norm.default not in operators(other.module)
    assert aten.rand.default in operators(other.module)
    assert aten.arange.default in operators(other.module)
    assert "weight" in other.tensors()  # and its transpose is not stored beside it
    with torch.no_grad():
        torch.testing.assert_close(other.module(normal(2, 4)), program.module(normal(2, 4)))


class Padded(nn.Module):
    """A pool of negative values that were padded with zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = -self.conv(x).abs() - 1
        return F.max_pool2d(F.pad(y, (1, 1, 1, 1)), 3, 2)


def test_zeros_around_negative_values_stay_zeros_in_onnx_runtime():
    program = captured(Padded(), normal(2, 3, 9, 9))
    data = export(program)
    call = (program.args, dict(program.kwargs))
    parity(program, data, call)
    simplified = simplify(data)
    assert simplified.data is not None
    parity(program, simplified.data, call)


class Written(nn.Module):
    """A table that is filled row by row, through views."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(4))

    def forward(self, x: Tensor) -> Tensor:
        table = torch.zeros(3, 4)
        table[0] += self.bias
        table[1:, 2] = 5
        return x @ table.t()


def test_a_table_that_is_written_through_views_is_made_anew_each_time():
    program = captured(Written(), normal(2, 4))
    other = folded(program)
    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(other.module(normal(2, 4)), program.module(normal(2, 4)))


def test_the_program_itself_stays_as_it_is():
    program = captured(PerSample(True), normal(2, 4, 6, 6))
    before = str(program.module.graph)
    exportable(folded(program))
    assert str(program.module.graph) == before
