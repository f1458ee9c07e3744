"""Which channels stand or fall together, in the words of the user's own model."""

import pytest
import torch
from torch import Tensor, nn

from compressor import passes
from models._random import normal, seeded
from tests.passes.networks import NETWORKS
from tests.passes.support import by_hand, coupled, shrunk


def groups(coupling: passes.Coupling) -> list[str]:
    return [" ~ ".join(map(str, group.axes)) for group in coupling.groups]


# ------------------------------------------------------------------------------ texts


@pytest.mark.parametrize("name", NETWORKS)
def test_the_groups_of_a_network_read_as_written(name, golden):
    golden(passes.to_text(coupled(name)), name)


def test_no_golden_is_left_over(golden):
    from tests.passes.conftest import GOLDEN

    couplings = {file.stem for file in GOLDEN.iterdir() if not file.stem.endswith(".program")}
    assert couplings == set(NETWORKS)


def test_the_same_program_is_coupled_in_the_same_way_twice():
    program = coupled("encoder").program
    again = passes.couple(program)
    assert passes.to_text(again) == passes.to_text(coupled("encoder"))
    assert torch.equal(again.classes, coupled("encoder").classes)


# ------------------------------------------------------------------------------ refusals


def test_an_operator_without_a_rule_freezes_what_it_touches_and_nothing_else():
    coupling = coupled("odd")
    assert [group.name for group in coupling.groups] == ["first.weight[0]", "third.weight[0]"]
    (frozen,) = [one for one in coupling.frozen if str(one.axis) == "second.weight[0]"]
    assert frozen.size == 8
    assert frozen.why.startswith("no coupling rule for aten.fft_rfft.default at passes/networks.py")


