"""A structured-pruning compiler for deployment: smaller, proven, measured ONNX models.

    from compressor import Budget, compress

    built = compress(model, example_inputs, budget=Budget(macs=0.5))
    built.save("build/model")

Importing this package does not import torch; the names above load it on first use.
"""

from pathlib import Path
from typing import TYPE_CHECKING

_HERE = Path(__file__).resolve().parent
if not (_HERE / "passes").is_dir():  # a checkout: passes/ is our sibling
    __path__.append(str(_HERE.parent))  # a wheel: passes/ is inside us

if TYPE_CHECKING:  # type checkers know it under its folder name
    import passes as passes
