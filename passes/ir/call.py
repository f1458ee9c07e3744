"""One call of an operator, with its arguments by name: what the columns of the rule table take."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch._ops import OpOverload
from torch.fx import Node

from .labels import Value
from .program import hint

Shape = tuple[int, ...]
Result = Value | list[Value]
Factor = tuple[Value, int]
"""The size of one axis of one value."""


@dataclass(frozen=True, eq=False)
class Call:
    """One operator call with its arguments by the names of the operator's schema.

    Tensors are `Value`s and symbolic sizes are the numbers of the example.
    """

    node: Node
    given: Mapping[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.given[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.given.get(name, default)

    @property
    def op(self) -> OpOverload:
        assert isinstance(self.node.target, OpOverload)
        return self.node.target

    @property
    def x(self) -> Value:
        """The first tensor argument."""
        for value in self.given.values():
            if isinstance(value, Value):
                return value
        raise LookupError(f"{self.node} takes no tensor")

    @property
    def values(self) -> list[Value]:
        """All tensor arguments, those in lists too, in the order of the schema."""
        found: list[Value] = []
        for value in self.given.values():
            members = value if isinstance(value, list | tuple) else [value]
            found += [member for member in members if isinstance(member, Value)]
        return found

    @property
    def shape(self) -> Shape:
        """Sizes of the (only) result."""
        return self.shapes[0]

    @property
    def shapes(self) -> list[Shape]:
        """Sizes of every result."""
        val = self.node.meta["val"]
        members = val if isinstance(val, list | tuple) else [val]
        return [tuple(hint(s) for s in member.shape) for member in members if member is not None]

    def rerun(self, first: Tensor) -> Any:
        """The operator itself, on another first argument."""
        args, kwargs = [first], {}
        for argument in self.op._schema.arguments[1:]:
            if argument.kwarg_only:
                kwargs[argument.name] = self.given[argument.name]
            else:
                args.append(self.given[argument.name])
        return self.op(*args, **kwargs)

    def axis(self, name: str = "dim", rank: int | None = None) -> int:
        """The argument `name` as an axis counted from the front."""
        rank = self.x.rank if rank is None else rank
        axis = int(self[name])
        return axis % max(rank, 1)

    def axes(self, name: str = "dim") -> list[int]:
        """The argument `name` as a list of axes; all of them where it is empty or not given."""
        axes = self.get(name)
        if axes is None or axes == []:
            return list(range(self.x.rank))
        members = axes if isinstance(axes, list | tuple) else [axes]
        return [int(axis) % max(self.x.rank, 1) for axis in members]


def is_transposed(call: Call) -> bool:
    """Whether a convolution is a transposed one."""
    return bool(call.get("transposed", False)) or "transpose" in call.op._schema.name
