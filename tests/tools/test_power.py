"""What a power failure may leave, by hand-made sequences of calls, and by one that is recorded."""

import random
import sys
from pathlib import Path

import pytest

from tests.tools.reliability import power, storage, syscalls, writers
from tests.tools.reliability.storage import ORDERED, STRICT, Disk, History
from tests.tools.reliability.syscalls import Call

NEW = bytes(range(256)) * 64
MODELS = [ORDERED, STRICT]


def written(name: str, *, synced: bool = True) -> list[Call]:
    """Beside its name first, then renamed; with everything that makes it durable, or nothing."""
    calls = [Call("create", "/d/.tmp"), Call("write", "/d/.tmp", data=NEW)]
    calls += [Call("sync", "/d/.tmp")] * synced
    calls += [Call("rename", "/d/.tmp", f"/d/{name}")]
    return calls + [Call("sync", "/d")] * synced


def outcomes(calls: list[Call], model: str, before: dict | None = None, name: str = "x") -> set:
    """What a file was after 400 failures."""
    history = History(Disk.of(before or {}), calls, "/d")
    return {
        history.after(at % (len(history.steps) + 1), model, random.Random(at)).disk.tree().get(name)
        for at in range(400)
    }


@pytest.mark.parametrize("model", MODELS)
def test_a_writer_that_syncs_leaves_a_file_as_it_was_or_whole(model):
    assert outcomes(written("x"), model) == {None, NEW}
    assert outcomes(written("x"), model, {"x": b"old"}) == {b"old", NEW}


@pytest.mark.parametrize("model", MODELS)
def test_a_writer_that_does_not_sync_is_found(model):
    found = outcomes(written("x", synced=False), model)
    assert found - {None, NEW}, "nothing was torn"
    assert b"" in found


def test_a_journal_has_the_data_of_what_took_the_place_of_another_file():
    calls = written("x", synced=False)
    assert outcomes(calls, ORDERED, {"x": b"old"}) == {b"old", NEW}
    assert outcomes(calls, STRICT, {"x": b"old"}) - {b"old", NEW}


@pytest.mark.parametrize("model", MODELS)
def test_a_file_that_is_written_in_its_place_is_torn(model):
    calls = [Call("truncate", "/d/x"), Call("write", "/d/x", data=NEW), Call("sync", "/d/x")]
    assert outcomes(calls, model, {"x": b"old"}) - {b"old", NEW}


def test_a_folder_is_renamed_before_its_entries_are_durable():
    calls = [
        *(
            Call("mkdir", "/d/.tmp"),
            Call("create", "/d/.tmp/a"),
            Call("write", "/d/.tmp/a", data=NEW),
        ),
        *(Call("sync", "/d/.tmp/a"), Call("rename", "/d/.tmp", "/d/x"), Call("sync", "/d")),
    ]
    assert {} in [one for one in outcomes_of_folders(calls) if one is not None]
    calls.insert(4, Call("sync", "/d/.tmp"))
    assert all(one in (None, {"a": NEW}) for one in outcomes_of_folders(calls))


def outcomes_of_folders(calls: list[Call]) -> list:
    history = History(Disk(), calls, "/d")
    seeds = range(300)
    points = [seed % (len(history.steps) + 1) for seed in seeds]
    return [
        history.after(point, STRICT, random.Random(seed)).disk.tree().get("x")
        for seed, point in zip(seeds, points, strict=True)
    ]


def test_the_earlier_release_goes_only_when_the_exchange_is_durable():
    before = {"x": {"a": b"old"}, ".tmp": {"a": NEW}}
    calls = [Call("exchange", "/d/.tmp", "/d/x"), Call("unlink", "/d/.tmp/a"),
             Call("rmdir", "/d/.tmp")]  # fmt: skip
    torn = [one for one in exchanged(before, calls) if one not in ({"a": b"old"}, {"a": NEW})]
    assert torn, "the earlier one lost a file that it still needed"
    calls.insert(1, Call("sync", "/d"))
    assert all(one in ({"a": b"old"}, {"a": NEW}) for one in exchanged(before, calls))


def exchanged(before: dict, calls: list[Call]) -> list:
    history = History(Disk.of(before), calls, "/d")
    return [
        history.after(seed % (len(history.steps) + 1), STRICT, random.Random(seed))
        .disk.tree()
        .get("x")
        for seed in range(300)
    ]


def test_nothing_is_lost_without_a_failure():
    calls = [*written("x", synced=False), Call("write", "/d/x", at=-1, data=b"more")]
    assert History(Disk(), calls, "/d").now.tree() == {"x": NEW + b"more"}


def test_a_call_that_is_not_modelled_is_an_error():
    with pytest.raises(NotImplementedError):
        History(Disk.of({"x": b""}), [Call("clone", "/d/x", "/d/y")], "/d")


# ---------------------------------------------------------------------------- recorded


def hexed(text: str) -> str:
    return "".join(f"\\x{one:02x}" for one in text.encode())


