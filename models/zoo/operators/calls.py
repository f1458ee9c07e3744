"""How a model is called, what it returns, and in which precision it computes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from models._random import normal, seeded
from models.zoo.cases import Case

from .frames import WIDTH, network, of_family, picture, vector


class Body(nn.Module):
    """[batch, 12] -> [batch, 10]; the parts that the models below share."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(12, WIDTH), nn.Linear(12, WIDTH)
        self.body, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 10)

    def pair(self, a: Tensor, b: Tensor) -> Tensor:
        return F.relu(self.body(F.relu(self.left(a)) + self.right(b)))


class OfList(Body):
    def forward(self, pair: list[Tensor]) -> list[Tensor]:
        y = self.pair(*pair)
        return [self.head(y), y.sum(-1)]


class OfDict(Body):
    def forward(self, given: Mapping[str, Tensor]) -> dict[str, Any]:
        y = self.pair(given["a"], given["b"])
        return {"logits": self.head(y), "parts": (self.head(-y), {"deep": [self.head(2 * y)]})}


class Found(NamedTuple):
    logits: Tensor
    score: Tensor


class OfNamedTuple(Body):
    def forward(self, given: Found) -> Found:
        y = self.head(self.pair(given.logits, given.score))
        return Found(y, y.amax(-1))


@dataclass
class Answer:
    """What a model of transformers returns, without its base class."""

    logits: Tensor
    loss: Tensor | None = None


torch.export.register_dataclass(Answer, serialized_type_name="benchmarks.Answer")


class OfDataclass(Body):
    def forward(self, a: Tensor) -> Answer:
        return Answer(self.head(self.pair(a, a)))


class Optional(Body):
    """The second input may be left out."""

    def forward(self, a: Tensor, b: Tensor | None = None, scale: float = 1.0) -> Tensor:
        y = F.relu(self.left(a)) * scale
        if b is not None:
            y = y + self.right(b)
        return self.head(F.relu(self.body(y)))


class ByShape(nn.Module):
    """Python decides by sizes: pictures are padded until both sides are a multiple of four."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        missing = (-x.shape[-1]) % 4
        if missing:
            x = F.pad(x, (0, missing, 0, missing))
        while x.shape[-1] > 4:
            x = F.max_pool2d(F.relu(self.conv(x)), 2)
        return x if x.shape[1] == WIDTH else x[:, :WIDTH]


class Counting(Body):
    """Plain numbers beside the tensors."""

    def forward(self, a: Tensor) -> tuple[Tensor, int, str, None]:
        return self.head(self.pair(a, a)), 7, "ok", None


class InParts(nn.Module):
    """ModuleDict, ModuleList, ParameterList, and a layer that is never called."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleDict({"a": nn.Linear(WIDTH, 48), "b": nn.Linear(48, WIDTH)})
        self.shifts = nn.ParameterList(nn.Parameter(torch.zeros(48)) for _ in range(2))
        self.unused = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.parts["a"](x)
        for shift in self.shifts:
            y = torch.tanh(y + shift)
        return x + self.parts["b"](y)


class Scalars(nn.Module):
    """Parameters without dimensions, of one element, and layers with one channel."""

    def __init__(self) -> None:
        super().__init__()
        self.heat, self.shift = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(1))
        self.one, self.back = nn.Conv2d(WIDTH, 1, 1), nn.Conv2d(1, WIDTH, 3, padding=1)
        self.norm = nn.BatchNorm2d(1)
        self.conv = nn.Conv2d(WIDTH, WIDTH, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.back(F.relu(self.norm(self.one(x))))
        return self.conv(x * self.heat.exp() + y + self.shift)


class Mixed(nn.Module):
    """A part of the network computes in another precision than the rest."""

    def __init__(self, inner: torch.dtype) -> None:
        super().__init__()
        self.inner = inner
        self.one, self.two = nn.Linear(WIDTH, 48), nn.Linear(48, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.one(x).to(self.inner)
        y = (y * y.sigmoid()).type_as(x)
        return x + self.two(y)


class Switched(nn.Module):
    """Checkpoints, gradient modes and autocast, as training code has them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, 48), nn.Linear(48, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = x.abs().amax(0, keepdim=True) * 0 + 1
        with torch.autocast("cpu", enabled=False):
            y = checkpoint(self.one, x * scale, use_reentrant=False)
        return x + self.two(F.relu(y))


class Hooked(nn.Module):
    """Forward hooks change what layers give."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, 48), nn.Linear(48, WIDTH)
        self.one.register_forward_hook(lambda module, given, found: torch.relu(found) * 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.one(x))


class Embedded(nn.Module):
    """Numbers and categories together: several tables of different width (tabular data)."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(9, n) for n in (8, 16, 24))
        self.body = nn.Sequential(nn.Linear(60, 64), nn.ReLU(), nn.Linear(64, 10))

    def forward(self, numbers: Tensor, kinds: Tensor) -> Tensor:
        found = [table(kinds[:, i]) for i, table in enumerate(self.tables)]
        return self.body(torch.cat([numbers, *found], -1))


class Multi(nn.Module):
    """A stack of features goes out as well as the classes: those keep their widths."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 64, 3), nn.Conv2d(64, 64, 3)
        self.feature, self.head = nn.Conv2d(64, 8, 1), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x = F.relu(self.two(F.relu(self.one(x))))
        return self.feature(x), self.head(x.mean((2, 3))), x.mean()


def in_dtype(name: str, dtype: torch.dtype, frozen: str = "") -> Case:
    """A network and its inputs in another precision."""

    def make() -> tuple[nn.Module, Any]:
        convs = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3, padding=1), nn.BatchNorm2d(WIDTH), nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.GELU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.LayerNorm(WIDTH), nn.Linear(WIDTH, 10),
        )  # fmt: skip
        return seeded(lambda: convs, 0).to(dtype), normal(2, 3, 8, 8).to(dtype)

    return Case(name, make, frozen=frozen)


A, B = normal(2, 12), normal(2, 12, seed=1)

CASES = of_family(
    "calls",
    network("list_in_and_out", OfList, ([A, B],)),
    network("dict_in_nested_out", OfDict, ({"a": A, "b": B},)),
    network("named_tuple", OfNamedTuple, (Found(A, B),)),
    network("dataclass_out", OfDataclass, A),
    network("optional_given", Optional, {"a": A, "b": B}),
    network("optional_left_out", Optional, (A, None, 0.5)),
    network("keywords_in_another_order", Optional, {"scale": 0.5, "b": B, "a": A}),
    picture("control_flow_by_shape", ByShape, size=15),
    network("numbers_out", Counting, A, frozen="torch.onnx.export failed"),
    vector("module_containers", InParts),
    picture("scalars_and_single_channels", Scalars),
    vector("mixed_float64", lambda: Mixed(torch.float64)),
    vector("mixed_bfloat16", lambda: Mixed(torch.bfloat16), frozen="ONNX Runtime refuses"),
    vector("modes_inside", Switched),
    vector("forward_hook", Hooked),
    network("tabular", Embedded, (A, torch.tensor([[0, 3, 8], [5, 5, 1]]))),
    network("several_outputs", Multi, normal(2, 3, 10, 10)),
    in_dtype("bfloat16", torch.bfloat16, "made a model that is not valid"),
    in_dtype("float16", torch.float16),
    in_dtype("float64", torch.float64, "ONNX Runtime refuses"),
)
