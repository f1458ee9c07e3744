"""Options that would do nothing: each says what it needs, and none is ignored in silence.

    option            has a use with            otherwise
    penalty           sparse_train              error (2) that says so

What is by default is not asked for, so a recipe may state every key.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from compressor.passes.base.errors import UsageError

from .model import Recipe, option_name

Asked = Mapping[str, Any]
"""Options that were given and are not as by default, by field."""

READY = ("accuracy", "agreement", "f1", "mse", "recall")
"""Metrics that are measured on data (`compressor.metrics.evaluate.READY`)."""
TRAINING = ("distill", "finetune", "sparse_train")


@dataclass(frozen=True)
class Use:
    """An option and what it needs."""

    option: str
    has_use: Callable[[Asked], bool]
    why: str
    hint: str


def _with(*fields: str) -> Callable[[Asked], bool]:
    return lambda asked: any(field in asked for field in fields)


def _without(*fields: str) -> Callable[[Asked], bool]:
    return lambda asked: not any(field in asked for field in fields)


def _is_ready(asked: Asked) -> bool:
    wanted = asked.get("evaluate", ())
    names = wanted if isinstance(wanted, list | tuple) else (wanted,)
    return any(isinstance(name, str) and name in READY for name in names)


def _one_amount(asked: Asked) -> bool:
    return sum(kind in asked for kind in AMOUNTS) < 2


def _is_timed(asked: Asked) -> bool:
    return "race" not in asked or "latency" in asked


AMOUNTS = ("macs", "params", "channels", "bytes_", "memory", "latency")

_TRAIN = "give --distill, --finetune or --sparse-train"
ROWS = (
    *(
        Use(option, _with(*TRAINING), "nothing is trained by it", _TRAIN)
        for option in ("train_data", "learning_rate", "batch_size", "accumulate", "precision")
    ),
    Use("checkpoints", _with(*TRAINING), "nothing is trained that it could keep", _TRAIN),
    Use("patience", _with("distill", "finetune"), "it ends these two", "give one of them"),
    Use("loss", _with("finetune", "sparse_train"), "only training with labels has one",
        "give --finetune or --sparse-train"),
    Use("feature_weight", _with("distill"), "it is of --distill", "give --distill"),
    Use("penalty", _with("sparse_train"), "it is of --sparse-train", "give --sparse-train"),
    Use("penalty_weight", _with("sparse_train"), "it is of --sparse-train", "give --sparse-train"),
    Use("train_with", _without("finetune"), "it trains instead of --finetune",
        "leave out one of them"),
    Use("eval_data", _is_ready, f"only ready-made metrics look at it: {', '.join(READY)}",
        "give --evaluate accuracy, or leave it out: your own callable has its data"),
    Use("metric", _with("evaluate"), "nothing is evaluated", "give --evaluate"),
    Use("metric", _with("max_drop", "search", "distill", "finetune", "latency"),
        "it says what --max-drop, a search, a sweep and training go by", "give --max-drop"),
    Use("allow_slower", _without("race"), "--no-race refuses no model for its time",
        "leave out one of them"),
    Use("allow_worse", _with("data"), "only a repair is judged by inputs", "give --data"),
    *(
        Use(option, _is_timed, "it is of races, and --no-race leaves the last one out",
            "leave out one of them")
        for option in ("threads", "bench_seconds")
    ),
    Use("device", _with("latency"), "the table of a device is for --latency", "give --latency"),
    Use("sensitivity", _without("uniform"), "--uniform takes the same share of every group",
        "leave out one of them"),
    Use("search", _one_amount, "a search leads by one amount, and keeps no other",
        "give one of --macs, --params, --channels, --bytes"),
)  # fmt: skip


def refuse_idle(asked: Asked) -> None:
    """Raise UsageError for an option that would be ignored."""
    for row in ROWS:
        if row.option in asked and not row.has_use(asked):
            name = option_name(row.option)
            raise UsageError(f"--{name} would be ignored", why=row.why, hint=row.hint)


def asked_of(recipe: Recipe) -> dict[str, Any]:
    """What a recipe asks for beyond the defaults."""
    fields = Recipe.model_fields
    values = {name: getattr(recipe, name) for name in fields}
    return {name: value for name, value in values.items() if value != fields[name].default}
