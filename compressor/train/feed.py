"""Training data: the same batches in every process and every run, in an order that a seed decides.

    a tensor, or a dict of them      samples, shuffled anew each epoch
    a Dataset                        the same
    a DataLoader                     its own batches; its random numbers are seeded each epoch
    a list or a generator            batches, in another order each epoch

All processes go through the same batches, and each computes its share of the rows of each, so that
the number of processes changes nothing but the time.
"""

import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
)

from compressor.base.messages import kind_of
from compressor.loading.calibration_data import Batch, Signature, Source, checked, item_of
from compressor.passes.base.errors import UsageError
from compressor.passes.ir.program import Program

HELD_OUT = 10
"""One part in so many is held out, where nothing else says which state is the best."""

_HINT = "give a DataLoader, a Dataset, a tensor or batches with --train-data, or train_data="


class Feed:
    """Batches to train on, and batches held out (none unless asked for)."""

    def __init__(
        self, source: Source, program: Program, batch_size: int, seed: int, hold_out: bool
    ) -> None:
        """Raises UsageError for data that cannot be used, or cannot be split."""
        self._signature = Signature.of(program)
        self._batch_size, self._seed = batch_size, seed
        self.makes_batches = False
        """Whether `batch_size` has an effect: the source has samples, not batches of its own."""
        self._parts = self._split(_called(source), hold_out)
        first = next(self.epoch(0), None)
        if first is None:
            raise UsageError("the training data hold no batch", hint=_HINT)
        self.labelled = first.target is not None
        self._steps = 0

    def epoch(self, number: int) -> Iterator[Batch]:
        """The batches of an epoch; the same number gives the same ones."""
        seeded(self._seed + number)
        for index, item in enumerate(_shuffled(self._parts[0], self._seed + number), 1):
            yield checked(item, self._signature, f"batch {index} of the training data")

    def held_out(self) -> Iterator[Batch]:
        """The batches that are not trained on."""
        for item in self._parts[1]:
            yield checked(item, self._signature, "held-out training data")

    def batches(self) -> int:
        """How many batches an epoch has."""
        if not self._steps:
            whole = self._parts[0]
            self._steps = len(whole) if hasattr(whole, "__len__") else sum(1 for _ in whole)
        return self._steps

    # ------------------------------------------------------------------------------- splitting

    def _split(self, source: Any, hold_out: bool) -> tuple[Any, Any]:
        """What is trained on, and what is held out."""
        samples = self._samples(source)
        if samples is not None:
            self.makes_batches = True
            ones, rest = _apart(len(samples), hold_out, self._seed)  # type: ignore[arg-type]
            return self._loader(samples, ones, True), self._loader(samples, rest, False)
        if isinstance(source, DataLoader):
            return _split_loader(source, hold_out, self._seed)
        if isinstance(source, IterableDataset):
            self.makes_batches = True
            source = DataLoader(source, self._batch_size)
            return _split_loader(source, hold_out, self._seed)
        if not hasattr(source, "__iter__") and not hasattr(source, "__getitem__"):
            raise UsageError(f"the training data are {kind_of(source)}", hint=_HINT)
        batches = list(source)
        if hold_out and len(batches) == 1:
            raise _cannot("one batch")
        ones, rest = _apart(len(batches), hold_out, self._seed)
        return [batches[i] for i in ones], [batches[i] for i in rest]

    def _samples(self, source: Any) -> "Dataset[Any] | None":
        """Single samples, where the source has them."""
        if isinstance(source, Dataset) and not isinstance(source, IterableDataset):
            return source
        if isinstance(source, Tensor | dict | tuple):
            try:
                batch = checked(source, self._signature)
            except UsageError:
                if isinstance(source, tuple):
                    return None  # a tuple of batches
                raise
            return _Rows(batch, self._signature)
        return None

    def _loader(self, samples: "Dataset[Any]", indices: Sequence[int], shuffle: bool) -> Any:
        collate = samples.collate if isinstance(samples, _Rows) else None
        chosen = Subset(samples, indices)
        if not len(indices):
            return []
        return DataLoader(chosen, self._batch_size, shuffle=shuffle, collate_fn=collate)


class _Rows(Dataset[int]):
    """One large batch as a data set of its row numbers; collating takes the rows."""

    def __init__(self, batch: Batch, signature: Signature) -> None:
        size = signature.rows(batch)
        if size is None:
            raise UsageError("the model fixes its batch size", hint=_HINT)
        self._batch, self._signature, self._size = batch, signature, size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> int:
        return index

    def collate(self, indices: Sequence[int]) -> Any:
        """The rows of these numbers, as a user would have written the batch."""
        return item_of(self._signature.taken(self._batch, torch.as_tensor(indices)))


def _called(source: Any) -> Any:
    """What a callable returns; a one-shot iterator becomes a list."""
    if callable(source) and not isinstance(source, Tensor | Dataset | DataLoader):
        source = source()
    return source


def _apart(count: int, hold_out: bool, seed: int) -> tuple[list[int], list[int]]:
    """Numbers to train on, and numbers held out, drawn at random."""
    if not hold_out:
        return list(range(count)), []
    order = torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    rest = max(count // HELD_OUT, 1)
    return sorted(order[rest:]), sorted(order[:rest])


def _split_loader(loader: "DataLoader[Any]", hold_out: bool, seed: int) -> tuple[Any, Any]:
    if not hold_out:
        return loader, []
    plain = type(loader.sampler) in (RandomSampler, SequentialSampler)
    if isinstance(loader.dataset, IterableDataset) or not plain or loader.batch_size is None:
        raise _cannot("a DataLoader that draws its samples in its own way")
    ones, rest = _apart(len(loader.dataset), True, seed)  # type: ignore[arg-type]
    shuffle = isinstance(loader.sampler, RandomSampler)

    def again(indices: Sequence[int], shuffle: bool, drop: bool) -> "DataLoader[Any]":
        return DataLoader(
            Subset(loader.dataset, indices),
            loader.batch_size,
            shuffle=shuffle,
            drop_last=drop,
            collate_fn=loader.collate_fn,
            num_workers=loader.num_workers,
        )

    return again(ones, shuffle, loader.drop_last), again(rest, False, False)


def _cannot(what: str) -> UsageError:
    return UsageError(
        f"nothing can be held out of {what}",
        why="without an evaluation, a held-out part says which state is the best",
        hint="give --evaluate, or evaluate=",
    )


def _shuffled(batches: Any, seed: int) -> Any:
    """Batches of a list in another order; a loader shuffles by itself."""
    if isinstance(batches, DataLoader):
        if batches.generator is not None:
            batches.generator.manual_seed(seed)
        return batches
    order = torch.randperm(len(batches), generator=torch.Generator().manual_seed(seed))
    return [batches[i] for i in order.tolist()]


def seeded(seed: int) -> None:
    """Random numbers of loaders and of the user's own transforms start here."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


# ------------------------------------------------------------------------------------- shares


def share(batch: Batch, rank: int, count: int, example: Signature) -> tuple[Batch, float]:
    """The rows of one process, and the weight of their mean in the mean over all processes.

    Gradients are averaged over processes, so that rows weigh equally only with such a weight.
    """
    if count == 1:
        return batch, 1.0
    rows = example.rows(batch)
    assert rows is not None
    own = torch.arange(rank * rows // count, (rank + 1) * rows // count)
    return example.taken(batch, own), len(own) * count / rows
