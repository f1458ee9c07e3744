"""What the planted faults have to get past: the tests' networks, and the reference models.

Experiments import no tests, so their tables are loaded by name; this runs in a checkout only.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import torch
from compressor.passes.base.errors import UsageError
from torch import nn

from compressor import passes
from compressor.loading import load_inputs, load_model
from compressor.loading.calls import Called, as_call, at_batch, randomised
from models._random import seeded
from models.catalog import CATALOG
from tests.tools.faults import own

_CASES = """
to_dtype
view view_to_rows view_as_another reshape_as unflatten unflatten_of_places squeeze permute transpose
mT movedims expand expand_of_a_parameter expand_as_along_channels linear_to_picture
flatten_of_two_labelled_axes window_partition heads_in_the_batch heads_in_the_batch_by_its_size
slice slice_from_the_end slice_of_places slice_with_steps slice_with_steps_in_rows narrow
select_of_a_channel select_of_a_row select_of_an_entry slice_of_the_first_entries
slice_of_inner_entries slice_of_rows slice_of_a_weight_with_steps slice_by_the_batch_size
split_of_sizes split_unequal chunk chunk_of_uneven_size unbind_of_rows unbind_of_heads
unbind_of_channels
flip flip_in_rows roll roll_in_rows roll_of_heads repeat tile repeat_interleave pixel_shuffle
pixel_unshuffle channel_shuffle channel_shuffle_by_view channel_shuffle_twice
channel_shuffle_of_tokens
cat cat_of_places cat_of_the_same cat_with_the_input stack_then_flatten stack_of_the_same
pad_of_channels pad_reflect pad_circular pad_crops_channels constant_pad_nd
zeros_written full full_multiplied zeros_like
scaled_dot_product_attention attention_with_a_scale attention_grouped attention_with_one_key_head
attention_grouped_by_repeating attention_by_hand attention_in_the_batch attention_by_einsum
attention_cosine attention_rotary attention_rolled attention_of_rolled_heads attention_relative
attention_fused attention_fused_heads_first attention_fused_chunk multihead_attention
transformer_decoder_layer
linear_to_a_number matmul mm outer bmm addmm baddbmm linear_attention einsum_linear einsum_of_three
einsum_of_rows einsum_sum einsum_summed_alone einsum_diagonal
conv2d_grouped conv2d_grouped_to_one_each conv2d_depthwise conv2d_depthwise_twofold conv2d_reflect
conv_transpose2d conv_transpose2d_grouped conv_transpose2d_depthwise conv_of_conv_grouped_twice
convolution_transposed
batch_norm batch_norm_of_the_batch instance_norm_with_statistics layer_norm layer_norm_of_pictures
layer_norm_of_places rms_norm group_norm group_norm_of_one_group norm_by_hand_rms norm_by_hand_var
normalize norm_of_places response_norm channel_attention mean_of_places mean_of_channels
mean_of_rows mean_of_all std_of_channels
softmax softmax_of_channels sum_of_rows sum_of_channels max max_of_all min topk_of_channels var_mean
max_pool2d avg_pool1d_of_channels local_response_norm
embedding embedding_tied index_of_two_axes index_of_axes_apart index_of_channels gather bucketize
index_select_of_channels arange_of_channels nonzero
lstm_of_two_layers_both_ways lstm_last_state gru_of_two_layers_both_ways gru rnn_tanh gru_cell
relu add add_ copy_into_a_slice where lerp_of_tensors addcmul prelu glu glu_of_channels sigmoid
meets_the_input
weight_norm shared_twice residual_block tied_transposed tied_transposed_by_memory squeeze_excite
gradients_off branches fft custom_op
"""
CASES = _CASES.split()
"""Of the tests' cases: all kinds of operators, those that freeze everything too."""
MODELS = ("multi", "window", "shuffle")
"""Of the catalogue: what the small ones do not have."""


@dataclass(frozen=True, eq=False)
class Network:
    """A model, its example call, and what the healthy passes make of it."""

    name: str
    model: nn.Module
    call: Called

    @cached_property
    def program(self) -> passes.Program:
        args, kwargs = self.call
        return passes.capture(self.model, args, kwargs)

    @cached_property
    def coupling(self) -> passes.Coupling:
        return passes.couple(self.program)

    @cached_property
    def published(self) -> dict[str, Any]:
        """What the healthy passes publish, by plan, as far as it was asked for."""
        return {}

    @cached_property
    def variants(self) -> list[Called]:
        """Calls that the proof does not see: other numbers, other batch sizes."""
        own = (self.program.args, dict(self.program.kwargs))
        other = randomised(own, 11)
        if self.program.batch is None:
            return [own, other]
        return [own, other, *(at_batch(randomised(own, size), self.program.batch, size)
                              for size in (1, 5))]  # fmt: skip


def names() -> list[str]:
    """Every network: `case:relu`, `network:encoder`, `model:multi`, `own:parts`."""
    return [
        *(f"case:{name}" for name in CASES),
        *(f"network:{name}" for name in _networks().NETWORKS),
        *(f"model:{name}" for name in MODELS),
        *(f"own:{name}" for name in own.NETWORKS),
    ]


@cache
def network(name: str) -> Network:
    """The network of a name in `names()`, captured once."""
    kind, _, short = name.partition(":")
    with torch.random.fork_rng(devices=[]):
        if kind == "case":
            case = _cases()[short]
            return Network(name, case.build(), (case.args, {}))
        if kind == "network":
            inputs = _networks().NETWORKS[short][1]
            return Network(name, _networks().network(short), ((inputs,), {}))
        if kind == "own":
            make, args = own.NETWORKS[short]
            return Network(name, seeded(make, 5), (args, {}))
        model, namespace = load_model(CATALOG[short])
        return Network(name, model.eval(), as_call(load_inputs(namespace, None, None)))


@cache
def _cases() -> Mapping[str, Any]:
    return importlib.import_module("tests.passes.cases").CASES


@cache
def _networks() -> Any:
    return importlib.import_module("tests.passes.networks")


def refused(error: BaseException) -> bool:
    """Whether the user is told that this model, or this budget, cannot be done.

    By the name, for a planted copy of the passes raises its own classes.
    """
    return UsageError.__name__ in {kind.__name__ for kind in type(error).__mro__}
