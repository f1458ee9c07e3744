"""A structured-pruning compiler for deployment: smaller, proven, measured ONNX models.

    from compressor import Budget, compress

    built = compress(model, example_inputs, budget=Budget(macs=0.5))
    built.save("build/model")

Importing this package does not import torch; the names above load it on first use.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

_HERE = Path(__file__).resolve().parent
if not (_HERE / "passes").is_dir():  # a checkout: passes/ is our sibling
    __path__.append(str(_HERE.parent))  # a wheel: passes/ is inside us

if TYPE_CHECKING:
    from compressor.api import compress as compress
    from compressor.built import Built as Built
    from compressor.passes.plan import Budget as Budget
    from compressor.train.settings import Training as Training
    from compressor.train.sparse import SparseGroups as SparseGroups

_HOMES = {
    "Budget": "compressor.passes.plan",
    "Built": "compressor.built",
    "SparseGroups": "compressor.train.sparse",
    "Training": "compressor.train.settings",
    "compress": "compressor.api",
}

__all__ = ["Budget", "Built", "SparseGroups", "Training", "compress"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'compressor' has no attribute {name!r}")
