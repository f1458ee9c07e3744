"""Torch-Pruning at half of the channels, used as its examples use it; the best setting counts.

Layers that give the result are ignored. Attention layers are declared with their numbers of heads,
and told their new sizes afterwards: entries of every head go, or whole heads. The criterion is its
group L2 norm. Everything is computed in float64, where the model can be, so that what it kept can
be told from the values.
"""

import copy
import time
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from benchmarks.coverage.oracle import Unequal, check, like, run, tensors, told_apart
from compressor.loading.calls import as_call

SETTINGS = ("plain", "entries of heads", "whole heads")
ROOTS = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d


def attempts(model: nn.Module, inputs: Any) -> Iterator[dict[str, Any]]:
    """For every setting: share of parameters gone, difference, seconds, or why it failed."""
    model, given = precise(model.requires_grad_(), inputs)
    for setting in SETTINGS if _heads(model) else SETTINGS[:1]:
        start = time.process_time()
        try:
            pruned = prune(copy.deepcopy(model), given, setting).eval()
            run(pruned, given)
        except Exception as error:  # whatever the peer or the pruned network raises
            why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
            yield {"setting": setting, "raised": why, "seconds": time.process_time() - start}
            continue
        took = time.process_time() - start
        gone = 1 - _count(pruned) / max(_count(model), 1)
        found = {"setting": setting, "params_gone": gone, "seconds": took}
        try:
            yield found | {"proof": check(model, pruned, given)}
        except Unequal as error:
            yield found | {"unequal": str(error)}


def precise(model: nn.Module, inputs: Any) -> tuple[nn.Module, Any]:
    """Model and inputs in float64; in float32 where the model computes in that by itself."""
    double = distinct(copy.deepcopy(model).double())
    try:
        run(double, inputs)
    except Exception:  # whatever two precisions in one model raise
        run(model, inputs)  # it runs as it is: that is no failure of the peer
        return distinct(model), inputs
    return double, like(double, inputs)


@torch.no_grad()
def distinct(model: nn.Module) -> nn.Module:
    """The model with no value twice in any weight: with digits that float32 does not have."""
    generator = torch.Generator().manual_seed(0)
    for one in tensors(model).values():
        if one.dtype == torch.float64:
            one.add_(torch.rand(one.shape, generator=generator, dtype=one.dtype) * 1e-6)
        else:
            one.copy_(torch.from_numpy(told_apart(one.numpy())))
    return model


def prune(model: nn.Module, inputs: Any, setting: str) -> nn.Module:
    """The model itself, pruned in place to half of its channels."""
    import torch_pruning as tp

    heads = {} if setting == "plain" else _heads(model)
    args, kwargs = as_call(inputs)
    pruner = tp.pruner.BasePruner(
        model,
        kwargs or (args[0] if len(args) == 1 else args),
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=0.5,
        ignored_layers=_last(model, inputs),
        num_heads={layer: count for owner in heads.values() for layer, count in owner.items()},
        prune_num_heads=setting == "whole heads",
        prune_head_dims=setting != "whole heads",
        head_pruning_ratio=0.5 if setting == "whole heads" else 0.0,
    )
    pruner.step()
    for owner, layers in heads.items():
        layer = next(iter(layers))
        parts = 3 if len(layers) == 1 else 1
        _resize(owner, pruner.num_heads[layer], layer.out_features // parts)
    return model


def _resize(owner: nn.Module, count: int, width: int) -> None:
    """Tell an attention layer its sizes, under the names that the libraries use."""
    sizes = {
        "num_heads": count, "num_attention_heads": count, "head_dim": width // count,
        "attention_head_size": width // count, "all_head_size": width, "attn_dim": width,
    }  # fmt: skip
    for name, size in sizes.items():
        if isinstance(getattr(owner, name, None), int):
            setattr(owner, name, size)


def _heads(model: nn.Module) -> dict[nn.Module, dict[Any, int]]:
    """Attention layers with the projections whose channels are heads."""
    found: dict[nn.Module, dict[Any, int]] = {}
    for part in model.modules():
        count = getattr(part, "num_heads", None) or getattr(part, "num_attention_heads", None)
        if not isinstance(count, int) or count < 2:
            continue
        fused = getattr(part, "qkv", None)
        names = ("query", "key", "value"), ("q_proj", "k_proj", "v_proj"), ("q", "k", "v")
        apart = [[getattr(part, name, None) for name in triple] for triple in names]
        if isinstance(fused, nn.Linear):
            found[part] = {fused: count}
        for layers in apart:
            if all(isinstance(layer, nn.Linear) for layer in layers):
                found[part] = dict.fromkeys(layers, count)
    return found


def _last(model: nn.Module, inputs: Any) -> list[nn.Module]:
    """Layers whose result is a result of the network; else the one that ran last."""
    seen: list[tuple[nn.Module, Tensor]] = []

    def note(module: nn.Module, _given: Any, out: Any) -> None:
        if isinstance(out, Tensor):
            seen.append((module, out))

    hooks = [m.register_forward_hook(note) for m in model.modules() if isinstance(m, ROOTS)]
    args, kwargs = as_call(inputs)
    with torch.no_grad():
        results = pytree.tree_leaves(model(*args, **kwargs))
    for hook in hooks:
        hook.remove()
    last = [module for module, out in seen if any(out is one for one in results)]
    return list(dict.fromkeys(last)) or [seen[-1][0]]


def _count(model: nn.Module) -> int:
    return sum(one.numel() for one in model.parameters())
