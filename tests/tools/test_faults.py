"""The proof finds what it should: some planted faults here, all of them under `slow`."""

import os

import pytest
import torch

from tests.tools.faults import runner
from tests.tools.faults.judge import Verdict, judge
from tests.tools.faults.networks import names, network
from tests.tools.faults.planted import Fault, planted, uproot
from tests.tools.faults.runner import concerned, coverage, score, table, verdicts
from tests.tools.faults.tables import FAULTS, TABLES

SOME = {  # a network, and faults that are found on it by the proof, a contract, or a crash
    "network:residual": {
        "the tie of an addition is forgotten": "contract",
        "outputs are not pinned": "proof",
        "running variances are not cut at the right places": "contract",
        "removed indices are published as kept": "contract",
        "literals get the place of their neighbour": "",
    },
    "network:grouped": {"the group count of a convolution stays": "contract"},
    "network:encoder": {"attention scores scale by the new head size": "proof"},
    "network:tagger": {"the backward direction comes first": "proof"},
    "case:slice_by_the_batch_size": {"a single axis is off by one": "contract"},
    "case:index_of_channels": {"tables of indices have channels": "contract"},
    "case:embedding_tied": {"tied tensors get the name of another": "contract"},
    "case:copy_into_a_slice": {
        "calls without users are dropped, also those that write in place": "refusal"
    },
}


def outcome(fault: Fault, name: str) -> set[tuple[str, str]]:
    own = planted(fault)
    try:
        return {(verdict.kind, verdict.by) for verdict in judge(own, fault, network(name))}
    finally:
        uproot(own)


@pytest.mark.parametrize(
    ("name", "sentence", "by"),
    [(name, *pair) for name, faults in SOME.items() for pair in faults.items()],
)
def test_a_fault_in_the_passes_is_found(name, sentence, by):
    assert [one for one in SOME[name] if one not in FAULTS] == []
    found = outcome(FAULTS[sentence], name)
    assert "survived" not in {kind for kind, _ in found}
    assert not by or any(way == by for _, way in found), found


def test_every_fault_changes_a_text_that_is_there_and_still_is_python():
    for fault in FAULTS.values():
        compile(fault.source(), fault.file, "exec")
    assert sum(len(table.FAULTS) for table in TABLES) == len(FAULTS) >= 80


def test_a_fault_whose_text_is_no_longer_there_is_an_error():
    with pytest.raises(LookupError, match="has 0 times"):
        planted(Fault("nothing", "coupling/kept_indices.py", "no such text", ""))


def test_every_network_that_a_fault_names_exists():
    known = set(names())
    assert [name for fault in FAULTS.values() for name in fault.networks if name not in known] == []


def test_the_healthy_passes_leave_every_network_untouched_and_a_planted_copy_is_like_them():
    nothing_can_go = "case:unbind_of_channels"  # is refused, which is no crash
    covered = coverage(["case:relu", "network:tagger", nothing_can_go])
    assert concerned(FAULTS["the backward direction comes first"], covered) == ["network:tagger"]
    own = planted(None)
    verdicts = judge(own, None, network("case:relu"))
    uproot(own)
    assert {verdict.kind for verdict in verdicts} == {"untouched"}


def test_what_the_proof_lets_through_is_called_survived(monkeypatch):
    """With a proof that says yes to everything, and no contract."""
    fault = FAULTS["attention scores scale by the new head size"]
    own = planted(fault)
    monkeypatch.setattr(own, "prove", lambda *given: None)
    kinds = {verdict.kind for verdict in judge(own, fault, network("network:encoder"))}
    uproot(own)
    assert kinds <= {"survived", "found"}
    assert "survived" in kinds


def test_what_is_wrong_with_a_release_counts_and_what_differs_only_in_the_choice_does_not():
    fault = FAULTS["the most important channels go first"]
    assert outcome(fault, "network:residual") == {("harmless", ""), ("untouched", "")}


def on_all_threads():
    torch.ones(512, 512) @ torch.ones(512, 512)


def test_a_fault_that_kills_or_hangs_its_process_is_found_there_and_others_are_still_tried(
    monkeypatch,
):
    def harmful(own, fault, network):
        on_all_threads()
        if network.name == "case:relu":
            os.abort()
        while network.name == "case:sigmoid":
            pass
        return [Verdict(network.name, "half", "harmless")]

    monkeypatch.setattr(runner, "judge", harmful)
    monkeypatch.setattr(runner, "SECONDS", 1)
    monkeypatch.setattr(runner, "WALL_SECONDS", 60)
    on_all_threads()  # a process forked after that must not wait for these threads
    fault = FAULTS["the tie of an addition is forgotten"]
    found = verdicts(fault, ["case:add", "case:relu", "case:sigmoid", "case:glu"])
    assert [(one.network, one.kind, one.by) for one in found] == [
        ("case:add", "harmless", ""),
        ("case:relu", "found", "abort"),
        ("case:sigmoid", "found", "timeout"),
        ("case:glu", "harmless", ""),
    ]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_of_all_faults_that_do_harm_99_in_100_are_found():
    with torch.random.fork_rng(devices=[]):
        rows = runner.run(list(FAULTS.values()), names(), lambda row: None)
    found, harmful = score(rows)
    assert table(rows).row_count == len(FAULTS)
    assert harmful >= 60
    assert found >= 0.99 * harmful, [row.fault.sentence for row in rows if row.kind == "survived"]
