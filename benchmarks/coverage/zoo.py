"""Where the models come from: name of a zoo -> its cases. A library is imported when asked for."""

import importlib
from collections.abc import Callable

from models.zoo.cases import Case

HOMES = {
    "torchvision": "models.zoo.torchvision_zoo",
    "timm": "models.zoo.timm_zoo",
    "transformers": "models.zoo.transformers_zoo",
    "ops": "models.zoo.operators",
}
ZOOS = tuple(HOMES)
EXPORTED_EVERY = {"timm": 5}
"""Where not every model is exported: every how manieth is."""
PEERS_EVERY = {"torchvision": 5, "timm": 5, "transformers": 5}
"""Where not every model is given to peers: every how manieth is. Their walks may never end."""


def cases(zoo: str) -> tuple[Case, ...]:
    """The models of a zoo, in a fixed order. Raises ImportError where its library is missing."""
    home = importlib.import_module(HOMES[zoo])
    listed: Callable[[], tuple[Case, ...]] = home.cases
    return listed()
