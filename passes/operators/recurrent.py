"""LSTM, GRU and RNN: all layers, both directions; and their cells, one step at a time.

    weight_ih [G*H, I]   I is tied to the layer's input, H to the hidden state, across the G gates
    weight_hh [G*H, H]   H on both axes
    output    [.., D*H]  the directions side by side; the next layer's input
    weight_hr [P, H]     where the state is projected P takes the place of H outside of the cell

Layers share one stacked initial state ``[layers * directions, B, H]``, so all keep the same H, but
each may keep other units.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..ir.call import Call, Factor, Result
from ..ir.labels import Ledger, Value, varying
from . import regressions
from .references import silent
from .table import Rule, RuleTable

aten = torch.ops.aten

GATES = {"lstm": 4, "gru": 3, "rnn_tanh": 1, "rnn_relu": 1}


def _cells(call: Call) -> list[Sequence[Value]]:
    """Parameters of each layer and direction: weight_ih, weight_hh[, biases][, weight_hr]."""
    params = call["params"]
    count = int(call["num_layers"]) * (2 if call["bidirectional"] else 1)
    each = len(params) // count
    return [params[i * each : (i + 1) * each] for i in range(count)]


def recurrent(ledger: Ledger, call: Call) -> list[Value]:
    x, cells = call["input"], _cells(call)
    states = call["hx"] if isinstance(call["hx"], list) else [call["hx"]]
    x = ledger.pin(x, range(x.rank - 1), "is a step of a recurrent layer")
    gates = GATES[call.op._schema.name[6:]]
    directions = 2 if call["bidirectional"] else 1
    below = _vector(x, x.rank - 1)
    outputs: list[Tensor] = []
    inner: list[Tensor] = []
    outer: list[Tensor] = []
    for cell in cells:
        _tie_input(ledger, cell[0], below)
        inner.append(_tie_cell(ledger, cell, gates))
        outer.append(_vector(cell[1], 1))
        outputs.append(outer[-1])
        if len(outputs) == directions:
            below, outputs = torch.cat(outputs), []
    found = []
    for initial, labels in zip(states, (outer, inner), strict=False):
        initial = ledger.pin(initial, range(1, initial.rank - 1), "is a step of a recurrent layer")
        stacked = torch.stack(labels)[:, None, :]
        ledger.grids.append((stacked[:, 0], call.node))
        state = _labelled((len(cells), 1, stacked.shape[-1]), stacked)
        found.append(ledger.merge([state, initial], initial.shape, "of the initial state"))
    shape = call.shapes[0]
    output = _labelled(shape, below.reshape([1] * (len(shape) - 1) + [-1]))
    return [output, *(Value(s, v.arrays) for s, v in zip(call.shapes[1:], found, strict=True))]


def cell(ledger: Ledger, call: Call) -> Result:
    """lstm_cell, gru_cell, rnn_tanh_cell: one step; the old state and the new one are alike."""
    x, hx = call["input"], call["hx"]
    x = ledger.pin(x, range(x.rank - 1), "is a step of a recurrent layer")
    parameters = [call[name] for name in ("w_ih", "w_hh", "b_ih", "b_hh")]
    parameters = [value for value in parameters if isinstance(value, Value)]
    _tie_input(ledger, parameters[0], _vector(x, x.rank - 1))
    hidden = _tie_cell(ledger, parameters, GATES[call.op._schema.name[6:].removesuffix("_cell")])
    state = _labelled((hidden.numel(),), hidden)
    for initial in hx if isinstance(hx, list) else [hx]:
        initial = ledger.pin(initial, range(initial.rank - 1), "is a step of a recurrent layer")
        state = ledger.merge([state, initial], initial.shape, "of the initial state")
    results = [Value(shape, state.arrays) for shape in call.shapes]
    return results if isinstance(call.node.meta["val"], list | tuple) else results[0]


def _vector(value: Value, axis: int) -> Tensor:
    array = value.on(axis)
    return torch.zeros(value.shape[axis]).long() if array is None else array.flatten()


def _labelled(shape: Sequence[int], array: Tensor) -> Value:
    """A result with its labels; a layer of one unit has nothing that could go, and none."""
    return Value(tuple(shape), (array,) if varying(array) else ())


def _tie_input(ledger: Ledger, weight: Value, below: Tensor) -> None:
    ledger.tie(_vector(weight, 1), below)


def _tie_cell(ledger: Ledger, cell: Sequence[Value], gates: int) -> Tensor:
    """Tie a hidden unit across its gates and both axes of weight_hh: labels [H].

    A projected cell keeps its inside: torch tells it from others by a state that is narrower.
    """
    weights, projection = (cell[:-1], cell[-1]) if len(cell) in (3, 5) else (cell, None)
    hidden = _vector(weights[1], 1) if projection is None else _vector(projection, 1)
    for value in weights:
        own = _vector(value, 0)
        if hidden.numel() > 1:
            ledger.tie(own.reshape(gates, -1), hidden)
        else:
            ledger.freeze(own, "is of the only unit of a recurrent layer")
    if projection is not None:
        ledger.tie(_vector(projection, 0), _vector(weights[1], 1))
        ledger.freeze(hidden, "has to stay wider than the projection of a recurrent layer")
    return hidden


def recurrent_macs(call: Call, results: list[Value]) -> list[list[Factor]]:
    x = call["input"]
    steps: list[Factor] = [(x, axis) for axis in range(x.rank - 1)]
    weights = [w for cell in _cells(call) for w in cell if w.rank == 2]
    return [[*steps, (w, 0), (w, 1)] for w in weights]


def cell_macs(call: Call, results: list[Value]) -> list[list[Factor]]:
    x = call["input"]
    steps: list[Factor] = [(x, axis) for axis in range(x.rank - 1)]
    return [[*steps, (w, 0), (w, 1)] for w in (call["w_ih"], call["w_hh"])]


_KERNEL = "its time is not measured: it counts as one pass over its largest value"
RECURRENT = Rule(recurrent, macs=recurrent_macs, regression=regressions.recurrent,
                 reference=silent, without=_KERNEL)  # fmt: skip
CELL = Rule(cell, macs=cell_macs, reference=silent,
            without=f"{_KERNEL}; a single step is not refitted")  # fmt: skip

RULES: RuleTable = {
    aten.lstm.input: RECURRENT,
    aten.gru.input: RECURRENT,
    aten.rnn_tanh.input: RECURRENT,
    aten.rnn_relu.input: RECURRENT,
    aten.lstm_cell.default: CELL,
    aten.gru_cell.default: CELL,
    aten.rnn_tanh_cell.default: CELL,
    aten.rnn_relu_cell.default: CELL,
}
