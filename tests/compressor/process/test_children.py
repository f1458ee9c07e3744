"""What we start ends with us, however we end, and leaves nothing behind."""

import ast
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from compressor.debug import attempt
from compressor.process import children, endings

ROOT = Path(__file__).resolve().parents[3]
COMPRESSOR = ROOT / "compressor"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells on Linux alone")

PARENT = """
import sys
from pathlib import Path
from compressor.process import children
with children.scratch() as folder:
    (folder / "model.onnx").write_bytes(b"secret")
    children.script(Path("child.py"), given=b"x" * 2_000_000, seconds=60, env={})
"""
CHILD = """
import os, sys, time
from pathlib import Path
got = len(sys.stdin.buffer.read())
Path("pid.tmp").write_text(f"{os.getpid()} {got}")
os.rename("pid.tmp", "pid")
time.sleep(60)
"""
COMMAND = """
import sys, time
from pathlib import Path
from compressor.process import children
from compressor.process.exit_codes import exits
import typer
app = typer.Typer()
@app.command()
@exits
def work() -> None:
    try:
        with children.scratch() as folder:
            (folder / "model.onnx").write_bytes(b"secret")
            children.script(Path("child.py"), given=b"", seconds=60, env={})
    finally:
        Path("cleaned").touch()
app()
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("child.py").write_text(CHILD)
    Path("tmp").mkdir()
    return tmp_path


def _told_to_end() -> None:
    """Also where the tests run under nohup, which ignores it."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def started(code: str) -> "tuple[subprocess.Popen[str], int]":
    """A process of ours, and its child once that has read what it is given."""
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(Path("tmp").absolute())},
        stderr=subprocess.PIPE, text=True, preexec_fn=_told_to_end,
    )  # fmt: skip
    until(Path("pid").exists)
    return process, int(Path("pid").read_text().split()[0])


def until(done, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it takes too long"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    """It has ended; somebody may still have to ask how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


@pytest.mark.parametrize("stopped", [False, True], ids=["running", "stopped"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_child_ends_with_its_parent(number, stopped, here):
    process, child = started(PARENT)
    assert Path("pid").read_text().endswith(" 2000000")
    if stopped:
        os.kill(child, signal.SIGSTOP)
    process.send_signal(number)
    process.communicate(timeout=20)
    until(lambda: gone(child))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_command_that_is_told_to_end_cleans_up(number, here):
    process, child = started(COMMAND)
    os.kill(child, signal.SIGSTOP)
    process.send_signal(number)
    _, said = process.communicate(timeout=20)
    assert process.returncode == 128 + number
    assert said == f"ended by {signal.Signals(number).name}; nothing was written\n"
    until(lambda: gone(child))
    assert Path("cleaned").exists()
    assert os.listdir("tmp") == []


def test_what_a_killed_process_left_is_cleared_by_the_next(here, monkeypatch):
    process, _ = started(PARENT)
    monkeypatch.setattr("tempfile.tempdir", str(Path("tmp").absolute()))
    left = os.listdir("tmp")
    assert len(left) == 1
    with children.scratch() as folder:
        assert sorted([*left, folder.name]) == sorted(os.listdir("tmp"))  # it is at work
    process.kill()
    process.communicate()
    with children.scratch() as folder:
        assert os.listdir("tmp") == [folder.name]
    assert os.listdir("tmp") == []


def test_what_is_not_ours_is_not_cleared(here, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(Path("tmp").absolute()))
    Path("own").mkdir()
    Path("own/precious").touch()
    os.symlink(Path("own").absolute(), f"tmp/{children.PREFIX}link")
    Path(f"tmp/{children.PREFIX}file").touch()
    Path(f"tmp/{children.PREFIX}open").mkdir(mode=0o755)
    before = sorted(os.listdir("tmp"))
    with children.scratch():
        pass
    assert sorted(os.listdir("tmp")) == before
    assert Path("own/precious").exists()


def test_a_child_whose_parent_is_gone_does_nothing(here):
    Path("child.py").write_text("open('RAN', 'w')")
    start = COMPRESSOR / "process" / "child_start.py"
    done = subprocess.run([sys.executable, "-P", start, "1", "child.py"], check=False)
    assert done.returncode == 1
    assert not Path("RAN").exists()


def test_a_step_that_does_not_return_cannot_hold_up_the_end(here):
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK], env={**os.environ, "PYTHONPATH": str(ROOT)}
    )
    until(Path("pid").exists)
    process.terminate()
    assert process.wait(20) == 128 + signal.SIGTERM


STUCK = """
import hashlib
from pathlib import Path
from compressor.process import endings
endings.PATIENCE = 0.5
with endings.ending():
    Path("pid").write_text("0")
    while True:
        try:  # native code without the lock, for minutes
            hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)
        except KeyboardInterrupt:  # it came before that began
            pass
"""


def test_signals_are_as_they_were_afterwards():
    def own(number, frame):
        """Somebody else's."""

    before = signal.getsignal(signal.SIGTERM), signal.signal(signal.SIGHUP, own)
    try:
        with endings.ending() as told:
            assert signal.getsignal(signal.SIGHUP) is own
            assert told.code == 130
        assert signal.getsignal(signal.SIGTERM) is before[0]
    finally:
        signal.signal(signal.SIGHUP, before[1])


def test_a_try_of_a_reduction_is_bound_to_where_it_comes_from(monkeypatch):
    asked: list[int] = []
    monkeypatch.setattr(attempt, "bound", asked.append)
    monkeypatch.setattr(os, "chdir", lambda where: (_ for _ in ()).throw(SystemExit))
    with pytest.raises(SystemExit):
        attempt._run("build", {}, Path(), "")
    assert asked == [os.getppid()]


def test_children_are_started_in_one_place():
    starters = {"subprocess": {"run", "Popen", "call", "check_call", "check_output"},
                "os": {"fork", "system", "popen", "posix_spawn", "execv", "spawnv"},
                "multiprocessing": {"Process", "Pool", "get_context"}}  # fmt: skip
    found = {
        file.relative_to(COMPRESSOR).as_posix()
        for file in COMPRESSOR.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
        and node.attr in starters.get(getattr(node.value, "id", ""), ())
    }
    assert found == {"process/children.py", "debug/attempt.py"}
