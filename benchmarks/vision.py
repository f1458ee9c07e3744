"""torchvision where its compiled operators do not load.

A torchvision wheel built for CUDA fails to import beside a CPU build of torch: "operator
torchvision::nms does not exist". Only the schemas are missing for the models, so they are declared;
where the import works nothing is done.
"""

from types import ModuleType

import torch

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_declared: list[torch.library.Library] = []


def torchvision() -> ModuleType:
    """The torchvision package. Raises ImportError where it is not installed."""
    try:
        import torchvision
    except RuntimeError as error:
        if "torchvision::nms does not exist" not in str(error) or _declared:
            raise
        library = torch.library.Library("torchvision", "DEF")
        _declared.append(library)  # its schemas live as long as it does
        for schema in _SCHEMAS:
            library.define(schema)
        return torchvision_again()
    return torchvision


def torchvision_again() -> ModuleType:
    """The import once more, without what the failed one left behind."""
    import sys

    for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
        del sys.modules[name]
    import torchvision

    return torchvision