def test_the_reason_for_an_unknown_operator_names_the_users_module_and_line():
    class Inner(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.linalg.inv(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.inner, self.last = nn.Linear(4, 4), Inner(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.inner(self.first(x)))

    coupling = passes.couple(passes.capture(seeded(Net, 1), (normal(2, 4, 4),), {}))
    line = Inner.forward.__code__.co_firstlineno + 1
    assert not coupling.groups
    assert {one.why for one in coupling.frozen if one.axis.tensor.startswith("first")} >= {
        f"no coupling rule for aten.linalg_inv.default at inner (coupling/test_groups.py:{line})"
    }


@pytest.mark.parametrize(
    ("name", "axis"),
    [
        ("grouped_query", "query.weight[0]"),
        ("grouped", "reduce.weight[0]"),
        ("grouped", "grouped.weight[0]"),
    ],
)
def test_rows_of_different_lengths_are_refused(name, axis):
    coupling = coupled(name)
    entries = next(group for group in coupling.groups if group.name == axis and not group.rows)
    uneven = by_hand(coupling, entries.cells[0][:1])
    with pytest.raises(passes.ContractError, match="rows of different lengths"):
        passes.apply(passes.Shrink(uneven), coupling.program)


# ------------------------------------------------------------------------------ what must hold


@pytest.mark.parametrize("pattern", ["blocks.0.*", "*.reduce.bias", "stem_norm.running_var"])
def test_ignored_parameters_are_frozen_with_all_that_is_coupled_to_them(pattern):
    from fnmatch import fnmatchcase

    coupling = passes.couple(coupled("residual").program, [pattern])
    touched = {axis.tensor for group in coupling.groups for axis in group.axes}
    assert not {name for name in touched if fnmatchcase(name, pattern)}
    assert 0 < len(coupling.groups) < len(coupled("residual").groups)
    assert any(frozen.why == "ignored by the user" for frozen in coupling.frozen)


def test_a_pattern_that_matches_nothing_changes_nothing():
    program = coupled("residual").program
    assert passes.to_text(passes.couple(program, ["nothing.*"])) == passes.to_text(
        coupled("residual")
    )


@pytest.mark.parametrize("name", NETWORKS)
def test_channels_are_counted_once(name):
    """Plain channels occupy places of their own; a whole row takes its entries along.

    One that rows share (an entry of a rotary embedding) occupies several.
    """
    coupling = coupled(name)
    classes, owner = coupling.members
    plain = [group for group in coupling.groups if not group.rows]
    single = torch.cat([cell for group in plain for cell in group.cells])
    assert len(single.unique()) == len(single)
    own = classes[torch.isin(owner, single)]
    assert len(own.unique()) == len(own)
    assert (len(own) == len(single)) == (name not in ("rotary", "linearised"))
    assert 0 not in classes


def test_a_head_takes_its_queries_keys_and_values_along():
    coupling = coupled("grouped_query")
    (rows,) = [group for group in coupling.groups if group.rows]
    kept = by_hand(coupling, rows.cells[0][:1]).kept
    assert kept == {
        "query.weight": [list(range(16, 32)), None],
        "key.weight": [list(range(8, 16)), None],
        "value.weight": [list(range(8, 16)), None],
        "project.weight": [None, list(range(16, 32))],
    }


def test_a_group_of_a_convolution_takes_its_inputs_and_outputs_along():
    coupling = coupled("grouped")
    (rows,) = [group for group in coupling.groups if group.rows]
    kept = by_hand(coupling, rows.cells[0][1:2]).kept
    inputs = [c for c in range(16) if c // 4 != 1]
    outputs = [c for c in range(24) if c // 6 != 1]
    assert kept["reduce.weight"] == [inputs, None, None, None]
    assert kept["grouped.weight"][0] == outputs
    assert kept["expand.weight"] == [None, outputs, None, None]


def test_a_shuffle_constrains_nothing():
    """Any single channel can go: the region becomes one selection by index."""
    coupling = coupled("shuffled")
    assert all(len(group.cells) == 1 for group in coupling.groups)
    assert len(coupling.gathers) == 1
    assert coupling.gathers[0].source.tolist() == [c // 2 + 8 * (c % 2) for c in range(16)]


def test_a_class_with_no_second_of_its_kind_never_goes():
    coupling = coupled("unbind_of_entries")
    assert all(group.size == 1 for group in coupling.groups)


def test_statistics_over_channels_are_marked_as_inexact():
    assert {node.name for node in coupled("encoder").inexact} == {"layer_norm", "layer_norm_1"}
    assert not coupled("residual").inexact


def test_heads_that_share_a_table_of_angles_go_whole_or_lose_an_entry_in_all_layers():
    coupling = coupled("rotary")
    rows = [group for group in coupling.groups if group.rows]
    assert [group.size for group in rows] == [2, 2], "two heads in each of two layers"
    (angles,) = [group for group in coupling.groups if "angles[0]" in map(str, group.axes)]
    assert (angles.size, len(angles.cells)) == (4, 1)

    head = by_hand(coupling, rows[0].cells[0][:1]).kept
    assert head == {
        "layers.0.weight": [[*range(8, 24), *range(32, 40)], None],
        "layers.0.bias": [[*range(8, 24), *range(32, 40)]],
        "outs.0.weight": [None, list(range(8, 16))],
    }
    entry = by_hand(coupling, angles.cells[0][1:2]).kept
    lost = {1, 5, 9, 13, 17, 21}
    assert entry["angles"] == [[0, 2, 3]]
    for layer in "01":
        assert entry[f"layers.{layer}.bias"] == [[n for n in range(40) if n not in lost]]


@pytest.mark.parametrize("name", ["rotary", "linearised"])
def test_heads_and_shared_entries_go_together(name):
    coupling = coupled(name)
    gone = torch.cat([group.cells[0][:1] for group in coupling.groups if len(group.cells) == 1])
    plan = by_hand(coupling, gone)
    assert any(group.rows for group in coupling.groups)
    assert passes.prove(plan, shrunk(plan), [((NETWORKS[name][1],), {})]).holds


def test_what_rows_share_cannot_stay_where_all_rows_are_gone():
    coupling = coupled("rotary")
    rows = [group for group in coupling.groups if group.rows]
    nothing_left = by_hand(coupling, torch.cat([group.cells[0] for group in rows]))
    with pytest.raises(passes.ContractError):
        passes.apply(passes.Shrink(nothing_left), coupling.program)
