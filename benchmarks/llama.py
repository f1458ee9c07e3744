"""LLaMA's shape from transformers, on the meta device: operators and sizes, but no weights.

    compressor inspect benchmarks/llama.py:llama_70b
    compressor inspect benchmarks/llama.py:llama_8x1024      8 layers, 1,024 wide

70 billion parameters: 80 layers, 8,192 wide, 28,672 inside, 64 heads that share 8 of keys.
"""

import re
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from compressor.base.optional import torchvision

VOCABULARY, ENTRIES, QUERIES_A_KEY = 32_000, 128, 8


def llama(layers: int, width: int) -> nn.Module:
    """A decoder of this depth and width, in LLaMA 70B's proportions, on the meta device."""
    torchvision()  # transformers imports it, and fails where it does not load
    from transformers import LlamaConfig, LlamaForCausalLM

    heads = width // ENTRIES
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=width,
        intermediate_size=width * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(heads // QUERIES_A_KEY, 1),
        use_cache=False,
    )
    with torch.device("meta"):
        return LlamaForCausalLM(config).eval()


def llama_70b() -> nn.Module:
    """LLaMA 70B."""
    return llama(80, 8_192)


def __getattr__(name: str) -> Callable[[], nn.Module]:
    """`llama_8x1024`, and so on."""
    if (shape := re.fullmatch(r"llama_(\d+)x(\d+)", name)) is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(llama, int(shape[1]), int(shape[2]))


def example_inputs() -> dict[str, Tensor]:
    """int64 [batch, tokens]"""
    return {"input_ids": torch.zeros(2, 16, dtype=torch.long)}
