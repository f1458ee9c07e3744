"""From models to runners: sessions that differ in nothing but the model.

models -> sessions (same options, same provider) -> one set of inputs -> runners
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.base.messages import first_line
from compressor.bench.inputs import asked_inputs, checked_feeds, common_inputs, random_feeds
from compressor.onnx.model_files import external_files, safe
from compressor.onnx.sessions import CPU, DEVICES, bound, errors, opened, options, placed
from compressor.passes.base.errors import CompressError, UsageError
from compressor.process.time_limit import Limit

REMOTE = frozenset({"AzureExecutionProvider"})  # calls a service; runs nothing here

MOST_THREADS = 4096
"""More make no sense on any machine, and too many no number that ONNX Runtime takes."""

Model = bytes | Path


@dataclass(frozen=True)
class Runner:
    """A loaded model that is ready to run: its inputs lie on the device, its outputs stay there."""

    name: str
    session: Any
    binding: Any
    limit: Limit

    def run(self) -> None:
        """Run once, and return when the result is there. Raises UsageError where it fails.

        Sizes within a model may depend on its inputs and on chance: it may fail at any run.
        """
        try:
            self.session.run_with_iobinding(self.binding)
            self.binding.synchronize_outputs()
        except errors(RuntimeError) as error:
            raise self._refused(error) from error

    def try_out(self) -> None:
        """The same; UsageError too where it does not end.

        A run that can be told to stop takes 50 us longer, so none that is timed can.
        """
        try:
            with self.limit.on(self.name):
                self.session.run_with_iobinding(self.binding, self.limit.options)
                self.binding.synchronize_outputs()
        except errors(RuntimeError) as error:
            raise self._refused(error) from error

    def _refused(self, error: Exception) -> UsageError:
        return UsageError(
            f"the model {self.name!r} does not run on these inputs",
            why=first_line(error),
            hint="pass inputs that the model accepts",
        )


def offered_providers() -> tuple[str, ...]:
    """The execution providers that run a model here, best first.

    Each one that ONNX Runtime names is tried on a model of one operator: a provider whose
    libraries or device are missing is named all the same, and then runs on the CPU in silence.
    """
    import onnxruntime as ort

    named = [name for name in ort.get_available_providers() if name not in REMOTE]
    return tuple(name for name in named if name == CPU or _works(name))


@dataclass(frozen=True)
class Field:
    """Everyone in the race, checked: what to load, how, and the inputs that all of them get.

    `sources` holds each model's name and source; the last one is the first one again.
    """

    sources: tuple[tuple[str, Model], ...]
    threads: int
    providers: tuple[str, ...]
    feeds: Mapping[str, np.ndarray]

    def load(self, order: Sequence[int], limit: Limit) -> list[Runner]:
        """A fresh runner for each source, in their order, loaded in the given one."""
        device = DEVICES.get(self.providers[0], "cpu")
        values = placed(self.feeds, device)
        loaded = {}
        for position in order:
            name, model = self.sources[position]
            session = _session(model, name, self.threads, self.providers)
            loaded[position] = Runner(name, session, bound(session, values, device), limit)
        return [loaded[position] for position in sorted(loaded)]


def line_up(
    models: Mapping[str, Model],
    *,
    inputs: Mapping[str, np.ndarray] | None,
    batch: int,
    threads: int,
    providers: tuple[str, ...],
    seed: int,
) -> Field:
    """Check the models and the provider, load each model once, and settle the inputs.

    Raises UsageError for a model that cannot be loaded, models or inputs that do not fit together
    and an unknown provider, and CompressError when ONNX Runtime falls back to another provider.
    """
    _refuse_unknown(providers)
    asked = {
        name: asked_inputs(_session(model, name, threads, providers))
        for name, model in models.items()
    }
    wanted = common_inputs(asked)
    if inputs is None:
        feeds = random_feeds(wanted, batch, np.random.default_rng(seed))
    else:
        feeds = checked_feeds(wanted, inputs)
    name, baseline = next(iter(models.items()))
    sources = (*models.items(), (f"{name} again", baseline))
    return Field(sources, threads, providers, feeds)


def _refuse_unknown(providers: Sequence[str]) -> None:
    import onnxruntime as ort

    unknown = [name for name in providers if name not in ort.get_available_providers()]
    if unknown or not providers:
        raise UsageError(
            f"unknown execution provider {unknown[0]!r}" if unknown else "no execution provider",
            why=f"this ONNX Runtime offers: {', '.join(offered_providers())}",
            hint="install the ONNX Runtime package that has it, or choose one of those",
        )


def _session(model: Model, name: str, threads: int, providers: Sequence[str]) -> Any:
    """A session with the options that all share; refuses what ONNX Runtime cannot load."""
    if isinstance(model, Path) and not model.is_file():
        raise UsageError(
            f"the model {name!r} is {'a folder' if model.is_dir() else 'not there'}",
            where=str(model),
            hint="give the path of an .onnx file",
        )
    return opened(model, name, options(threads, steady=True), providers)


def _works(provider: str) -> bool:
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "probe",
        [value("x", TensorProto.FLOAT, [1])],
        [value("y", TensorProto.FLOAT, [1])],
    )
    opset = [helper.make_opsetid("", 17)]
    probe = helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString()
    try:
        opened(probe, "probe", options(1), [provider])
    except CompressError:
        return False
    return True


def file_bytes(model: Model) -> int:
    """The size of the model, with every file of external data that a tensor of it names."""
    if isinstance(model, bytes):
        return len(model)
    return model.stat().st_size + sum(one.stat().st_size for one in external_files(safe(model)))