def test_a_log_is_read_with_what_threads_interrupt_and_relative_names():
    here, file = hexed("/d"), hexed("/d/a")
    log = [
        f'7 chdir("{here}") = 0',
        f'7 openat(AT_FDCWD<{here}>, "{hexed("a")}", O_WRONLY|O_CREAT|O_TRUNC, 0666) = 3<{file}>',
        f'7 write(3<{file}>, "{hexed("abc")}", 3 <unfinished ...>',
        f"8 fsync(4<{hexed('/other')}>) = 0",
        "7 <... write resumed>) = 2",
        f'7 write(3<{file}>, "{hexed("cd")}", 2) = 2',
        f"7 fsync(3<{file}>) = 0",
        f'7 renameat2(AT_FDCWD, "{hexed("a")}", AT_FDCWD, "{hexed("b")}", RENAME_EXCHANGE) = 0',
        f'7 unlink("{hexed("gone")}") = -1 ENOENT (No such file or directory)',
        f'7 rename("{hexed("a")}", "{hexed("/d/c")}") = 0',
    ]
    assert [str(one) for one in syscalls.parsed(log, Path("/d"))] == [
        *("create /d/a", "truncate /d/a", "write /d/a (2)", "write /d/a (2)", "sync /d/a"),
        *("exchange /d/a -> /d/b", "rename /d/a -> /d/c"),
    ]


WRITER = """
import os, sys
for name in ("sure", "careless"):
    os.mkdir(name)
    file = os.open(f"{name}/.tmp", os.O_WRONLY | os.O_CREAT)
    os.write(file, bytes(range(256)) * 64)
    if name == "sure":
        os.fsync(file)
    os.rename(f"{name}/.tmp", f"{name}/x")
    if name == "sure":
        os.fsync(os.open(name, os.O_RDONLY))
"""


@pytest.mark.skipif(not syscalls.possible(), reason="strace is not installed")
def test_a_program_is_recorded_and_found_to_sync_or_not(tmp_path):
    calls = syscalls.recorded([sys.executable, "-S", "-c", WRITER], tmp_path)
    there = {}
    for name in ("sure", "careless"):
        recording = power.recording(tmp_path / name, calls, {"x": writers.FILE})
        rows = power.failures([recording], 60)
        there[name] = {row.there for row in rows}
    assert power.TORN not in there["sure"]
    assert power.COMPLETE in there["sure"]
    assert power.TORN in there["careless"]


def test_a_flush_of_the_folder_that_is_looked_at_counts(tmp_path):
    (tmp_path / "k").mkdir()
    place = str(tmp_path)
    calls = [Call("mkdir", place), Call("mkdir", f"{place}/k"), Call("sync", place)]
    history = power.recording(tmp_path, calls, {}).history
    left = [history.after(2, STRICT, random.Random(seed)).disk.tree() for seed in range(50)]
    assert left == [{"k": {}}] * 50


# ---------------------------------------------------------------------------- outputs


def recording(before: dict, calls: list[Call], outputs: dict[str, str]) -> power.Recording:
    return power.Recording("kind", History(Disk.of(before), calls, "/d"), outputs)


def test_a_checkpoint_that_is_not_whole_is_torn_and_none_at_all_too():
    calls = [Call("mkdir", "/d/k/.a"), Call("create", "/d/k/.a/f"),
             Call("write", "/d/k/.a/f", data=NEW), Call("rename", "/d/k/.a", "/d/k/a"),
             Call("mkdir", "/d/k/.b"), Call("rename", "/d/k/.b", "/d/k/b")]  # fmt: skip
    found = recording({"k": {}}, calls, {"k": writers.FOLDERS})

    def there(tree: dict) -> str:
        point = len(found.history.steps)
        return power._looked_at(found, point, Disk.of(tree), "k", writers.FOLDERS)[0]

    assert there({"k": {"a": {"f": NEW}, ".b": {"g": b"half"}}}) == power.COMPLETE
    assert there({"k": {"a": {"f": NEW[:9]}}}) == power.TORN
    assert there({"k": {}}) == power.TORN


def test_a_release_is_put_right_before_it_is_looked_at():
    before = {"out": {"a": b"old"}}
    calls = [Call("mkdir", "/d/.out.1.partial"), Call("create", "/d/.out.1.partial/a"),
             Call("sync", "/")]  # fmt: skip
    found = recording(before, calls, {"out": writers.RELEASE})
    assert {row.there for row in power.failures([found], 20)} <= {power.EARLIER, power.FORGOTTEN}


def test_what_is_torn_names_the_point_and_what_was_lost():
    found = recording({}, written("x", synced=False), {"x": writers.FILE})
    rows = list(power.failures([found], 40))
    summary = power.summary(rows)
    assert summary["points"] == 40
    assert summary["bad"], "nothing was torn"
    torn = summary["bad"][0]
    assert (torn["output"], torn["of"]) == ("x", 3)
    again = next(power.fail(found, torn["model"], torn["seed"]))
    assert again.there == power.TORN
    assert again.lost == tuple(torn["lost"])
    assert storage.MODELS == (ORDERED, STRICT)
