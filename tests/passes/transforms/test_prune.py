"""The small network is a module like the original: called, trained, exported and saved alike."""

import copy
import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from compressor.passes.coupling.kept_indices import makes
from compressor.passes.ir.dtypes import in_float64
from compressor.passes.ir.modes import Shrunk
from torch import Tensor, nn

from compressor import passes
from models._random import normal, seeded
from tests.passes.networks import NETWORKS, network
from tests.passes.support import NONE, by_hand, coupled, random_plan, shrunk


@dataclass
class Answer:
    """What a user's forward may return."""

    scores: Tensor
    features: list[Tensor]


torch.export.register_dataclass(Answer, serialized_type_name="tests.passes.Answer")


class Caller(nn.Module):
    """Takes keywords and gives what it is told to give."""

    def __init__(self, pack: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.pack = pack
        self.first, self.second, self.head = nn.Linear(5, 12), nn.Linear(12, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, scale: float = 1.0, *, shift: Tensor, mask: Tensor | None = None):
        hidden = torch.relu(self.first(x) * scale)
        hidden = self.second(hidden) + shift[:, None]
        if mask is not None:
            hidden = hidden * mask[:, None]
        return self.pack(self.head(F.gelu(hidden)), x + 1)


PACKS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "tensor": lambda y, x: y,
    "tuple": lambda y, x: (y, x, None),
    "dict": lambda y, x: {"scores": y, "deep": {"features": [x, y.sum(0)]}},
    "dataclass": lambda y, x: Answer(y, [x]),
}


