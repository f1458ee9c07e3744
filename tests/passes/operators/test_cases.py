"""The table of cases is complete, and the analysis finds in each what it should."""

import pytest
from compressor.passes.coupling.groups import Axis
from compressor.passes.ir.modes import trains
from compressor.passes.ir.program import operator_name
from compressor.passes.operators import RULES, row_of
from compressor.passes.operators.references import masked, silent

from tests.passes.cases import CASES, FAMILIES
from tests.passes.support import captured, coupled


def seen() -> set[object]:
    return {node.target for name in CASES for node in captured(name)[1].calls()}


def test_every_rule_has_a_case():
    assert set(RULES) <= seen()


WEIGHTS = {"weight", "w_ih", "params", "mat2"}
"""Arguments that are weights, or may be."""


@pytest.mark.parametrize("op", RULES, ids=str)
def test_a_row_with_weights_has_every_column_or_says_why_not(op):
    """A missing one is silent: a layer that is not repaired, or that takes no time."""
    row = RULES[op]
    if not WEIGHTS & {argument.name for argument in op._schema.arguments}:
        return
    columns = {"macs": row.macs, "kernel": row.kernel, "regression": row.regression}
    missing = [name for name, column in columns.items() if column is None]
    assert not missing or row.without, missing
    assert row.reference is not None, "say how silence reaches through it, were it `silent`"


@pytest.mark.parametrize("op", RULES, ids=str)
def test_a_row_says_no_more_of_memory_than_its_schema(op):
    viewed = any(one.alias_info is not None for one in op._schema.returns)
    assert viewed or not RULES[op].alias


def test_every_call_whose_statistics_run_over_fewer_channels_has_a_reference():
    calls = {str(node.target) for name in CASES for node in coupled(name).inexact
             if row_of(node).reference in (None, silent, masked)}  # fmt: skip
    assert calls == set()


def test_every_call_that_is_told_whether_it_trains_follows_train_mode():
    calls = [node for name in CASES for node in captured(name)[1].calls() if trains(node) is False]
    kinds = {operator_name(node) for node in calls}
    assert kinds >= {"batch_norm", "dropout", "alpha_dropout", "feature_dropout", "rrelu"}
    assert kinds >= {"lstm.input", "gru.input", "rnn_tanh.input", "rnn_relu.input"}


def test_no_case_hides_another_of_the_same_name():
    assert len(CASES) == sum(len(family) for family in FAMILIES)


@pytest.mark.parametrize("name", CASES)
def test_the_analysis_frees_what_can_go_and_says_why_the_rest_stays(name):
    case, coupling = CASES[name], coupled(name)
    free = {str(axis) for group in coupling.groups if group.size > 1 for axis in group.axes}
    reasons = [f"{frozen.axis}: {frozen.why}" for frozen in coupling.frozen]
    assert set(case.free) <= free, reasons
    assert case.free or not free
    assert not case.frozen or any(case.frozen in reason for reason in reasons), reasons


def test_every_parameter_axis_is_in_a_group_or_frozen_with_a_reason():
    """Nothing is lost between the two lists."""
    lost = []
    for name in CASES:
        coupling = coupled(name)
        listed = {axis for group in coupling.groups for axis in group.axes}
        listed |= {frozen.axis for frozen in coupling.frozen if frozen.why}
        for tensor, value in coupling.state.items():
            for array in value.arrays:
                axis = Axis(tensor, max(dim for dim, size in enumerate(array.shape) if size > 1))
                lost += [] if axis in listed else [f"{name}: {axis}"]
    assert lost == []


def test_captures_keep_the_batch_dynamic():
    """All but recurrent ones in which dimension 0 is time, and torch unrolls it."""
    static = {name for name in CASES if captured(name)[1].batch is None}
    assert static == {"gru_with_a_learned_state", "lstm_time_first", "rnn_relu"}
