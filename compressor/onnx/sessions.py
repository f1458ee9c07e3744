"""The one place where ONNX Runtime sessions are opened.

opened(model, "net")                                        on the CPU, on all cores
opened(model, "net", options(threads=1, steady=True))       for a measurement
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from compressor.base.messages import first_line
from compressor.onnx.model_files import safe
from compressor.passes.base.errors import CompressError, UsageError

CPU = "CPUExecutionProvider"
DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda"}
"""Where the inputs and outputs of a provider lie; on the CPU where it is not named here."""


class Refused(UsageError):
    """ONNX Runtime cannot load the model; the cause is the error that it raised."""


def options(threads: int = 0, *, steady: bool = False) -> Any:
    """Options of a session with all optimisations, which logs nothing.

    `threads` are those within an operator, 0 for one a core. `steady` is for what is measured: no
    thread spins while it waits, and denormal numbers are zeros.
    """
    import onnxruntime as ort

    found = ort.SessionOptions()
    found.intra_op_num_threads = threads
    found.log_severity_level = 4  # errors are raised; what is logged has names of strangers
    if steady:
        found.inter_op_num_threads = 1
        found.add_session_config_entry("session.intra_op.allow_spinning", "0")
        found.add_session_config_entry("session.inter_op.allow_spinning", "0")
        found.add_session_config_entry("session.set_denormal_as_zero", "1")
    return found


def opened(
    model: bytes | Path, name: str, wanted: Any = None, providers: Sequence[str] = (CPU,)
) -> Any:
    """A session of a model, with the options `wanted`, on the first of `providers`.

    Raises Refused for what ONNX Runtime cannot load, UsageError for a file that names others
    outside its folder, CompressError where the first provider does not run.
    """
    import onnxruntime as ort

    source = model if isinstance(model, bytes) else str(safe(model))
    try:
        session = ort.InferenceSession(
            source, wanted or options(), providers=list(providers), enable_fallback=0
        )
    except errors() as error:
        raise Refused(
            f"ONNX Runtime cannot load the model {name!r}",
            where=str(model) if isinstance(model, Path) else "",
            why=first_line(error),
            hint="give an ONNX file, with its external data beside it",
        ) from error
    except (RuntimeError, ValueError) as error:
        raise _not_started(providers[0], name, first_line(error)) from error
    if (used := session.get_providers()[0]) != providers[0]:
        raise _not_started(providers[0], name, f"ONNX Runtime fell back to {used}")
    return session


def _not_started(provider: str, name: str, why: str) -> CompressError:
    return CompressError(
        f"{provider} cannot run the model {name!r}",
        why=why,
        hint="its libraries or its device are missing; ONNX Runtime's own message names them",
    )


def placed(arrays: Mapping[str, Any], device: str) -> dict[str, Any]:
    """Inputs that lie on a device (see `DEVICES`)."""
    import onnxruntime as ort

    place = ort.OrtValue.ortvalue_from_numpy
    return {name: place(array, device, 0) for name, array in arrays.items()}


def bound(session: Any, values: Mapping[str, Any], device: str) -> Any:
    """What a session runs with where nothing is copied: these inputs, and outputs that stay."""
    binding = session.io_binding()
    for name, value in values.items():
        binding.bind_ortvalue_input(name, value)
    for output in session.get_outputs():
        binding.bind_output(output.name, device, 0)
    return binding


def errors(*more: type[Exception]) -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises over a model or its inputs, which shares no base; and `more`."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    named = (one for one in vars(state).values() if isinstance(one, type))
    return (*more, *(one for one in named if issubclass(one, Exception)))
