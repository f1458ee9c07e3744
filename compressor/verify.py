"""`compressor verify`: is a release what it was when it was made? No torch here.

1. every file as the manifest says, none missing, none added
2. the signature, where a key is given
3. the parity inputs through ONNX Runtime: what torch gave when the release was made
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from compressor import manifest, sealing
from compressor.load.words import reason
from compressor.onnx_files import safe
from compressor.passes import alike
from compressor.passes.errors import UsageError, WrongError

PARITY = "parity"
INPUT, OUTPUT = "input.", "output."


@dataclass(frozen=True)
class Verified:
    """What was found."""

    content: str
    files: int
    signed: bool
    parity: dict[str, float]
    """The largest difference over the largest number, by the name of the file in parity/."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def verify(folder: Path, public: Path | None = None, key: bytes | None = None) -> Verified:
    """Check a release. Raises WrongError where anything is not as it was made.

    `public` is the key that it has to be signed by, `key` the one that it is encrypted with.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a release", why="there is no such folder")
    with sealing.opened(folder, key) as place:
        found = manifest.read(place)
        if public is not None:
            sealing.check_signature(place, public)
        manifest.check(place, found)
        if "model.onnx" not in found["files"]:
            raise WrongError(f"{folder} has no model.onnx")
        limit = found.get("tolerance")
        if not isinstance(limit, float):
            raise WrongError("the manifest names no tolerance")
        parity = _replayed(place, limit)
        return Verified(found["content"], len(found["files"]), public is not None, parity)


def _replayed(folder: Path, limit: float) -> dict[str, float]:
    """Run what was recorded. Raises WrongError where a difference exceeds `limit`."""
    import onnxruntime as ort
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    recorded = sorted((folder / PARITY).glob("*.safetensors"))
    if not recorded:
        raise WrongError("there is nothing in parity/ to run")
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    found = {}
    try:
        model = safe(folder / "model.onnx")
        session = ort.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        for path in recorded:
            arrays = load_file(path)
            found[path.name] = _difference(session, arrays)
    except (SafetensorError, ValueError, RuntimeError, KeyError) as error:
        raise WrongError(
            "the model does not run on its parity inputs", why=reason(error)
        ) from error
    except Exception as error:  # ONNX Runtime raises classes of its own
        if type(error).__module__.startswith("onnxruntime"):
            raise WrongError("ONNX Runtime refuses the model", why=reason(error)[:300]) from error
        raise
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
    worst = 0.0
    for name, given in zip(wanted, session.run(list(wanted), feed), strict=True):
        worst = max(worst, gap(wanted[name], np.asarray(given)))
    return worst


def gap(wanted: np.ndarray, found: np.ndarray) -> float:
    """The largest difference over the largest magnitude; infinite where shapes, NaN or infinities
    differ. Of whole numbers and flags, the share of entries that differ: rounding may flip few."""
    if alike.is_exact(wanted) and alike.is_exact(found) and wanted.shape == found.shape:
        return float(np.mean(wanted != found)) if wanted.size else 0.0
    return alike.gap(wanted, found).whole
