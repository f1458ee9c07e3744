"""What is in a name is shown, and does nothing: on terminals, in JUnit, Markdown and pages."""

import json
import os
import re
from dataclasses import replace
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from compressor.passes.base.errors import UsageError
from compressor.passes.base.safe_text import showable, showable_lines
from onnx import helper
from typer.testing import CliRunner

from compressor import bench
from compressor.analysis.inspection import tree
from compressor.base.terminal_text import Screen, markdown
from compressor.cli.app import app
from compressor.cli.options import print_json
from compressor.explain import render
from compressor.explain.judge import Judged
from compressor.explain.profile import Operator
from compressor.explain.roofline import Roofline
from compressor.gate import formats
from compressor.gate.verdict import REGRESSED, Verdict, check
from compressor.process.progress import Bars, Lines
from compressor.report import page, summary

EVIL = (
    "\x1b]0;owned\x07\x9b2J\x7f\u202eabc\u2066\u2028|<script>[/red][bold]"
    "`*_&#27;\udcff\ufffe\0\r\n# x"
)
"""A terminal's title, C1, marks of direction, a table's bar, markup, half a pair, a new line."""


def assert_plain(text: str) -> None:
    """Nothing in it but what can be seen, spaces and ends of lines."""
    assert [one for one in text if not one.isprintable() and one != "\n"] == []
    assert "owned" in text


# ---------------------------------------------------------------------------- text


def test_what_cannot_be_seen_is_shown_by_its_escape():
    assert showable("a\x1b[31m\n\u202e\udcff ü 漢 😀") == r"a\x1b[31m\n\u202e\udcff ü 漢 😀"
    assert showable_lines("a\tb\r\nc\x07", indent="  ") == "a       b\n  c\\x07"
    assert showable(Path("x")) == "x"


def test_an_error_cannot_be_made_to_say_more():
    error = UsageError(EVIL, where="a\n  hint: rm -rf /", why=EVIL, hint=EVIL)
    assert_plain(str(error))
    rows = [line for line in str(error).splitlines() if line.startswith("  hint:")]
    assert len(rows) == 1


# ---------------------------------------------------------------------------- terminals


def printed(*things: object) -> str:
    """On a terminal, without its colours."""
    text = StringIO()
    screen = Screen(file=text, width=300, force_terminal=True, no_color=True)
    for thing in things:
        screen.print(thing)
    return re.sub(r"\x1b\[[\d;]*m", "", text.getvalue())


def test_tables_and_trees_show_names_as_they_are():
    one = Operator(EVIL, EVIL, EVIL, 1e-3, ((1, 2),), ((1, 2),), 8)
    tables = render({EVIL: Judged(((one, "slow"),), Roofline(1e9, 1e9))})
    found = {
        "model": EVIL, "params": 1, "macs": 1, "engine": "export",
        "groups": [{"name": EVIL, "width": "8", "params_share": 0.5, "macs_share": 0.5,
                    "axes": [EVIL, EVIL]}],
        "frozen": [{"axis": EVIL, "size": 3, "why": EVIL}],
    }  # fmt: skip
    for thing in (*tables, tree(found)):
        text = printed(thing)
        assert_plain(text)
        assert "[/red][bold]" in text


def test_a_race_shows_names_as_they_are(tmp_path):
    raced = bench.race({EVIL: relu("x", "y")}, rounds=1, max_seconds=0.1)
    assert_plain(printed(bench.render(raced)))


@pytest.mark.parametrize("kind", [Lines, lambda: Bars(Screen(stderr=True, force_terminal=False))])
def test_stages_and_notes_show_names_as_they_are(kind, capsys):
    watch = kind()
    with watch.stage(f"profile {EVIL}"):
        watch.advance(1, 2)
    watch.note(EVIL)
    assert_plain(capsys.readouterr().err)


def relu(given: str, made: str) -> bytes:
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Relu", [given], [made], name=f"n {given}")], "g",
        [value(given, 1, [1, 4])], [value(made, 1, [1, 4])],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    return helper.make_model(graph, ir_version=9, opset_imports=opset).SerializeToString()


NAMED = "\x1b]0;owned\x07\x9b|[bold]\u202e\n# y"


@pytest.mark.parametrize(
    "line",
    ["bench {0} {0} --seconds 0.1 --rounds 1", "explain {0}", "align {0} -o out.onnx",
     "check {0} --baseline {0} --seconds 0.1", "verify {0}", "status {0}", "shards {0} {0} -o out",
     "build {0}:net --macs 0.5", "bench {1} {1}", "explain {1}"],
)  # fmt: skip
def test_names_in_files_and_of_files_reach_no_terminal(line, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    name, other = f"{NAMED}.onnx", "dynamic.onnx"
    Path(name).write_bytes(relu(NAMED, "y"))
    Path(other).write_bytes(relu(NAMED, "y").replace(b"\x08\x04", b"\x12\x01n"))
    done = CliRunner().invoke(app, [word.format(name, other) for word in line.split()])
    native = capfd.readouterr()
    for text in (done.stdout, done.stderr, native.out, native.err):
        assert [one for one in text if not one.isprintable() and one != "\n"] == []
    assert done.exit_code != 70, done.stderr


def test_a_document_on_standard_output_has_no_control_characters(capsys):
    print_json({EVIL: EVIL})
    text = capsys.readouterr().out
    assert text.replace("\n", "").isprintable()
    assert text.isascii()
    assert json.loads(text) == {EVIL: EVIL}


# ---------------------------------------------------------------------------- files


@pytest.fixture
def evil(tmp_path) -> Verdict:
    path = tmp_path / "a.onnx"
    path.write_bytes(relu("x", "y"))
    return replace(check(path, path, max_seconds=0.1), answer=REGRESSED, why=EVIL, hint=EVIL)


def test_junit_is_valid_xml_whatever_the_names(evil):
    text = formats.junit(evil, EVIL)
    text.encode()
    suite = ElementTree.fromstring(text)
    (case,) = suite
    assert_plain(case.get("name"))
    assert case.get("name") == showable(EVIL)


def test_markdown_has_one_line_a_row_and_no_markup(evil):
    text = formats.markdown(evil, EVIL)
    text.encode()
    assert_plain(text)
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in rows} == {6}
    assert "<script>" not in text
    assert not any(line.startswith("#") for line in text.splitlines())
    assert_plain(markdown(EVIL))
    budget = {"kind": "macs", "amount": 0.5, "unit": "share"}
    assert_plain(summary.summary({"model": EVIL, "budget": budget, "warnings": [EVIL]}))
    assert_plain(formats.history(evil, EVIL))


def test_pages_have_no_control_characters():
    text = page.render(
        {
            "model": EVIL,
            "budget": {"kind": "macs", "amount": 0.5, "unit": "share"},
            "warnings": [EVIL],
        }
    )
    text.encode()
    assert_plain(text)
    assert "<script>" not in text


def test_a_name_that_is_no_text_can_be_written(tmp_path):
    name = os.fsdecode(b"net-\xff")
    assert showable(name) == "net-\\udcff"
    showable(name).encode()
