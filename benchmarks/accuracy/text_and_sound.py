"""Text and sound: what is left of the accuracy without training, beside Torch-Pruning.

    questions   a pre-norm transformer encoder on TREC-6: 512 training questions calibrate, all 500
                test questions count
    keywords    a depthwise-separable network on speech commands: 250 clips calibrate, the other 750
                count (there is no training part)

`python -m benchmarks accuracy --only "text and sound/*"` measures and records them.

Ours counts as deployed: the exported model in ONNX Runtime. The peer counts in torch, with the best
of its criteria by the very inputs that count, with and without batch norms re-estimated.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from types import ModuleType
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.accuracy.networks import loaders
from benchmarks.coverage.torch_pruning_peer import _last
from compressor import Budget, compress

SHARES = (0.7, 0.5)
NAMES = ("questions (transformer)", "keywords (DS-CNN)")
CRITERIA = ("group l2", "group l1", "group taylor", "lamp", "random")


@dataclass(frozen=True)
class Subject:
    """A trained network with what calibrates it and what it is judged by."""

    name: str
    model: nn.Module
    calibration: Tensor
    inputs: Tensor
    targets: Tensor
    heads: bool = False


@dataclass(frozen=True)
class Row:
    """One network at one share of its MACs; accuracies as shares of the inputs that count."""

    name: str
    share: float
    macs: float
    """What is left, as a share."""
    original: float
    sliced: float
    repaired: float
    repaired_l2: float
    """With channels chosen by plain norms."""
    seconds: float
    """Of the whole build with its repair."""
    peer_macs: float
    peer: float
    peer_norms: float
    """With batch norms re-estimated on the same calibration inputs."""
    peer_criterion: str

    @property
    def won_back(self) -> float:
        """The share of what slicing lost that repair gives back."""
        lost = self.original - self.sliced
        return (self.repaired - self.sliced) / lost if lost > 0 else 1.0

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"won_back": round(self.won_back, 4)}


def subjects(load: ModuleType) -> Iterator[Subject]:
    """The networks of `load`, the loaders beside the data."""
    questions, kinds = load.trec6("test")
    yield Subject(
        NAMES[0],
        load.trec6_encoder(),
        load.trec6("train")[0][:512],
        questions,
        kinds,
        heads=True,
    )
    clips, words = load.keywords()
    yield Subject(NAMES[1], load.keyword_spotter(), clips[:250], clips[250:], words[250:])


def measured(name: str, share: float) -> dict[str, Any]:
    """One row by the name of its network."""
    (subject,) = [one for one in subjects(loaders()) if one.name == name]
    return {"text and sound": row(subject, share).to_json()}


def row(subject: Subject, share: float) -> Row:
    """One network at one share of its MACs."""
    data = list(subject.calibration.split(64))
    sliced, _, original, _ = _ours(subject, share, None)
    plain, *_ = _ours(subject, share, data, criterion="l2")
    repaired, left, _, seconds = _ours(subject, share, data)
    best = max(_peers(subject, share), key=lambda one: max(one[1:3]))
    return Row(
        subject.name,
        share,
        left,
        original,
        sliced,
        repaired,
        plain,
        round(seconds, 1),
        best[3],
        best[1],
        best[2],
        best[0],
    )


def _ours(
    subject: Subject, share: float, data: list[Tensor] | None, criterion: str = "auto"
) -> tuple[float, float, float, float]:
    """Accuracy, MACs left, the original's accuracy, and seconds of the build."""
    pairs = zip(subject.inputs.split(50), subject.targets.split(50), strict=True)
    built = compress(
        subject.model,
        subject.inputs[:2],
        budget=Budget(macs=share),
        data=data,
        criterion=criterion,
        evaluate="accuracy",
        eval_data=list(pairs),
    )
    found = built.measured["accuracy"]["accuracy"]
    took = sum(v for k, v in built.watch.seconds.items() if k != "evaluate")
    left = macs(built.module, subject.inputs) / macs(subject.model, subject.inputs)
    return found["small"], left, found["original"], took


