"""Stages are timed, and shown in the way that the terminal or the log can take."""

import io
import re

import pytest
from rich.console import Console

from compressor.process import progress
from compressor.process.progress import Bars, Lines, Watch


def run(watch: Watch, error: type[BaseException] | None = None) -> Watch:
    with watch.stage("load"):
        pass
    with watch.stage("race"):
        watch.advance(1, 3)
        watch.advance(3, 3)
        if error is not None:
            raise error
    return watch


def test_an_error_ends_a_stage_and_passes_through():
    watch = Watch()
    with pytest.raises(KeyboardInterrupt):
        run(watch, KeyboardInterrupt)
    assert list(watch.seconds) == ["load", "race"]


def test_a_stage_that_failed_is_not_shown_as_done(capsys):
    with pytest.raises(ValueError):  # noqa: PT011
        run(Lines(), ValueError)
    load, race = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"load \.\.\. \d+\.\d s", load)
    assert re.fullmatch(r"race \.\.\. \d+\.\d s, failed", race)


def test_a_stage_that_failed_has_no_tick():
    said = io.StringIO()
    with pytest.raises(ValueError):  # noqa: PT011
        run(Bars(Console(file=said, force_terminal=True, width=80)), ValueError)
    assert said.getvalue().count("✓") == 1
    assert "failed:" in said.getvalue()


def test_stages_are_in_order_and_the_same_one_adds_up():
    times = iter([0.0, 1.0, 1.0, 3.0, 10.0, 14.0])
    watch = Watch(lambda: next(times))
    for name in ("load", "race", "load"):
        with watch.stage(name):
            pass
    assert watch.seconds == {"load": 5.0, "race": 2.0}
    assert list(watch.seconds) == ["load", "race"]


def test_a_quiet_watch_says_nothing(capsys):
    assert list(run(progress.watch(quiet=True)).seconds) == ["load", "race"]
    assert capsys.readouterr() == ("", "")


def test_a_log_gets_one_line_a_stage(capsys):
    run(progress.watch(quiet=False))
    out, err = capsys.readouterr()
    assert out == ""
    assert [line.split(" ...")[0] for line in err.splitlines()] == ["load", "race"]
    assert "\x1b" not in err


def test_a_terminal_gets_a_bar_and_then_a_tick():
    said = io.StringIO()
    run(Bars(Console(file=said, force_terminal=True, width=80)))
    assert said.getvalue().count("✓") == 2
    assert "━" in said.getvalue()


def test_a_terminal_is_recognised(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", Terminal())
    assert isinstance(progress.watch(quiet=False), Bars)
    assert type(progress.watch(quiet=True)) is Watch
