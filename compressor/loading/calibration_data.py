"""Calibration data: whatever a user has, as calls of the model that can be gone through again.

    a tensor, or a dict of them              all samples at once: cut into batches
    a list, a DataLoader, a generator        batches
    a Dataset                                samples: gathered into batches
    a callable                               what it returns

A batch is what the model is called with (a tensor, a tuple, a dict of keyword arguments), or a pair
of that and a target. It is one or the other by its shape: what fits the model's own example inputs
is inputs.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, Dataset

from compressor.base.messages import kind_of, reason
from compressor.loading.calls import Called, as_call
from compressor.passes.base.errors import CompressError, UsageError
from compressor.passes.ir.program import Program, shares_batch

BATCH = 64
"""Samples in a batch, where it is ours to choose."""

Source = Any
"""A tensor, a mapping, a Dataset, an iterable of batches, or a callable that returns one."""


class Batch(NamedTuple):
    """One call of the model, and what it should give where that is known."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    target: Any = None

    @property
    def call(self) -> Called:
        return self.args, self.kwargs


@dataclass(frozen=True)
class Signature:
    """What the model is called with: its example inputs, and which of their sizes are free."""

    call: Called
    batch: int | None
    axes: Mapping[int, Mapping[int, str]]

    @classmethod
    def of(cls, program: Program) -> "Signature":
        """What a program is called with."""
        return cls((program.args, dict(program.kwargs)), program.batch, program.axes)

    def rows(self, batch: Batch) -> int | None:
        """How many samples a batch has; None where the model fixes that."""
        pairs = zip(pytree.tree_leaves(batch.call), self._flags, strict=True)
        return next((len(leaf) for leaf, shares in pairs if shares), None)

    def taken(self, batch: Batch, rows: slice | Tensor) -> Batch:
        """Some samples of a batch, with their targets."""
        leaves, spec = pytree.tree_flatten(batch.call)
        pairs = zip(leaves, self._flags, strict=True)
        some = [leaf[rows] if shares else leaf for leaf, shares in pairs]
        target = pytree.tree_map(
            lambda leaf: leaf[rows] if len(getattr(leaf, "shape", ())) else leaf, batch.target
        )
        args, kwargs = pytree.tree_unflatten(some, spec)
        return Batch(args, kwargs, target)

    @property
    def _flags(self) -> list[bool]:
        return [shares_batch(one, self.batch) for one in pytree.tree_leaves(self.call)]

    def fit(self, value: Any) -> "Called | _Unfit":
        """The value as arguments of the model, or why it cannot be."""
        try:
            args, kwargs = as_call(value)
        except UsageError as error:
            return _Unfit(error.what.replace("example inputs", "inputs"))
        kwargs = {name: kwargs[name] for name in self.call[1] if name in kwargs} | kwargs
        wanted, spec = pytree.tree_flatten(self.call)
        given, own = pytree.tree_flatten((args, kwargs))
        if own != spec:
            return _Unfit(_other_structure(args, kwargs, self.call))
        leaves = []
        for position, (one, example) in enumerate(zip(given, wanted, strict=True)):
            leaf = self._leaf(one, example, self.axes.get(position, {}))
            if isinstance(leaf, _Unfit):
                return leaf
            leaves.append(leaf)
        sizes = {len(leaf) for leaf, example in zip(leaves, wanted, strict=True)
                 if shares_batch(example, self.batch)}  # fmt: skip
        if self.batch is not None and len(sizes) > 1:
            return _Unfit(f"inputs of one batch differ in length: {sorted(sizes)}")
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        return args, kwargs

    def _leaf(self, one: Any, example: Any, free: Mapping[int, str]) -> "Any | _Unfit":
        if not isinstance(example, Tensor):
            same = type(one) is type(example) and one == example
            return one if same else _Unfit(f"{one!r} where the example inputs have {example!r}")
        if not isinstance(one, Tensor):
            return _Unfit(f"{kind_of(one)} where the example inputs have a tensor")
        loose = {*free, *([0] if shares_batch(example, self.batch) else [])}
        fits = one.dim() == example.dim() and all(
            axis in loose or size == wanted
            for axis, (size, wanted) in enumerate(zip(one.shape, example.shape, strict=True))
        )
        if not fits:
            return _Unfit(f"{list(one.shape)} where the model takes {_pattern(example, loose)}")
        if one.is_floating_point() != example.is_floating_point():
            names = [str(t.dtype).removeprefix("torch.") for t in (one, example)]
            return _Unfit(f"{names[0]} where the model takes {names[1]}")
        return one.detach().to(example.dtype)


class _Unfit(str):
    """Why a value is not inputs of the model."""


def _pattern(example: Tensor, loose: set[int]) -> str:
    sizes = ["any" if axis in loose else str(size) for axis, size in enumerate(example.shape)]
    return f"[{', '.join(sizes)}]"


def _other_structure(args: Any, kwargs: Any, call: Called) -> str:
    def words(args: Any, kwargs: Any) -> str:
        named = f"the names {', '.join(kwargs)}" if kwargs else ""
        count = f"{len(args)} argument{'s' * (len(args) != 1)}" if args else ""
        return " and ".join(filter(None, (count, named))) or "nothing"

    return f"{words(args, kwargs)} where the model takes {words(*call)}"


