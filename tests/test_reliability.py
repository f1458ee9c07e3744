"""What a build survives: the experiment's own parts, on a few cases (`python -m benchmarks
reliability` runs thousands)."""

import os
import subprocess
import sys

import pytest
from compressor.passes.errors import CompressError

from benchmarks.reliability import builds, malformed
from tests.compressor.conftest import ROOT

RUN = """
import sys
from pathlib import Path
from benchmarks.reliability import malformed
rows = list(malformed.run(Path(sys.argv[1]), 270))
print(malformed.summary(rows)["bad"], {row.kind for row in rows}.__len__(), len(rows))
print(sorted(path.name for path in Path(sys.argv[1]).rglob("*")))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_malformed_files_are_refused_and_nothing_is_written(tmp_path):
    done = subprocess.run(  # apart: its memory is limited
        [sys.executable, "-c", RUN, tmp_path],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    found, files = done.stdout.splitlines()[-2:]
    assert found == "[] 9 270"
    assert "case" not in files


@pytest.mark.parametrize("kind", ["plan", "manifest", "device table", "recipe", "group weights"])
def test_brackets_without_an_end_are_refused(kind, tmp_path):
    _, suffix, read = malformed.readers(tmp_path)[kind]
    (tmp_path / f"deep{suffix}").write_bytes(b"a = " * (kind == "recipe") + b"[" * 100_000)
    with pytest.raises(CompressError):
        read(tmp_path / f"deep{suffix}")


def test_spoilt_bytes_are_other_bytes_by_the_seed():
    good = bytes(range(200))
    assert malformed.spoilt(good, 3) == malformed.spoilt(good, 3)
    assert len({malformed.spoilt(good, seed) for seed in range(50)}) > 40


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
