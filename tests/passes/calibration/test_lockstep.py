"""Inputs side by side: which judge, how many run together, and that those that join are alike."""

import pytest
import torch
import torch.nn.functional as F
from compressor.passes.calibration.lockstep import (
    CHUNK,
    Chunk,
    Room,
    Strand,
    fitting,
    held_out,
    outputs,
    sampled,
)
from compressor.passes.ir.rebuild import clone
from compressor.passes.repair.layerwise import Duet
from compressor.passes.repair.repair import Repair
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from compressor import passes
from compressor.loading.calls import as_call, randomised
from models.zoo.operators import attention
from tests.passes.repair.test_repair import plan_without, seeded

# ---------------------------------------------------------------------------- which judge


def of_sizes(sizes):
    return [Chunk((), size, 0) for size in sizes]


@given(st.lists(st.integers(1, CHUNK), min_size=2, max_size=40), st.sampled_from([2, 6]))
def test_some_judge_and_most_do_not(sizes, share):
    flags = held_out(of_sizes(sizes), share)
    held = sum(size for size, out in zip(sizes, flags, strict=True) if out)
    assert True in flags
    assert False in flags
    assert held <= max(sum(sizes) / 2, min(sizes))


@pytest.mark.parametrize(("given_", "least"), [(8, 4), (60, 30), (64, 32), (192, 32), (1024, 171)])
def test_a_sixth_judges_and_thirty_two_of_few(given_, least):
    program = passes.capture(nn.Linear(6, 3), (seeded(2, 6),), {})
    chunks, _ = sampled([((seeded(given_, 6),), {})], program)
    flags = held_out(chunks)
    held = sum(chunk.samples for chunk, out in zip(chunks, flags, strict=True) if out)
    assert least - max(chunk.samples for chunk in chunks) < held <= given_ / 2
    if given_ > 64:
        assert held >= least


def test_the_first_ones_judge_too_so_that_few_that_run_already_can_be_judged():
    flags = held_out(of_sizes([32] * 30))
    assert flags[:6].count(True) >= 1
    assert flags[:6].count(False) >= 4


# ---------------------------------------------------------------------------- room


class Narrowing(nn.Module):
    """Large pictures at first, a few numbers at last."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 16, 3, padding=1)
        self.third, self.last = nn.Conv2d(16, 24, 1), nn.Linear(24, 5)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.first(x)), 4)
        x = F.max_pool2d(F.relu(self.second(x)), 4)
        return self.last(F.relu(self.third(x)).mean((2, 3)))


@pytest.fixture
def narrowing():
    """The plan of a network that loses some channels, the small network, and pictures."""
    pictures = seeded(192, 3, 32, 32)
    program = passes.capture(Narrowing().eval(), (pictures[:2],), {})
    plan = plan_without(passes.couple(program), "first.weight[0]", [1, 4])
    return plan, passes.apply(passes.Shrink(plan), program).program, pictures


def duet(narrowing, memory):
    plan, small, pictures = narrowing
    program = plan.coupling.program
    chunks, _ = sampled([((pictures,), {})], program, 16)
    return Duet(plan, clone(small), chunks, held_out(chunks), memory=memory)


def test_there_is_room_for_more_and_more_of_them(narrowing):
    plan, small, pictures = narrowing
    program = plan.coupling.program
    chunk = sampled([((pictures,), {})], program, 16)[0][0]
    room = Room.of([program.module, small.module], program, chunk, 8 << 20)
    places = range(min(len(own) for own in room.later))
    counts = [room.count(place, place) for place in places]
    assert counts == sorted(counts)
    assert counts[0] < 12 < room.total
    assert room.inputs == 3 * 32 * 32 * 4


def test_inputs_join_where_there_is_room_and_come_to_the_same_end(narrowing):
    one, other = duet(narrowing, 1 << 40), duet(narrowing, 5 << 20)
    assert one.pupil.count == len(one._flags)
    assert 2 <= other.pupil.count < one.pupil.count
    one.run()
    other.run()
    assert other.pupil.count == one.pupil.count
    for ours, theirs in zip(one.teacher.outputs, other.teacher.outputs, strict=True):
        assert torch.equal(ours[0], theirs[0])
    ended = outputs(other.small.module, _chunks(narrowing))
    for (ours,), (theirs,) in zip(other.pupil.outputs, ended, strict=True):
        torch.testing.assert_close(ours, theirs)  # with the weights that were there at last
    assert other.bytes < one.bytes / 2


def _chunks(narrowing):
    plan, _, pictures = narrowing
    return sampled([((pictures,), {})], plan.coupling.program, 16)[0]


def test_all_inputs_are_used_though_few_of_them_fit_at_the_first_layers(narrowing):
    plan, small, pictures = narrowing
    calls: list = [((part,), {}) for part in pictures.split(64)]
    result = passes.mend(Repair(plan, calls, memory=6 << 20), small)
    assert result.samples["given"] == result.samples["used"] == 192
    assert result.samples["held_out"] >= 32
    assert result.bytes < 8 << 20


def test_inputs_beyond_half_of_the_memory_are_left_out(narrowing):
    plan, small, pictures = narrowing
    calls: list = [((part,), {}) for part in pictures.split(16)]
    result = passes.mend(Repair(plan, calls, memory=2 << 20), small)
    assert result.samples["given"] == 192
    assert 32 <= result.samples["used"] <= (1 << 20) // (3 * 32 * 32 * 4)


def test_chunks_are_cut_where_few_fit(narrowing):
    plan, small, pictures = narrowing
    program = plan.coupling.program
    chunks, _ = sampled([((pictures,), {})], program)
    room = Room.of([program.module, small.module], program, chunks[0], 4 << 20)
    found = fitting(chunks, program, room)
    assert sum(chunk.samples for chunk in found) == 192
    assert max(chunk.samples for chunk in found) == room.piece < CHUNK


def test_a_chunk_that_joins_stands_where_the_others_stand(narrowing):
    plan, *_ = narrowing
    module = plan.coupling.program.module
    chunks = _chunks(narrowing)[:2]
    strand = Strand(module, chunks[:1])
    strand.advance(6)
    strand.join(chunks[1])
    both = Strand(module, chunks)
    both.advance(6)
    assert strand.held(1) == both.held(1)
    strand.advance()
    both.advance()
    assert all(torch.equal(a[0], b[0]) for a, b in zip(strand.outputs, both.outputs, strict=True))


@pytest.mark.parametrize("name", ["mha_batch_first", "shifted_windows"])
def test_a_small_network_with_calls_of_its_own_is_tried_and_repaired(name):
    """Their places are not those of the original's."""
    (case,) = [one for one in attention.CASES if one.name == name]
    model, inputs = case.make()
    program = passes.capture(model.eval(), *as_call(inputs))
    own = (program.args, dict(program.kwargs))
    calls = [own, *(randomised(own, seed) for seed in range(1, 6))]
    plan = passes.contest(
        passes.couple(program), passes.Budget(channels=0.5), passes.Options(), calls
    )
    small = passes.apply(passes.Shrink(plan), program).program
    found = passes.mend(Repair(plan, calls), small)
    assert found.samples["used"] == found.samples["given"]
