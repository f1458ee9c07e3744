"""Libraries that not every user needs, imported when they are asked for.

torchmetrics()   metrics, on labelled data
accelerate()     training
torchvision()    for the two above and the benchmarks: see there
"""

import importlib
import sys
from types import ModuleType

from compressor.passes.base.errors import UsageError

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[object] = []


def torchmetrics() -> ModuleType:
    """The torchmetrics package. Raises UsageError where it is not installed."""
    loadable_torchvision()
    return needed("torchmetrics", "the ready-made metrics")


def accelerate() -> ModuleType:
    """The accelerate package. Raises UsageError where it is not installed."""
    return needed("accelerate", "training")


def needed(name: str, what: str, extra: str = "train") -> ModuleType:
    """A package of an extra. Raises UsageError where it is not installed."""
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise UsageError(
            f"{what} needs {name}, which is not installed",
            hint=f"pip install 'compressor[{extra}]'",
        ) from error


def loadable_torchvision() -> None:
    """torchmetrics, timm and transformers import torchvision where it is, and fail with it."""
    try:
        torchvision()
    except ImportError:
        return


def torchvision() -> ModuleType:
    """The torchvision package, also where its compiled operators do not load.

    A torchvision wheel built for CUDA fails to import beside a CPU build of torch: "operator
    torchvision::nms does not exist". Only the schemas are missing for the models, so they are
    declared; where the import works nothing is done. Raises ImportError where it is not installed.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error) or _declared:
            raise
    import torch

    library = torch.library.Library("torchvision", "DEF")
    _declared.append(library)  # its schemas live as long as it does
    for schema in _SCHEMAS:
        library.define(schema)
    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]  # what the failed import left behind
    return importlib.import_module("torchvision")