# ------------------------------------------------------------------------------------- the peer


def _peers(subject: Subject, share: float) -> Iterator[tuple[str, float, float, float]]:
    """For every criterion: accuracy, the same with norms re-estimated, and MACs left."""
    dense = macs(subject.model, subject.inputs)
    for name in CRITERIA:
        low, high, best = 0.0, 0.95, None
        for _ in range(7):
            ratio = (low + high) / 2
            model = prune(subject, name, ratio)
            left = macs(model, subject.inputs) / dense
            if left <= share:
                best, high = (model, left), ratio
            else:
                low = ratio
        if best is None:
            continue
        model, left = best
        yield name, _accuracy(subject, model), _accuracy(subject, renormed(subject, model)), left


def prune(subject: Subject, criterion: str, ratio: float) -> nn.Module:
    """A copy, pruned by Torch-Pruning: groups compete, as in its examples."""
    import torch_pruning as tp

    importance = {
        "group l2": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "group l1": lambda: tp.importance.GroupMagnitudeImportance(p=1),
        "group taylor": lambda: tp.importance.GroupTaylorImportance(),
        "lamp": lambda: tp.importance.LAMPImportance(p=2),
        "random": lambda: tp.importance.RandomImportance(),
    }[criterion]()
    model = copy.deepcopy(subject.model).eval()
    torch.manual_seed(0)
    if (
        criterion == "group taylor"
    ):  # it needs gradients: of its own guesses, as there are no labels
        scores = model(subject.calibration[:256])
        nn.functional.cross_entropy(scores, scores.argmax(1)).backward()
    owners = [part for part in model.modules() if subject.heads and hasattr(part, "hd")]
    heads = {getattr(owner, name): owner.h for owner in owners for name in "qkv"}
    pruner = tp.pruner.BasePruner(
        model,
        subject.inputs[:2],
        importance=importance,
        pruning_ratio=ratio,
        global_pruning=True,
        max_pruning_ratio=0.95,
        ignored_layers=_last(model, subject.inputs[:2]),
        num_heads=heads,
        prune_head_dims=bool(heads),
    )
    pruner.step()
    for owner in owners:
        owner.h = pruner.num_heads[owner.q]
        owner.hd = owner.q.out_features // owner.h
    return model.eval()


def renormed(subject: Subject, model: nn.Module) -> nn.Module:
    """A copy whose batch norms have the statistics of the calibration inputs."""
    model = copy.deepcopy(model).eval()
    norms = [part for part in model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
        norm.train()
    with torch.no_grad():
        for batch in subject.calibration.split(125):
            model(batch)
    return model.eval()


def macs(model: nn.Module, inputs: Tensor) -> float:
    """By torch's own count, for both."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs[:2])
    return counter.get_total_flops() / 4  # two inputs, two operations each


@torch.no_grad()
def _accuracy(subject: Subject, model: nn.Module) -> float:
    found = torch.cat([model(part).argmax(1) for part in subject.inputs.split(250)])
    return float((found == subject.targets).double().mean())


def known_rows(known: Iterable[Mapping[str, Any]]) -> list[Row]:
    """The rows among those of the whole experiment."""
    names = {field.name for field in fields(Row)}
    return [
        Row(**{key: value for key, value in one["text and sound"].items() if key in names})
        for one in known
        if "text and sound" in one
    ]


def table(found: Sequence[Row]) -> Table:
    """One line a network and share."""
    shown = Table(title="Accuracy without training (%)")
    for column in ("network", "MACs", "original", "sliced", "repaired", "by l2", "won back",
                   "peer MACs", "peer", "+ batch norm", "its criterion"):  # fmt: skip
        shown.add_column(column, justify="right" if shown.columns else "left")
    for one in found:
        numbers = (one.macs, one.original, one.sliced, one.repaired, one.repaired_l2, one.won_back,
                   one.peer_macs, one.peer, one.peer_norms)  # fmt: skip
        shown.add_row(one.name, *(f"{100 * number:.1f}" for number in numbers), one.peer_criterion)
    return shown
