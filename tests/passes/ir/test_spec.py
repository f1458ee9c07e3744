"""Passes as text, and the log of what ran."""

import ast
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pytest
from compressor.passes.base.errors import UsageError
from compressor.passes.ir.log import Log
from compressor.passes.ir.pass_base import Sequential, entry
from compressor.passes.ir.rebuild import clone
from compressor.passes.ir.spec import options_of, parsed, said, spec
from compressor.passes.pipeline.registry import PASSES

from compressor import passes
from tests.passes.support import coupled, random_plan


@dataclass(frozen=True)
class Scale:
    """Multiplies a tensor of the network."""

    of: str = "head.weight"
    by: float = 2.0
    twice: bool = False
    names: tuple[str, ...] = ()
    least: int | None = None
    name: ClassVar[str] = "scale"
    version: ClassVar[int] = 3

    def sites(self, program):
        return []

    def requires(self, before):
        if self.of not in before.tensors():
            raise UsageError(f"there is no {self.of}")

    def run(self, before):
        after = clone(before)
        after.tensors()[self.of].data.mul_(self.by)
        return passes.PassResult(after, (f"{self.of} times {self.by:g}",))

    def ensures(self, before, after):
        pass

    def metadata(self, result):
        return {"of": self.of}

    @classmethod
    def again(cls, entry, program):
        return program


@dataclass(frozen=True)
class Nothing:
    name: ClassVar[str] = "leave-alone"
    version: ClassVar[int] = 1


KNOWN = {**PASSES, **{one.name: one for one in (Scale, Nothing)}}

STEPS = [
    Scale(),
    Nothing(),
    Scale(of="stem.weight", by=0.5, twice=True, names=("a", "b c", "true", ""), least=3),
    Scale(by=1e-30, names=('quo"te', "back\\slash", "*.head"), least=-1),
]


@pytest.mark.parametrize("steps", [STEPS, STEPS[:1], []], ids=len)
def test_what_is_printed_is_parsed_into_the_same_passes(steps):
    assert parsed(spec(steps), KNOWN) == steps


def test_options_as_by_default_are_not_printed():
    assert spec([Scale(), Scale(by=3.0)]) == "scale scale{by=3.0}"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("scal", "unknown pass 'scal'; one of: leave-alone, prune, repair, scale"),
        ("scale{bye=3}", "the pass scale has no option 'bye'"),
        ("leave-alone{by=3}", "the pass leave-alone has no option 'by'"),
        ("scale{by=big}", "by=big is no value for the pass scale"),
        ("scale{by=true}", "by=true is no value for the pass scale"),
        ("scale{twice=1}", "twice=1 is no value for the pass scale"),
        ("scale{names=[a, 1]}", "names=[a, 1] is no value for the pass scale"),
        ("scale{least=2.5}", "least=2.5 is no value for the pass scale"),
        ("prune{plan=all}", "plan=all is no value for the pass prune"),
        ("scale{by}", "is no list of passes"),
        ("scale{by=}", "is no list of passes"),
        ("scale{by=3", "is no list of passes"),
        ("scale{by=3 by=4}", "is no list of passes"),
        ("scale{names=[a b]}", "is no list of passes"),
        ('scale{of="\\x"}', "is no list of passes"),
        ("scale leave-alone}", "is no list of passes"),
        ("Scale", "is no list of passes"),
    ],
)
def test_a_text_that_names_no_passes_is_refused_with_the_place(text, words):
    with pytest.raises(UsageError) as caught:
        parsed(text, KNOWN)
    assert words in caught.value.what


def test_a_pass_that_needs_more_than_a_text_can_say_is_refused():
    with pytest.raises(UsageError, match="the pass prune needs plan") as caught:
        parsed("prune", KNOWN)
    assert "in code only" in caught.value.hint


def test_every_pass_is_in_the_registry_under_its_name():
    contract = {"sites", "requires", "run", "ensures", "metadata", "again"}
    written = {
        found.name
        for file in Path(passes.__file__).parent.rglob("*.py")
        for found in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(found, ast.ClassDef) and found.name != "Pass"
        and contract <= {one.name for one in found.body if isinstance(one, ast.FunctionDef)}
    }  # fmt: skip
    assert written == {one.__name__ for one in PASSES.values()}
    assert all(name == one.name and one.version >= 1 for name, one in PASSES.items())


def test_passes_run_in_turn_and_leave_a_log():
    program = coupled("residual").program
    steps = (Scale(by=2.0), Scale(of="stem.weight", by=0.5))
    after, log = Sequential(steps).run(program)
    assert [str(one) for one in log] == ["scale", "scale{of=stem.weight by=0.5}"]
    assert [one.metadata for one in log] == [{"of": "head.weight"}, {"of": "stem.weight"}]
    assert [one.changes for one in log] == [("head.weight times 2",), ("stem.weight times 0.5",)]
    assert (after.tensors()["head.weight"] == 2 * program.tensors()["head.weight"]).all()
    with pytest.raises(UsageError, match=r"there is no stem\.bias"):
        Sequential((*steps, Scale(of="stem.bias"))).run(program)


def test_a_log_is_read_back_as_it_was_written():
    plan = random_plan(coupled("residual"), seed=1)
    step = passes.Shrink(plan)
    result = passes.apply(step, plan.coupling.program)
    log = Log().then(entry(step, result, {"kind": "silenced", "max_rel": 1e-16}))
    again = Log.from_json(json.loads(json.dumps(log.to_json())))
    assert again == log
    found = again.find("prune")
    assert found is not None
    assert found.metadata["kept"] == plan.kept
    assert found.changes == result.changes
    assert again.find("repair") is None


@pytest.mark.parametrize("broken", [
    None, [], {}, {"format": 2, "passes": []}, {"format": 1, "passes": [{}]},
    {"format": 1, "passes": [{"name": 1, "version": 1, "options": {}, "metadata": {},
                              "evidence": {}, "changes": []}]},
    {"format": 1, "passes": [{"name": "a", "version": 1, "options": [], "metadata": {},
                              "evidence": {}, "changes": []}]},
])  # fmt: skip
def test_what_is_no_log_is_refused(broken):
    with pytest.raises(UsageError, match="log of passes"):
        Log.from_json(broken)


def test_evidence_of_a_pass_and_of_others_is_kept_together():
    program = coupled("residual").program
    result = passes.PassResult(program, (), evidence={"kind": "bounded", "largest": 0.5})
    assert entry(Scale(), result, {"proof": 1e-16}).evidence == {
        "kind": "bounded", "largest": 0.5, "proof": 1e-16,
    }  # fmt: skip


def test_sites_say_what_could_go_and_what_it_would_cost():
    coupling = coupled("residual")
    sites = passes.Shrink(random_plan(coupling, seed=1)).sites(coupling.program)
    assert [site.name for site in sites] == [group.name for group in coupling.groups]
    assert all(site.steps >= 0 and site.losses == () for site in sites)


def test_a_pass_says_its_options_and_nothing_else():
    plan = random_plan(coupled("residual"), seed=1)
    assert options_of(passes.Shrink(plan)) == {}
    assert said("repair", {}) == "repair"