class Data:
    """Batches that fit a model, any number of times, in the order in which they were given.

    `labelled` says whether the batches have targets. Each pass looks at every batch again.
    """

    def __init__(self, source: Source, program: Program) -> None:
        """Raises UsageError for a source without batches, or a first batch that does not fit."""
        self._signature = Signature.of(program)
        self._source = _repeatable(source, self._signature)
        first = next(iter(self), None)
        if first is None:
            raise UsageError("the calibration data hold no batch", hint=_HINT)
        self.labelled = first.target is not None

    def __iter__(self) -> Iterator[Batch]:
        for number, item in enumerate(_told(self._source), 1):
            yield checked(item, self._signature, f"batch {number}")

    @property
    def calls(self) -> "Calls":
        """The inputs alone, any number of times."""
        return Calls(self)


@dataclass(frozen=True)
class Calls:
    """The calls of some data; nothing is kept between passes."""

    data: Data

    def __iter__(self) -> Iterator[Called]:
        return (batch.call for batch in self.data)


def _told(source: Iterable[Any]) -> Iterator[Any]:
    """The items; what the user's code raises on the way is a UsageError."""
    found = iter(source)
    number = 0
    while True:
        number += 1
        try:
            item = next(found)
        except StopIteration:
            return
        except CompressError:
            raise
        except Exception as error:
            raise UsageError(
                "the calibration data raised an exception",
                where=f"batch {number}",
                why=reason(error),
                hint=_HINT,
            ) from error
        yield item


_HINT = "give an iterable of inputs, or of (inputs, target) pairs, like those of --inputs"


def checked(item: Any, signature: Signature, where: str = "") -> Batch:
    """An item of the user's as a batch. Raises UsageError where it does not fit the model."""
    call = signature.fit(item)
    target = None
    if isinstance(call, _Unfit):
        found = _apart(item, signature)
        pair = None if found is None else signature.fit(found[0])
        if found is None or pair is None or isinstance(pair, _Unfit):
            raise UsageError(
                "the calibration data do not fit the model",
                where=where,
                why=call if pair is None else f"as a pair: {pair}; as inputs: {call}",
                hint=_HINT,
            )
        call, target = pair, found[1]
    floats = [leaf for leaf in pytree.tree_leaves(call)
              if isinstance(leaf, Tensor) and leaf.is_floating_point()]  # fmt: skip
    if not all(bool(torch.isfinite(leaf).all()) for leaf in floats):
        raise UsageError("the calibration data hold NaN or infinite numbers", where=where)
    return Batch(*call, target)


def _apart(item: Any, signature: Signature) -> tuple[Any, Any] | None:
    """Inputs and target of an item: a pair, or a dict with one name more than the model takes."""
    if isinstance(item, tuple | list) and len(item) == 2:
        return item[0], item[1]
    if isinstance(item, Mapping):
        more = [name for name in item if name not in signature.call[1]]
        if len(more) == 1:
            return {name: one for name, one in item.items() if name != more[0]}, item[more[0]]
    return None


def _repeatable(source: Source, signature: Signature) -> Iterable[Any]:
    """Something that gives its batches each time it is asked; one-shot iterators are kept."""
    if callable(source) and not isinstance(source, Iterable | Tensor):
        source = source()
    if isinstance(source, Tensor | Mapping) or _is_whole(source, signature):
        return _Cut(checked(source, signature), signature)
    if isinstance(source, Dataset) and hasattr(source, "__getitem__"):
        return DataLoader(source, BATCH)
    if not isinstance(source, Iterable) and not hasattr(source, "__getitem__"):
        raise UsageError(f"the calibration data are {kind_of(source)}", hint=_HINT)
    found = iter(source)
    if found is source:  # it can be gone through once
        return list(_told(found))
    kept: Iterable[Any] = source
    return kept


def _is_whole(source: Source, signature: Signature) -> bool:
    """Whether a tuple is one batch, (inputs, targets), and not a tuple of batches."""
    if not isinstance(source, tuple):
        return False
    return not isinstance(signature.fit(source), _Unfit) or (
        len(source) == 2
        and not isinstance(signature.fit(source[0]), _Unfit)
        and isinstance(signature.fit(source[1]), _Unfit)
    )


@dataclass(frozen=True)
class _Cut:
    """One large batch, in batches of at most `BATCH`, where the model leaves their size free."""

    whole: Batch
    signature: Signature

    def __iter__(self) -> Iterator[Any]:
        rows = self.signature.rows(self.whole)
        if rows is None:
            yield item_of(self.whole)
            return
        for start in range(0, rows, BATCH):
            yield item_of(self.signature.taken(self.whole, slice(start, start + BATCH)))


def item_of(batch: Batch) -> Any:
    """A batch as a user would have written it."""
    inputs = batch.kwargs if batch.kwargs else batch.args
    return inputs if batch.target is None else (inputs, batch.target)
