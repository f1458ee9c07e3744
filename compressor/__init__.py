"""A structured-pruning compiler for deployment: smaller, proven, measured ONNX models.

    from compressor import Budget, compress

    built = compress(model, example_inputs, budget=Budget(macs=0.5))
    built.save("build/model")

Importing this package does not import torch; the names above load it on first use.
"""

import os
import sys

if (
    sys.argv[:1] == ["-m"]  # `python -m compressor`, on the way to its __main__
    and not sys.flags.safe_path
    and {"compressor", "-mcompressor"} & set(sys.orig_argv)
):
    # Python put the current folder first, where a file of anybody's may be called like a library
    _first = sys.path.pop(0)
    if os.path.samefile(_first or ".", os.path.dirname(os.path.dirname(__file__))):
        sys.path.append(_first)  # a checkout: children find this package there

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
# ONNX Runtime reads it when it is imported, which nothing of ours does before this package is;
# children inherit it. What the user has set stays.

_HERE = Path(__file__).resolve().parent
if not (_HERE / "passes").is_dir():  # a checkout: passes/ is our sibling
    __path__.append(str(_HERE.parent))  # a wheel: passes/ is inside us

if TYPE_CHECKING:
    from compressor.config.training import Training as Training
    from compressor.passes.planning.choice import Budget as Budget
    from compressor.pipeline.compress import compress as compress
    from compressor.release.reload import load as load
    from compressor.result.built import Built as Built
    from compressor.storage import sealing as sealing
    from compressor.train.sparse import SparseGroups as SparseGroups

_HOMES = {
    "load": "compressor.release.reload",
    "Budget": "compressor.passes.planning.choice",
    "Built": "compressor.result.built",
    "SparseGroups": "compressor.train.sparse",
    "Training": "compressor.config.training",
    "compress": "compressor.pipeline.compress",
}
_MODULES = {"sealing": "compressor.storage.sealing"}
"""Modules with a name of their own here: `compressor.sealing` opens what a build has encrypted."""

__version__ = "0.1.0"
"""The only place of it: the package is built from here, and `compressor --version` prints it."""

__all__ = [
    *("Budget", "Built", "SparseGroups", "Training", "__version__", "compress", "load", "sealing"),
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return import_module(_MODULES[name])
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'compressor' has no attribute {name!r}")
