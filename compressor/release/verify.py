"""`compressor verify`: is a release what it was when it was made? No torch here.

1. every file as the manifest says, none missing, none added
2. the signature, where a key is given; the content, where one is expected
3. the log of passes can be read, and says what went
4. the parity inputs through ONNX Runtime: what torch gave when the release was made

Each file is read once: ONNX Runtime is given the bytes that were checked, not their names.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor.base.messages import reason
from compressor.onnx import model_files
from compressor.onnx.sessions import Refused, errors, opened, options
from compressor.passes.base.errors import UsageError, WrongError
from compressor.passes.ir import compare
from compressor.release import replay
from compressor.release.reader import Arrived

PARITY = "parity"
INPUT, OUTPUT = "input.", "output."
MODEL = "model.onnx"
EXACT, STEPS = 1e-4, 8
"""The tolerance of a build: the first, or so many steps of the coarsest number if that is more."""
_COARSE = {10: 2.0**-10, 16: 2.0**-7}
"""A step of float16 and of bfloat16 beside 1, by onnx's number of the type."""


@dataclass(frozen=True)
class Verified:
    """What was found."""

    content: str
    files: int
    signed: bool
    passes: str
    """What ran, as a spec; nothing of a release that has no log."""
    parity: dict[str, float]
    """The largest difference over the largest number, by the name of the file in parity/."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def verify(
    folder: Path, public: Path | None = None, key: bytes | None = None, content: str | None = None
) -> Verified:
    """Check a release. Raises WrongError where anything is not as it was made.

    `public` is the key that it has to be signed by, `key` the one that it is encrypted with,
    `content` the digest of the release that it has to be: a signature fits every older one.
    """
    arrived = Arrived(folder, key)
    arrived.must_be(public, content)
    held = arrived.all(lambda name: name.startswith((MODEL, f"{PARITY}/", replay.NAME)))
    if MODEL not in held:
        raise WrongError(f"{folder} has no {MODEL}")
    try:
        model = model_files.held(held, MODEL)
    except UsageError as error:
        raise WrongError("the model is not one that a build writes", why=str(error)) from error
    limit = _tolerance(arrived.manifest.get("tolerance"), model)
    found = arrived.manifest
    ran = _ran(held.get(replay.NAME), folder / replay.NAME)
    parity = _replayed(model, held, limit)
    return Verified(found["content"], len(found["files"]), public is not None, ran, parity)


def _ran(data: bytes | None, path: Path) -> str:
    """The spec of a log. Raises WrongError where no build writes it."""
    try:
        return "" if data is None else str(replay.read(data, path))
    except UsageError as error:
        raise WrongError(error.what, why=error.why or error.where) from error


def _tolerance(stated: Any, model: model_files.Held) -> float:
    """How far ONNX Runtime may be off. A manifest may not allow more than a build would have.

    Raises WrongError where it does, or allows nothing.
    """
    most = max([EXACT, *(STEPS * _COARSE[kind] for kind in model.kinds & _COARSE.keys())])
    if not isinstance(stated, float):
        raise WrongError("the manifest names no tolerance")
    if not 0 < stated <= most:
        raise WrongError(
            f"the manifest states a tolerance of {stated:g}",
            why=f"no build allows more than {most:g} for the numbers in this model",
        )
    return stated


def _replayed(model: model_files.Held, held: Mapping[str, bytes], limit: float) -> dict[str, float]:
    """Run what was recorded. Raises WrongError where a difference exceeds `limit`."""
    from safetensors import SafetensorError
    from safetensors.numpy import load

    recorded = {
        name.removeprefix(f"{PARITY}/"): data
        for name, data in sorted(held.items())
        if name.startswith(f"{PARITY}/") and name.endswith(".safetensors")
    }
    if not recorded:
        raise WrongError("there is nothing in parity/ to run")
    wanted = options(threads=1)
    model.lend(wanted)
    found = {}
    try:
        session = opened(model.data, MODEL, wanted)
        for name, data in recorded.items():
            found[name] = _difference(session, load(data))
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise WrongError(
            "the model does not run on its parity inputs", why=reason(error)
        ) from error
    except errors(Refused) as error:
        why = reason(error.__cause__ or error)
        raise WrongError("ONNX Runtime refuses the model", why=why) from error
    for name, gap in found.items():
        if not gap <= limit:
            raise WrongError(
                f"ONNX Runtime gives something else than when the release was made: {name}",
                why=f"a difference of {gap:.2g} of the largest number (limit {limit:g})",
                hint="compare the version of onnxruntime with that in manifest.json",
            )
    return found


def _difference(session: Any, arrays: dict[str, np.ndarray]) -> float:
    feed = {n.removeprefix(INPUT): a for n, a in arrays.items() if n.startswith(INPUT)}
    wanted = {n.removeprefix(OUTPUT): a for n, a in arrays.items() if n.startswith(OUTPUT)}
    if wanted.keys() != {one.name for one in session.get_outputs()}:
        raise ValueError("what is recorded is not all that the model gives")
    found = zip(wanted, session.run(list(wanted), feed), strict=True)
    return max((gap(wanted[name], np.asarray(given)) for name, given in found), default=0.0)


def gap(wanted: np.ndarray, found: np.ndarray) -> float:
    """The largest difference over the largest magnitude; infinite where shapes, NaN or infinities
    differ. Of whole numbers and flags, the share of entries that differ: rounding may flip few."""
    if compare.is_exact(wanted) and compare.is_exact(found) and wanted.shape == found.shape:
        return float(np.mean(wanted != found)) if wanted.size else 0.0
    return compare.gap(wanted, found).whole
