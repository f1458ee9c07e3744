"""A program is closed: whatever a pass makes knows its sizes, and can be coupled and cut again."""

from collections import Counter
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from compressor.passes.ir.pass_base import PassResult
from compressor.passes.ir.rebuild import clone, with_tensors
from compressor.passes.ir.shapes import OPEN, infer
from torch import Tensor, nn

from benchmarks.cases import CATALOG, SUITES, VISION
from compressor import passes
from compressor.loading.calls import as_call
from tests.passes.networks import NETWORKS
from tests.passes.support import coupled, random_plan, shrunk, uniform_plan

aten = torch.ops.aten


def groups(coupling: passes.Coupling) -> Counter:
    """Every group by the axes that it lies on."""
    return Counter((tuple(map(str, group.axes)), group.rows) for group in coupling.groups)


def halved_twice(coupling: passes.Coupling) -> None:
    """Half of the channels go; the same groups are there, only narrower, and are halved again."""
    small = shrunk(uniform_plan(coupling))
    again = passes.couple(small)
    assert groups(again) == groups(coupling)
    widths = (sum(group.size for group in one.groups) for one in (again, coupling))
    assert next(widths) < next(widths)
    plan = uniform_plan(again)
    proof = passes.prove(plan, shrunk(plan), [(small.args, dict(small.kwargs))])
    assert proof.max_rel <= 1e-9


def captured(suite: str, name: str) -> passes.Coupling:
    case = next(case for case in SUITES[suite] if case.name == name)
    model, inputs = case.make()
    return passes.couple(passes.capture(model.eval(), *as_call(inputs)))


@pytest.mark.parametrize("name", CATALOG)
def test_a_shrunk_reference_model_has_the_same_groups_and_shrinks_again(name):
    halved_twice(captured("reference", name))


@pytest.mark.slow
@pytest.mark.parametrize("name", VISION)
def test_a_shrunk_torchvision_model_has_the_same_groups_and_shrinks_again(name):
    halved_twice(captured("torchvision", name))


@pytest.mark.parametrize("name", NETWORKS)
def test_what_was_captured_and_what_was_cut_of_it_are_closed(name):
    coupling = coupled(name)
    coupling.program.check()
    shrunk(random_plan(coupling, seed=1)).check()


def test_free_sizes_stay_free_through_the_surgery():
    small = shrunk(random_plan(coupled("residual"), seed=1))
    batches = {str(n.meta["val"].shape[0]) for n in small.calls()}
    assert len(batches) == 1
    assert not batches.pop().isdigit()


def test_a_value_without_a_shape_is_named():
    program = clone(coupled("residual").program)
    del next(node for node in program.calls() if node.target is aten.mean.dim).meta["val"]
    with pytest.raises(passes.ContractError, match=r"mean at .* has no shape"):
        program.check()


def test_a_tensor_that_is_not_there_is_named():
    program = clone(coupled("residual").program)
    del program.module.get_submodule("blocks.0.reduce").bias
    with pytest.raises(passes.ContractError, match=r"blocks.0.reduce.bias.* is not there"):
        program.check()


def test_a_shape_that_is_not_what_comes_out_is_named():
    program = clone(coupled("residual").program)
    node = next(node for node in program.calls() if node.target is aten.mean.dim)
    node.meta["val"] = node.meta["val"][:, :3]
    with pytest.raises(passes.ContractError, match=r"mean at .*\[2, 3\], and is float32\[2, 16\]"):
        program.check()


def test_a_stale_literal_is_named():
    program = clone(coupled("shuffled").program)
    view = next(node for node in program.calls() if node.target is aten.view.default)
    view.args = (view.args[0], [view.args[1][0], 3, 8, 8, 8])
    with pytest.raises(passes.ContractError, match=r"view at .* does not fit what it is given"):
        program.check()


class Cut(nn.Module):
    """Slices that say more than there is, and a size that is written down."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow = nn.Linear(5, 8), nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.wide(x)[:, 1:1000]
        return self.narrow(y + torch.zeros(7).expand(1, 7))[:, -9:]


def test_a_slice_that_says_more_than_there_is_is_captured_as_what_it_takes():
    program = passes.capture(Cut(), (torch.zeros(2, 5),), {})
    slices = [node for node in program.calls() if node.target is aten.slice.Tensor]
    assert [node.args[1:4] for node in slices if node.args[1] == 1] == [(1, 1, 8), (1, 0, OPEN)]


@pytest.mark.parametrize(
    ("op", "place", "stale"),
    [(aten.slice.Tensor, 3, 16), (aten.slice.Tensor, 2, -16), (aten.expand.default, 1, [1, 16])],
)
def test_a_stale_size_is_named_also_where_torch_would_take_it(op, place, stale):
    program = clone(passes.capture(Cut(), (torch.zeros(2, 5),), {}))
    call = [node for node in program.calls() if node.target is op][-1]
    call.update_arg(place, stale)
    with pytest.raises(
        passes.ContractError, match=rf"{op._schema.name[6:]}.* at .*(stale|not fit)"
    ):
        program.check()


def test_tensors_of_another_form_are_refused():
    program = coupled("residual").program
    wrong = {name: tensor[:1] for name, tensor in program.tensors().items()}
    with pytest.raises(passes.ContractError, match="has another form"):
        with_tensors(program, wrong)


@dataclass(frozen=True)
class Forgetful:
    """Adds a call, and says nothing of what it gives."""

    name: ClassVar[str] = "forgetful"
    told: bool

    def requires(self, before: passes.Program) -> None:
        pass

    def run(self, before: passes.Program) -> PassResult:
        after = clone(before)
        last = next(node for node in after.calls() if node.target is aten.mean.dim)
        with last.graph.inserting_after(last):
            more = last.graph.call_function(aten.relu.default, (last,))
        last.replace_all_uses_with(more, delete_user_cb=lambda user: user is not more)
        after.module.recompile()
        if self.told:
            infer(after.module)
        return PassResult(replace(after), ("a relu",))

    def ensures(self, before: passes.Program, after: passes.Program) -> None:
        pass


def test_a_pass_that_forgets_a_shape_is_refused():
    program = coupled("residual").program
    with pytest.raises(passes.ContractError, match=r"relu at .* has no shape"):
        passes.apply(Forgetful(told=False), program)
    assert passes.apply(Forgetful(told=True), program).changes == ("a relu",)


@pytest.mark.parametrize("name", ["residual", "shuffled", "tagger"])
def test_a_program_reads_as_its_author_wrote_it_before_and_after(golden, name):
    coupling = coupled(name)
    small = shrunk(random_plan(coupling, seed=1))
    texts = (passes.program_to_text(one) for one in (coupling.program, small))
    golden("\n".join(texts), f"{name}.program")