class Trainable(nn.Module):
    """Batch norm, two kinds of dropout and an LSTM with dropout: all act otherwise in training."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv1d(3, 12, 3, padding=1), nn.BatchNorm1d(12)
        self.lstm = nn.LSTM(12, 6, num_layers=2, dropout=0.3, batch_first=True)
        self.drop, self.head = nn.Dropout(0.3), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.dropout1d(F.relu(self.norm(self.conv(x))), 0.3, self.training)
        return self.head(self.drop(self.lstm(x.transpose(1, 2))[0].mean(1)))


def small_of(model: nn.Module, args: tuple[Any, ...], **kwargs: Any) -> passes.Program:
    coupling = passes.couple(passes.capture(model, args, kwargs))
    return shrunk(random_plan(coupling, seed=1))


@cache
def trainable() -> passes.Program:
    return small_of(seeded(Trainable, 3), (normal(4, 3, 7),))


def trained() -> Shrunk:
    module = copy.deepcopy(trainable().module)
    assert isinstance(module, Shrunk)
    return module


# ------------------------------------------------------------------------------ refusals


def test_a_plan_of_another_program_is_refused():
    programs = [passes.capture(network("odd"), (NETWORKS["odd"][1],), {}) for _ in range(2)]
    plan = random_plan(passes.couple(programs[0]), seed=1)
    with pytest.raises(passes.ContractError, match="another program"):
        passes.apply(passes.Shrink(plan), programs[1])


def test_a_step_that_breaks_its_promise_is_found_out(monkeypatch):
    plan = random_plan(coupled("odd"), seed=1)
    cut = passes.coupling.sizes.Sizes.cut
    monkeypatch.setattr(passes.coupling.sizes.Sizes, "cut", lambda *args: cut(*args)[:-1])
    with pytest.raises(
        passes.ContractError, match=r"linear at second .* does not fit what it is given"
    ):
        passes.apply(passes.Shrink(plan), plan.coupling.program)


# ------------------------------------------------------------------------------ called


@pytest.mark.parametrize("pack", PACKS)
def test_the_small_network_is_called_like_the_original(pack):
    model = seeded(lambda: Caller(PACKS[pack]), 1)
    args, kwargs = (normal(2, 5), 0.5), {"shift": normal(2, seed=1), "mask": normal(2, seed=2)}
    small = small_of(model, args, **kwargs)
    x, shift, mask = normal(3, 5, seed=3), normal(3, seed=4), normal(3, seed=5)
    wanted = model(x, 0.5, shift=shift, mask=mask)
    for found in (
        small.module(x, 0.5, shift=shift, mask=mask),
        small.module(x, 0.5, mask=mask, shift=shift),
    ):
        assert type(found) is type(wanted)
        shapes = [torch.utils._pytree.tree_map_only(Tensor, lambda t: t.shape, one)
                  for one in (found, wanted)]  # fmt: skip
        assert shapes[0] == shapes[1]


def test_defaults_that_the_example_did_not_give_stay_defaults():
    model = seeded(lambda: Caller(PACKS["tensor"]), 1)
    small = small_of(model, (normal(2, 5),), shift=normal(2, seed=1))
    assert small.module(normal(4, 5), shift=normal(4)).shape == (4, 3)


# ------------------------------------------------------------------------------ trained


def test_train_and_eval_switch_dropout():
    module, x = trained(), normal(4, 3, 7)
    assert torch.equal(module(x), module(x))
    assert module.train() is module
    assert module.training
    assert not torch.equal(module(x), module(x))
    assert not module.eval().training
    assert torch.equal(module(x), module(x))


def test_the_small_network_comes_in_eval_mode():
    assert not any(module.training for module in trainable().module.modules())


def test_every_call_that_has_a_mode_is_switched():
    modes = {
        "batch_norm": "training",
        "dropout": "train",
        "feature_dropout": "train",
        "lstm": "train",
    }
    module = trained().train()
    found = {}
    for node in module.graph.nodes:
        name = getattr(getattr(node.target, "_schema", None), "name", "").removeprefix("aten::")
        if name in modes:
            names = [argument.name for argument in node.target._schema.arguments]
            found[name] = {**dict(zip(names, node.args, strict=False)), **node.kwargs}[modes[name]]
    assert found == dict.fromkeys(modes, True)


def test_running_statistics_move_in_training_only():
    module, x = trained(), normal(4, 3, 7)
    before = module.norm.running_mean.clone()
    module(x)
    assert torch.equal(module.norm.running_mean, before)
    module.train()(x)
    assert not torch.equal(module.norm.running_mean, before)
    assert module.norm.running_mean.shape == before.shape != (12,)


def test_a_step_of_gradient_descent_lowers_the_loss():
    module, x = trained(), normal(4, 3, 7)
    optimiser = torch.optim.SGD(module.parameters(), lr=0.05)

    def loss() -> Tensor:
        return module(x).square().mean()

    before = loss()
    before.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
    optimiser.step()
    assert loss() < before


def test_frozen_parameters_stay_frozen():
    model = seeded(Trainable, 3)
    model.conv.requires_grad_(False)
    module = small_of(model, (normal(4, 3, 7),)).module
    wants = {name: parameter.requires_grad for name, parameter in module.named_parameters()}
    assert not wants["conv.weight"]
    assert wants["head.weight"]
    assert wants.keys() == dict(model.named_parameters()).keys()


def test_parameters_and_buffers_keep_their_names_and_kinds():
    model, module = seeded(Trainable, 3), trained()
    assert [name for name, _ in module.named_parameters()] == [
        name for name, _ in model.named_parameters()
    ]
    assert dict(module.named_buffers()).keys() == {"norm.running_mean", "norm.running_var"}


# ------------------------------------------------------------------------------ exported


@pytest.mark.parametrize("name", ["encoder", "shuffled", "tagger"])
def test_the_small_network_can_be_exported_saved_and_loaded(name):
    x = NETWORKS[name][1]
    small = small_of(network(name), (x,)).module
    exported = torch.export.export(small, (x,), dynamic_shapes=({0: torch.export.Dim.AUTO},))
    file = io.BytesIO()
    torch.export.save(exported, file)
    file.seek(0)
    loaded = torch.export.load(file).module()
    for size in (2, 3):
        given = torch.cat([x, x])[:size]
        torch.testing.assert_close(loaded(given), small(given))


def test_the_small_network_can_be_captured_and_shrunk_again():
    small = small_of(network("residual"), (NETWORKS["residual"][1],))
    again = passes.couple(passes.capture(small.module, small.args, {}))
    plan = random_plan(again, seed=2)
    smaller = shrunk(plan)
    assert passes.prove(plan, smaller, [(small.args, {})]).holds
    sizes = [sum(t.numel() for t in p.tensors().values()) for p in (again.program, smaller)]
    assert sizes[1] < sizes[0]


# ------------------------------------------------------------------------------ left alone


@pytest.mark.parametrize("name", NETWORKS)
def test_the_original_is_left_as_it_was(name):
    coupling = coupled(name)
    program = coupling.program
    graph = str(program.module.graph)
    tensors = {key: tensor.clone() for key, tensor in program.tensors().items()}
    x = NETWORKS[name][1]
    before = program.module(x)
    for seed in (1, 2):
        small = shrunk(random_plan(coupling, seed))
        with torch.no_grad():
            for tensor in small.tensors().values():
                tensor.zero_()  # nothing is shared with the original
    assert str(program.module.graph) == graph
    torch.testing.assert_close(program.tensors(), tensors, rtol=0, atol=0)
    torch.testing.assert_close(program.module(x), before, rtol=0, atol=0)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_plan_of_nothing_changes_nothing_and_says_so(name):
    coupling = coupled(name)
    result = passes.apply(passes.Shrink(by_hand(coupling, NONE)), coupling.program)
    assert result.changes == ()
    torch.testing.assert_close(result.program.tensors(), coupling.program.tensors())
    x = NETWORKS[name][1]
    assert torch.equal(result.program.module(x), coupling.program.module(x))


def test_every_tensor_that_shrinks_is_a_line_of_the_log():
    coupling = coupled("residual")
    plan = random_plan(coupling, seed=1)
    result = passes.apply(passes.Shrink(plan), coupling.program)
    assert {line.split(":")[0] for line in result.changes} == plan.kept.keys()
    assert any(line.startswith("stem.weight: [16, 3, 3, 3] -> [") for line in result.changes)


def test_a_shuffle_that_became_a_selection_is_a_line_of_the_log():
    coupling = coupled("shuffled")
    result = passes.apply(passes.Shrink(random_plan(coupling, seed=1)), coupling.program)
    assert sum(line.endswith("channels selected by index") for line in result.changes) == 1


# ------------------------------------------------------------------------------ kept indices


def rebuilt(tensor: Tensor, kept: list[Any]) -> Tensor:
    """What a user does with `kept`: select along every dimension; rows may keep other entries."""
    for dim, indices in enumerate(kept):
        if indices is None:
            continue
        if isinstance(indices[0], list):
            rows = [row.index_select(dim - 1, torch.tensor(own))
                    for row, own in zip(tensor, indices, strict=True)]  # fmt: skip
            tensor = torch.stack(rows)
        else:
            tensor = tensor.index_select(dim, torch.tensor(indices))
    return tensor


@pytest.mark.parametrize("name", NETWORKS)
def test_kept_indices_rebuild_the_small_weights_from_the_users_state_dict(name):
    coupling = coupled(name)
    state = network(name).state_dict()
    for seed in range(4):
        plan = random_plan(coupling, seed)
        small = shrunk(plan).tensors()
        assert plan.kept.keys() <= state.keys()
        for key, kept in plan.kept.items():
            assert torch.equal(rebuilt(state[key], kept), small[key]), key
        for key in small.keys() - plan.kept.keys():
            assert key.startswith("gather_") or torch.equal(small[key], state[key]), key


def test_a_grouped_convolution_keeps_other_entries_in_every_group():
    coupling = coupled("grouped")
    (inner,) = [group for group in coupling.groups if group.name == "reduce.weight[0]"]
    plan = by_hand(coupling, torch.stack([cell[row % 4] for row, cell in enumerate(inner.cells)]))
    kept = plan.kept["grouped.weight"]
    assert kept[0] is None
    rows = [tuple(row) for row in kept[1]]
    assert sorted(rows[::6]) == [(0, 1, 2), (0, 1, 3), (0, 2, 3), (1, 2, 3)]
    assert rows == [row for row in rows[::6] for _ in range(6)]
    small, original = shrunk(plan).tensors()["grouped.weight"], network("grouped").grouped.weight
    assert torch.equal(rebuilt(original, kept), small)


def test_the_small_network_computes_in_double_precision_as_in_single():
    coupling = coupled("encoder")
    small = shrunk(random_plan(coupling, seed=1))
    x = NETWORKS["encoder"][1]
    with torch.no_grad():
        torch.testing.assert_close(in_float64(small)(x.double()).float(), small.module(x))


def test_kept_indices_are_followed_along_the_axes_that_rows_lie_on():
    whole = torch.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)
    rows = [[0, 2], [1, 4], [3, 4]]
    small = torch.stack([whole[:, i][..., own] for i, own in enumerate(rows)], 1)
    assert makes(whole, [None, None, None, rows], small)
    assert makes(whole, [[1], None, None, rows], small[1:])
    assert not makes(whole, [None, None, None, rows[::-1]], small)
    assert not makes(whole, [None, None, None, [[0], [1, 4], [3, 4]]], small)
    assert makes(whole, [[0], None, [1, 2], None], whole[:1, :, 1:3])
    assert not makes(whole, [None, None, [2, 1], None], whole[:, :, [2, 1]]), "not ascending"
    assert not makes(whole, [None, None, [1, 7], None], whole[:, :, [1, 3]]), "out of range"


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("stem.weight", lambda t: nn.Parameter(t.roll(1, 0)), "is not what its kept indices say"),
        ("stem.weight", lambda t: t.detach(), "is a buffer, but was a trained parameter"),
        ("stem.weight", lambda t: nn.Parameter(t.detach(), False), "is a frozen parameter"),
        ("stem_norm.running_var", lambda t: t[:1].expand(len(t)), "is not what its kept"),
        ("head.weight", lambda t: nn.Parameter(t[:, 1:]), r"has \(10, "),
    ],
)
def test_a_surgery_that_breaks_its_promise_is_refused(name, change, message):
    plan = random_plan(coupled("residual"), seed=1)
    small = shrunk(plan)
    path, _, last = name.rpartition(".")
    owner = small.module.get_submodule(path)
    tensor = getattr(owner, last)
    delattr(owner, last)
    changed = change(tensor)
    (owner.register_parameter if isinstance(changed, nn.Parameter) else owner.register_buffer)(
        last, changed
    )
    with pytest.raises(passes.ContractError, match=message):
        passes.Shrink(plan).ensures(plan.coupling.program, small)


def test_a_tied_tensor_that_is_no_longer_tied_is_refused():
    plan = random_plan(coupled("embedding_tied"), seed=1)
    small = shrunk(plan)
    passes.Shrink(plan).ensures(plan.coupling.program, small)
    (alias,) = small.aliases
    owner = small.module.get_submodule(alias.rpartition(".")[0])
    owner.weight = nn.Parameter(owner.weight.detach().clone())
    with pytest.raises(passes.ContractError, match="is no longer"):
        passes.Shrink(plan).ensures(plan.coupling.program, small)


@pytest.mark.parametrize(
    "op",
    [
        lambda x: x.mean((2, 3), keepdim=True).squeeze(),
        lambda x: x.squeeze(1).mean((2, 3)),
        lambda x: x.mean((2, 3), keepdim=True).squeeze((1, 2, 3)),
        lambda x: x.mean(2, keepdim=True).squeeze(1, 2).mean(2),
    ],
)
def test_a_single_channel_that_is_left_is_not_squeezed_away(op):
    class Squeezed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(torch.relu(op(self.first(x))))

    model, x = seeded(Squeezed, 1), normal(2, 3, 6, 6)
    coupling = passes.couple(passes.capture(model, (x,), {}))
    plan = by_hand(coupling, coupling.groups[0].cells[0][1:])
    small = shrunk(plan)
    passes.prove(plan, small, [((x,), {})])
    assert small.tensors()["first.weight"].shape[0] == 1
