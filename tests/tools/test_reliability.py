"""What a build survives: the experiment's own parts, on a few cases (`python -m benchmarks
reliability` runs thousands)."""

import os
import sys
from collections import Counter

import pytest
from compressor.passes.base.errors import CompressError

from tests.tools.reliability import builds, hostile, malformed, run, spoil
from tests.tools.reliability.readers import Reader
from tests.tools.reliability.release_readers import READERS

LIGHT = (
    *("weights", "shards", "index of shards", "plan", "group weights", "recipe", "reproducer"),
    *("device table", "input shape", "onnx, checked"),
)
"""Readers whose good files are made at once."""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_malformed_files_are_refused_and_nothing_is_left(tmp_path):
    rows = list(malformed.run(tmp_path, 240, kinds=LIGHT))
    assert malformed.summary(rows)["bad"] == []
    assert {row.kind for row in rows} == set(LIGHT)
    assert {row.outcome for row in rows} == {"read", "refused"}
    assert not list(tmp_path.rglob("case"))


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_a_reader_that_hangs_is_told_and_the_next_file_is_read(tmp_path, monkeypatch):
    asked = []

    def ask(self, kind, seed):
        asked.append(kind)
        monkeypatch.setattr(malformed, "SECONDS", 0.0 if len(asked) == 1 else 60.0)
        return whole(self, kind, seed)

    whole = malformed._Child.ask
    monkeypatch.setattr(malformed._Child, "ask", ask)
    rows = list(malformed.run(tmp_path, 2, kinds=["plan"]))
    assert [row.outcome for row in rows] == ["hang", "refused"]
    assert malformed.summary(rows)["bad"][0]["outcome"] == "hang"


def test_a_reader_that_raises_anything_else_is_a_crash(tmp_path):
    def read(path):
        raise RecursionError("deep")

    row = malformed.one("plan", Reader({"a.json": b"{}"}, read), tmp_path, 3)
    assert (row.outcome, row.bad) == ("crash", True)
    assert "RecursionError: deep" in row.why


@pytest.mark.parametrize("kind", ["plan", "device table", "recipe", "group weights"])
def test_brackets_without_an_end_are_refused(kind, tmp_path):
    reader = malformed.prepared(kind, tmp_path / "place")
    for name in reader.files:
        (tmp_path / name).write_bytes(b"a = " * (kind == "recipe") + b"[" * 100_000)
        with pytest.raises(CompressError):
            reader.read(tmp_path / name)


def test_slow_readers_are_given_a_tenth():
    found = Counter(kind for kind, _ in malformed.orders(("plan", "work folder"), 110, 0))
    assert found == {"plan": 100, "work folder": 10}


@pytest.mark.parametrize("suffix", [*spoil.FORMATS, ".enc"])
def test_spoilt_bytes_are_other_bytes_by_the_seed(suffix, tmp_path):
    good = bytes(range(200))
    for kind in ("plan", "weights", "recipe", "onnx, raced"):
        files = READERS[kind](tmp_path).files
        good = next((files[name] for name in files if name.endswith(suffix)), good)
    assert spoil.by_format(good, suffix, 3) == spoil.by_format(good, suffix, 3)
    found = {spoil.by_format(good, suffix, seed) for seed in range(50)}
    assert len(found - {good}) > 30


def test_json_is_spoilt_where_it_says_something():
    good = b'{"format": 1, "files": {"a": [1, 2]}}'
    found = [spoil.by_format(good, ".json", seed) for seed in range(300)]
    for wanted in (
        b"Infinity",
        b"1e999",
        b"[[[[[",
        b"\\u001b",
        b"null",
        b'"format": 1, "format": ',
    ):
        assert any(wanted in one for one in found), wanted


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_writer_that_is_killed_leaves_a_whole_release(tmp_path):
    trials = list(builds.writer_kills(tmp_path, 4))
    assert builds.bad(trials, "") == []
    assert {one.there for one in trials} == {"complete"}


def test_what_must_not_happen_is_told_apart():
    def trial(kind: str, code: int, there: str, content: str = "") -> builds.Trial:
        return builds.Trial(kind, 0, code, there, content)

    fine = [trial("kill", -9, "absent"), trial("kill", -9, "complete", "c"),
            trial("rerun", 0, "complete", "c"), trial("full disk", 2, "complete", "c")]  # fmt: skip
    wrong = [trial("kill", -9, "wrong: torn"), trial("rerun", 0, "complete", "d"),
             trial("rerun", 2, "absent"), trial("full disk", 70, "complete", "c"),
             trial("kill while writing", -9, "absent")]  # fmt: skip
    assert builds.bad(fine + wrong, "c") == wrong
    found = run.disturbed(fine + wrong, "c")
    assert (found["trials"], len(found["bad"])) == (9, 5)
    assert found["kinds"]["kill"] == {
        "absent, ended with -9": 1, "complete, ended with -9": 1, "wrong, ended with -9": 1
    }  # fmt: skip
    parts = {"disturbed": found, "harmful": {"bad": {}}}
    assert run.bad(parts) == {"disturbed": found["bad"]}


# ---------------------------------------------------------------------------- hostile folders


@pytest.mark.skipif(os.name == "nt", reason="sessions and pipes are POSIX")
def test_a_hostile_folder_runs_nothing(tmp_path):
    assert hostile.trial("a pyproject that names a module", tmp_path) == []


@pytest.mark.skipif(os.name == "nt", reason="sessions and pipes are POSIX")
def test_what_runs_in_a_hostile_folder_is_told(tmp_path, monkeypatch):
    def make(place):
        place.python("evil.py")
        place.recipe('model = "evil.py:net"', name="named.toml")
        return ["inspect -c named.toml"]

    monkeypatch.setattr(hostile, "FOLDERS", {"named": make})
    found = hostile.trial("named", tmp_path)
    assert "inspect -c named.toml: exec /here/evil.py" in found
    assert any(one.startswith("inspect -c named.toml: code ran: ") for one in found)


def test_there_are_twenty_hostile_folders():
    assert len(hostile.FOLDERS) >= 20
