"""LSTM, GRU and RNN: all layers, both directions.

    weight_ih [G*H, I]   I is tied to the layer's input, H to the hidden state, across the G gates
    weight_hh [G*H, H]   H on both axes
    output    [.., D*H]  the directions side by side; the next layer's input

Layers share one stacked initial state ``[layers * directions, B, H]``, so all keep the same H, but
each may keep other units.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..labels import Ledger, Value
from .table import Call, Factor, Rule, RuleTable

aten = torch.ops.aten

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _cells(call: Call) -> list[Sequence[Value]]:
    """Parameters of each layer and direction: weight_ih, weight_hh[, bias_ih, bias_hh]."""
    params, each = call["params"], 4 if call["has_biases"] else 2
    count = int(call["num_layers"]) * (2 if call["bidirectional"] else 1)
    if len(params) != count * each:
        return []
    return [params[i * each : (i + 1) * each] for i in range(count)]


def recurrent(ledger: Ledger, call: Call) -> list[Value]:
    x, cells = call["input"], _cells(call)
    states = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    if not cells:  # projections
        for value in call.values:
            ledger.pin(value, range(value.rank), "is an argument of a projected recurrent layer")
        return [Value(shape) for shape in call.shapes]
    x = ledger.pin(x, range(x.rank - 1), "is a step of a recurrent layer")
    gates = GATES[call.op._schema.name[6:]]
    directions = 2 if call["bidirectional"] else 1
    below = _vector(x, x.rank - 1)
    outputs: list[Tensor] = []
    hidden: list[Tensor] = []
    for _index, cell in enumerate(cells):
        _tie_input(ledger, cell[0], below)
        hidden.append(_tie_cell(ledger, cell, gates))
        outputs.append(hidden[-1])
        if len(outputs) == directions:
            below, outputs = torch.cat(outputs), []
    stacked = torch.stack(hidden)[:, None, :]
    state = Value((len(cells), 1, stacked.shape[-1]), (stacked,))
    for initial in states:
        state = ledger.merge([state, initial], initial.shape, "of the initial state")
    ledger.grids.append((stacked[:, 0], call.node))
    shape = call.shapes[0]
    output = Value(shape, (below.reshape([1] * (len(shape) - 1) + [-1]),))
    return [output, *(Value(shape, state.arrays) for shape in call.shapes[1:])]


def _vector(value: Value, axis: int) -> Tensor:
    array = value.on(axis)
    return torch.zeros(value.shape[axis]).long() if array is None else array.flatten()


def _tie_input(ledger: Ledger, weight: Value, below: Tensor) -> None:
    ledger.tie(_vector(weight, 1), below)


def _tie_cell(ledger: Ledger, cell: Sequence[Value], gates: int) -> Tensor:
    """Tie a hidden unit across its gates and both axes of weight_hh: labels [H]."""
    hidden = _vector(cell[1], 1)
    for value in cell:
        ledger.tie(_vector(value, 0).reshape(gates, -1), hidden)
    return hidden


def recurrent_macs(call: Call, results: list[Value]) -> list[list[Factor]]:
    x = call["input"]
    steps: list[Factor] = [(x, axis) for axis in range(x.rank - 1)]
    return [[*steps, (w, 0), (w, 1)] for cell in _cells(call) for w in cell[:2]]


RECURRENT = Rule(recurrent, macs=recurrent_macs)

RULES: RuleTable = {
    aten.lstm.input: RECURRENT,
    aten.gru.input: RECURRENT,
    aten.rnn_tanh.input: RECURRENT,
    aten.rnn_relu.input: RECURRENT,
}
