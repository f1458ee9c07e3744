"""Removing channels equals silencing them, whichever channels go and whatever the batch size.

Two references: the interpreted original of `proof.py`, and the user's own module in eager mode with
zeros in its parameters. The second shares no code with the compiler, and holds wherever silence
stays silent.
"""

import pytest
import torch
from compressor import passes
from compressor.passes.state import in_float64

from tests.passes.cases import CASES
from tests.passes.support import (
    captured,
    coupled,
    doubled,
    of_batch,
    outputs,
    random_plan,
    shrunk,
    silent_original,
    uniform_plan,
)

DTYPE = "state.in_float64: zeros, ones and eye written in forward stay float32 in the float64 twin"
NAN = "proof: a silenced divisor gives 0 / 0, and NaN * 0 spoils the reference"
PROOF = {
    "attention_in_the_batch": DTYPE,
    "eye": DTYPE,
    "tril": DTYPE,
    "triu": DTYPE,
    "norm_of_places": NAN,
    "division_by_nothing": NAN,
    "weight_norm": NAN,
    "norm_by_hand_std_correction": "proof._statistics: correction=0 is taken for the default of 1",
    "branches": "shrink, state.tree: the graphs inside the graph are not carried over",
}
FOLDED = {
    "multihead_attention_with_other_keys": "proof._masked: a mask of heads folded into the batch "
    "has the example's batch size"
}
UNCOUPLED = {"nonzero", "masked_select", "index_by_mask"}
"""See `test_cases.KNOWN`."""

NAMES = [name for name, case in CASES.items() if case.free and not case.random]


def params(known):
    return [
        pytest.param(name, marks=pytest.mark.xfail(strict=True, reason=known[name]))
        if name in known
        else name
        for name in NAMES
        if name not in UNCOUPLED
    ]


def inputs(program, sizes):
    return [(of_batch(size, program.args), {}) for size in sizes]


@pytest.mark.parametrize("name", params(PROOF))
def test_removing_equals_silencing(name):
    plan = uniform_plan(coupled(name))
    assert len(plan.channels), "nothing to remove: the rule froze everything"
    proof = passes.prove(plan, shrunk(plan), inputs(captured(name)[1], [2]))
    assert proof.holds
    assert proof.dtype == "float64"


@pytest.mark.parametrize("name", params(PROOF | FOLDED))
def test_it_does_whichever_channels_go_and_at_any_batch_size(name):
    plan = random_plan(coupled(name), seed=1)
    assert len(plan.channels)
    assert passes.prove(plan, shrunk(plan), inputs(captured(name)[1], [1, 5])).holds


SPOILT = {name: why for name, why in PROOF.items() if why == NAN or name == "branches"}


@pytest.mark.parametrize("name", params(SPOILT))
def test_the_small_network_equals_the_users_own_module_with_zeros(name):
    coupling = coupled(name)
    if coupling.inexact:
        pytest.skip("the statistics of a norm change with its width")
    model, program = captured(name)
    plan = random_plan(coupling, seed=3)
    small, original = in_float64(shrunk(plan)), silent_original(model, plan)
    for size in (1, 2, 5):
        args = doubled(of_batch(size, program.args))
        for found, wanted in zip(outputs(small, args), outputs(original, args), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
