"""The recipe of a build: every option once, in the order in which a reader wants them.

The field is the option's name in Python, its alias (`max-drop`) the one in files and on the command
line, its description the help text. Numbers here are checked here; what needs torch to be checked
(a budget, a criterion) is checked by what it is for.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic.json_schema import SkipJsonSchema

from compressor.base.messages import near
from compressor.config.training import Training
from compressor.passes.base.errors import UsageError

if TYPE_CHECKING:  # importing torch takes seconds: only the functions that need it do
    from compressor.passes import Budget, Options
    from compressor.passes.frontend.dynamic_axes import Dynamic


def _several(value: object) -> object:
    """One may stand for a list of one."""
    return (value,) if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_several)]
Count = Annotated[int, Field(ge=0)]
AtLeastOne = Annotated[int, Field(ge=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


"""Stands for a ratio until the original's time is known."""


def option_name(field: str) -> str:
    """`min_channels` is `min-channels` on the command line and in files."""
    return field.rstrip("_").replace("_", "-")


class Recipe(BaseModel):
    """What a build is asked to do. Made by `Recipe.of`, or from files by `compressor.config`."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        alias_generator=option_name,
        title="compressor.toml",
        use_attribute_docstrings=True,
    )

    model: str | None = None
    """module:callable or path/file.py:callable that returns the model, path/file.py with a function
    load_model, or timm:NAME, torchvision:NAME, hf:PATH"""
    code: str | None = None
    """file with any of load_model, example_inputs, calibration_data, evaluate, finetune"""
    weights: Path | None = None
    """state dict to load: .safetensors, or .pt read weights-only"""
    input_shape: str | None = None
    """example input, such as 1,3,224,224 or 1,16:int64;1,8"""
    inputs: str | None = None
    """callable that returns the example inputs"""
    dynamic: Texts = ()
    """axis whose size stays free, such as input_ids:1=sequence; repeatable"""
    output: Path | None = None
    """directory to write"""
    trust: SkipJsonSchema[bool] = False
    """run what is named, whatever it does: an exported program (.pt2) or a whole pickle that is
    loaded, code that the recipe of this folder names; only on the command line"""

    latency: str | None = None
    """keep this much of the time in ONNX Runtime: a ratio (0.5) or a time (8ms); with others,
    all are met"""
    macs: float | None = None
    """keep this many multiply-accumulates, as a ratio (0.5) or a whole number"""
    params: float | None = None
    """keep this many parameters, as a ratio or a whole number"""
    channels: float | None = None
    """keep this many channels, as a ratio or a whole number"""
    bytes_: float | None = None
    """keep this many bytes of weights, as a ratio or a whole number"""
    memory: float | None = None
    """keep this many bytes of activations alive at once, as a ratio or a whole number"""
    device: Path | None = None
    """table of `compressor profile` to plan latency by; default: this machine's own, measured when
    it is needed"""
    allow_slower: bool = False
    """write a model that does not measure faster than the original"""
    allow_worse: bool = False
    """write a model that is no nearer to the original than a constant output, on inputs that its
    repair was not fitted to"""
    race: bool = True
    """race the model and other forms of it against the original, deploy the fastest form, and
    refuse a slower model; without it, the report says so"""
    search: bool = False
    """the smallest model within max-drop; a budget is the least that is tried"""
    criterion: str = "auto"
    """how channels are scored"""
    criterion_loss: str | None = None
    """callable(outputs, target) that criteria by gradients take, on pairs of data; default: the
    distance from the original's own outputs"""
    steps: AtLeastOne | None = None
    """choose in so many, with repair and new measurement between; default: 1 and 4 are tried"""
    uniform: bool = False
    """the same share of every group"""
    round_to: AtLeastOne | None = None
    """kept widths are multiples of this; default: found"""
    min_channels: AtLeastOne = 1
    """always keep this many in a group"""
    ignore: Texts = ()
    """parameters never to touch, such as 'head.*'; repeatable"""
    sensitivity: Path | None = None
    """file of `compressor sensitivity -o x.json`: what the channels of a group are worth is
    multiplied by its weight"""

    data: str | None = None
    """callable that returns batches of inputs, for calibration"""
    evaluate: Texts = ()
    """callable(predict) that returns a number, or several by name; or accuracy, f1, recall, mse,
    agreement; repeatable"""
    eval_data: str | None = None
    """callable that returns (inputs, target) pairs; default: those of data"""
    max_drop: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = None
    """fail if the metric becomes worse by more than this"""
    metric: str | None = None
    """which metric decides, NAME, NAME:min or NAME:max (which way is better, where the name does
    not tell); default: first"""

    distill: Count = 0
    """epochs towards the original's outputs and features; no labels"""
    finetune: Count = 0
    """epochs with labels"""
    sparse_train: Count = 0
    """epochs of the original that make whole groups small; labels"""
    train_data: str | None = None
    """callable that returns a DataLoader, a Dataset or batches; default: data"""
    train_with: str | None = None
    """callable(module) that trains the small module, in place, instead of finetune"""
    loss: str | None = None
    """callable(outputs, target) for finetune; default: by the targets"""
    learning_rate: Positive = Training.learning_rate
    """of training, at its largest"""
    batch_size: AtLeastOne = Training.batch_size
    """of training, of all processes together"""
    accumulate: AtLeastOne = Training.accumulate
    """batches that make one step"""
    precision: str = Training.precision
    """of training: no, bf16 or fp16"""
    patience: AtLeastOne = Training.patience
    """epochs without a better score, at most"""
    feature_weight: Annotated[float, Field(ge=0, allow_inf_nan=False)] = Training.feature_weight
    """of distill: of the features beside the outputs"""
    penalty: str = Training.penalty
    """of sparse-train: group-lasso or bn-scale"""
    penalty_weight: float = Training.penalty_weight
    """beside the loss"""
    checkpoints: Path | None = None
    """folder from which training that was killed goes on"""

    sign: Path | None = None
    """private key (Ed25519, PEM) that signs the manifest"""
    encrypt_key: Path | None = None
    """file of 32 bytes: the release is encrypted with them (AES-256-GCM)"""

    seed: Count = 0
    """of everything random"""
    threads: AtLeastOne = 1
    """intra-op threads of the race"""
    bench_seconds: Annotated[float, Field(ge=0.1)] = 20.0
    """time for the race, at most"""

    @classmethod
    def of(cls, **options: Any) -> "Recipe":
        """From Python's names. Raises UsageError for a value or a name that cannot be used."""
        known = {name: option_name(name) for name in cls.model_fields}
        for name in options:
            if name not in known:
                raise UsageError(f"unknown option {name!r}", hint=near(name, known))
        return cls.checked({known[name]: value for name, value in options.items()}, str)

    @classmethod
    def checked(cls, values: Mapping[str, Any], place: Any) -> "Recipe":
        """From the names of files. `place` says where a value came from, for errors."""
        try:
            return cls.model_validate(dict(values))
        except ValidationError as error:
            raise _refusal(error, values, place) from error

    @property
    def title(self) -> str:
        """What the model is called in reports."""
        return (self.model or self.code or "").replace("/./", "/")

    def budget(self) -> "Budget | None":
        """How much may stay; None where a search has to find out."""
        from compressor.passes import Budget

        given = {
            "macs": self.macs,
            "params": self.params,
            "channels": self.channels,
            "bytes": self.bytes_,
            "memory": self.memory,
            "latency": self.latency,
        }
        if self.search and all(amount is None for amount in given.values()):
            return None
        return Budget(**given)

    def options(self) -> "Options":
        """How channels are chosen."""
        from compressor.passes import Options

        return Options(
            self.criterion, self.seed, self.uniform, self.round_to, self.min_channels, self.ignore
        )

    def axes(self) -> "Dynamic":
        """What stays free."""
        from compressor.loading.dynamic_axes import parse

        return parse(self.dynamic)

    def training(self, loss: Any = None) -> Training:
        """Which phases run, and how."""
        same = Training.__dataclass_fields__.keys() & Recipe.model_fields.keys() - {"loss"}
        options = {name: getattr(self, name) for name in same}
        return Training(**options, sparse=self.sparse_train, loss=loss)


ONLY_FLAGS = frozenset({"trust"})
"""Fields that no file and no environment sets."""


def _refusal(error: ValidationError, values: Mapping[str, Any], place: Any) -> UsageError:
    first = error.errors()[0]
    key = str(first["loc"][0]) if first["loc"] else ""
    if first["type"] == "extra_forbidden":
        known = [option_name(name) for name in Recipe.model_fields]
        return UsageError(f"unknown key {key!r}", where=place(key), hint=near(key, known))
    value = values.get(key)
    return UsageError(f"{key} is {value!r}", where=place(key), why=first["msg"])
