"""Inputs and outputs of networks: tensors and plain values in tuples, lists and dicts."""

from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree


def tensors(nested: Any) -> list[Tensor]:
    """The tensors among the leaves, in their order."""
    return [leaf for leaf in pytree.tree_leaves(nested) if isinstance(leaf, Tensor)]


def fresh(nested: Any) -> Any:
    """Copies of the tensors, for networks that write into their inputs."""
    return pytree.tree_map_only(Tensor, torch.clone, nested)
