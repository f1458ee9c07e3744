"""Removing channels equals silencing them, whichever channels go and whatever the batch size.

Two references: the interpreted original of `silence.py`, and the user's own module in eager mode
with zeros in its parameters. The second shares no code with the compiler, and holds wherever
silence stays silent.
"""

import pytest
import torch
from compressor.passes.ir.dtypes import in_float64

from compressor import passes
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

NAMES = [name for name, case in CASES.items() if case.free and not case.random]


def inputs(program, sizes):
    return [(of_batch(size, program.args), {}) for size in sizes]


@pytest.mark.parametrize("name", NAMES)
def test_removing_equals_silencing(name):
    plan = uniform_plan(coupled(name))
    assert len(plan.channels), "nothing to remove: the rule froze everything"
    proof = passes.prove(plan, shrunk(plan), inputs(captured(name)[1], [2]))
    assert proof.holds
    assert proof.dtype == "float64"


@pytest.mark.parametrize("name", NAMES)
def test_it_does_whichever_channels_go_and_at_any_batch_size(name):
    plan = random_plan(coupled(name), seed=1)
    assert len(plan.channels)
    assert passes.prove(plan, shrunk(plan), inputs(captured(name)[1], [1, 5])).holds


DIVIDED = {"norm_of_places", "division_by_nothing", "weight_norm"}
"""They divide by what is silenced: 0 / 0 in the user's own module."""

LOUD = {"cosine_similarity", "sum_of_all", "sum_of_channels", "sum_of_entries", "sum_of_products",
        "sum_of_truth_values"}  # fmt: skip
"""They add up channels in which silence is heard, as sigmoid(0) is: gone, it adds nothing."""


@pytest.mark.parametrize("name", [n for n in NAMES if n not in DIVIDED | LOUD])
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
