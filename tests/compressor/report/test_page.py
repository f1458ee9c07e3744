"""The page shows what the report has, says what it lacks, and needs nothing but itself."""

import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from torch import nn, randn

from compressor import Budget, compress
from compressor.report.page import Scale, race, render
from compressor.report.summary import fixed, percent, thin, verdicts

EVIL = "<script>alert('x')</script>\"&"
SAME = {"max_abs": 6e-7, "max_rel": 3.2e-7, "top1": 1.0}


def group(name: str, size: int = 64, kept: int = 40, *, cells: int = 1, kind: str = "channels"):
    layer = name.rpartition(".")[0]
    axes = [name, *(f"{layer}_norm.{part}[0]" for part in ("weight", "bias", "mean", "var"))]
    return {
        "name": name,
        "axes": axes,
        "kind": kind,
        "width": str(size),
        "cells": cells,
        "size": size,
        "kept": kept,
    }


def bare() -> dict:
    """What `Built.report` has before anything is exported or measured."""
    return {
        "format": 1,
        "model": "zoo/vision.py:net",
        "engine": "torch.export, dynamic batch",
        "budget": {"kind": "macs", "amount": 0.5, "unit": "share"},
        "options": {"criterion": "l2", "seed": 0, "uniform": False, "ignore": ["head.*"]},
        "cost": {
            kind: {"original": 2_469_135, "small": 1_234_567}
            for kind in ("channels", "macs", "params", "bytes")
        },
        "groups": [
            group("stem.weight[0]", 48, 29),
            group("block.qkv.weight[0]", 16, 11, cells=8),
            group("block.qkv.weight[0]", 4, 3, kind="rows"),
        ],
        "frozen": [
            {"axis": "head.weight[0]", "size": 10, "why": "program output"},
            {"axis": "head.bias[0]", "size": 10, "why": "program output"},
        ],
        "proof": proof(1.2e-15),
        "warnings": [],
        "stages": {"capture": 2.24, "prove": 0.05},
        "environment": {"processor": None, "memory_bytes": 2**34, "cores": {"logical": 2}},
    }


def proof(gap: float | str) -> dict:
    norms = [f"block.{index}.norm (zoo/vision.py:7)" for index in range(5)]
    return {
        "max_abs": 3.4e-15,
        "max_rel": gap,
        "dtype": "float64",
        "tolerance": 1e-9,
        "inexact": norms,
    }


def latency(ratio: float = 0.583, half: float = 0.004, rounds: int = 85) -> dict:
    """As a build makes it; a sample of the original has 3 runs, of the small one 5."""
    spread = [1 + (8 * index % 21 - 10) / 500 for index in range(rounds - 1)] + [5.0]
    runs = {"original": (3, 1.3), "small": (5, 1.3 * ratio)}
    samples = {}
    for side, (count, ms) in runs.items():
        cpu = [round(count * ms * share * 1e6) for share in spread]
        samples[side] = {"runs": count, "wall_ns": [2 * one for one in cpu], "cpu_ns": cpu}
    return {side: {"ms": ms, "wall_ms": 2 * ms, "cpu_ms": ms} for side, (_, ms) in runs.items()} | {
        "ratio": ratio,
        "low": ratio - half,
        "high": ratio + half,
        "clock": "cpu",
        "why": "CPU time is the headline because one thread does all the work",
        "noise": {"ratio": 1.001, "low": 0.996, "high": 1.005},
        "rounds": rounds,
        "threads": 1,
        "provider": "CPUExecutionProvider",
        "samples": samples,
    }


def operators() -> dict:
    was = [
        {"kind": "Conv", "ms": 1.0, "count": 3},
        {"kind": "ReorderOutput", "ms": 0.1, "count": 1},
    ]
    return {"original": was, "small": [{"kind": "Conv", "ms": 0.4, "count": 3}]}


def layers() -> list[dict]:
    return [
        {"name": "stem.weight", "original": [48, 3, 3, 3], "small": [29, 3, 3, 3]},
        {"name": "head.weight", "original": [10, 48], "small": [10, 29]},
    ]


def full() -> dict:
    return bare() | {
        "layers": layers(),
        "operators": operators(),
        "parity": [{"inputs": "example", "batch": 1, **SAME}, {"inputs": "random", **SAME}],
        "simplified": True,
        "file_bytes": {"original": 712_345, "small": 402_311},
        "accuracy": {"top1": {"original": 0.97329, "small": 0.9}},
        "latency": latency(),
        "warnings": ["The model fixes its batch size."],
    }


def repaired() -> dict:
    layers = [
        {"name": "stem.conv", "kind": "conv2d", "before": 0.8, "after": 0.05, "ridge": 1e-4,
         "columns": 27, "why": ""},
        {"name": "head", "kind": "linear", "before": 0.2, "after": 0.2, "ridge": 0.0,
         "columns": 64, "why": "head.weight is used in several places"},
    ]  # fmt: skip
    return {
        "repair": {
            "chosen": "refit",
            "divergences": {"sliced": 0.9, "refit": 0.0123, "statistics": 0.4},
            "samples": {"given": 320, "used": 320, "held_out": 64},
            "peak_bytes": 3 << 20,
            "layers": layers,
        },
        "measured": {
            "criterion": "l2",
            "tried": [
                {"criterion": "l2", "steps": 1, "reached": 0.5, "divergence": 0.02},
                {"criterion": "obs", "steps": 4, "reached": 0.5, "divergence": 0.03},
            ],
        },
    }


def crowded() -> dict:
    groups = [group(f"backbone.stage{index // 9}.{index}.conv.weight[0]") for index in range(120)]
    return full() | {"groups": groups}


def text(page: str) -> str:
    """What a reader sees, on one line."""
    body = page[page.index("<body>") :]
    inline = re.sub(r"</?(code|strong|wbr)>", "", body)
    return " ".join(re.sub(r"<[^>]+>", " ", inline).split())


# ------------------------------------------------------------------------------------- content


def test_everything_is_shown():
    shown = text(render(full()))
    for words in (
        "zoo/vision.py:net",
        "Asked for at most 50 % of the MACs; 1,234,567 are left, 50.0 %.",
        "The proof holds.",
        "1.2e-15 of the largest output (tolerance 1e-9, float64)",
        "Parity holds.",
        "in 2 comparisons",
        "1.72 times as fast. One run takes 0.583 [0.579, 0.587] of the original&#39;s time",
        "the original against itself: 1.001 [0.996, 1.005]",
        "top1 changes by -0.07329. From 0.9733 to 0.9.",
        "The model fixes its batch size.",
        "bytes of the ONNX file 712,345 402,311 0.565",
        "median latency CPU time, 1 thread, CPUExecutionProvider, 85 rounds 1.30 ms 0.758 ms 0.583",
        "stem.weight[0] 48 → 29",
        "block.qkv.weight[0] 8 × 16 → 8 × 11",  # noqa: RUF001 (the times sign is meant)
        "block.qkv.weight[0] 4 → 3",
        "small: median 0.758 ms",
        "Conv 1.000 ms in 3 → 0.400 ms in 3",
        "ReorderOutput 0.100 ms in 1 → none",
        "1 stem.weight[0]",
        "stem.weight 48 × 3 × 3 × 3 29 × 3 × 3 × 3 axis 0: group 1",  # noqa: RUF001
        "head.weight 10 × 48 10 × 29 axis 0: stays: program output",  # noqa: RUF001
        "2 of 2 shrank",
        "Beyond the right edge: 2 slower rounds, up to 6.50 ms.",
        "head.weight[0] (10), head.bias[0] (10) program output",
        "example 1 6e-7 3.2e-7 100 %",
        "Norms whose statistics run over fewer channels now",
        "capture 2.24",
        "memory bytes 17,179,869,184 (16.0 GiB)",
        "ignore head.*",
        "simplified yes",
    ):
        assert words in shown


def test_a_repair_says_what_was_tried_and_what_won():
    shown = text(render(full() | repaired()))
    for words in (
        "320 of 320 inputs were used, 64 of them only to judge",
        "activations and moments took 3 MiB. 1 of 2 layers were refitted.",
        "as sliced 0.9 every layer refitted by least squares 0.0123 chosen",
        "batch norms re-estimated 0.4",
        "l2 0.02 chosen obs, in 4 steps 0.03",
        "stem.conv 0.8 0.05",
        "head 0.2 0.2 head.weight is used in several places",
    ):
        assert words in shown
    assert "Repair" not in text(render(full()))


def test_what_was_not_measured_says_so():
    page = render(bare())
    shown = text(page)
    assert "The exported model was not compared with PyTorch." in shown
    assert "Latency was not measured." in shown
    assert "Accuracy was not measured." in shown
    assert "<h2>Latency" not in page
    assert "Before you deploy" not in page


def test_a_model_and_a_budget_are_enough():
    page = render(
        {"model": "net", "budget": {"kind": "params", "amount": 1_000_000, "unit": "count"}}
    )
    assert "Asked for at most 1,000,000 parameters." in text(page)
    assert "The surgery was not proven." in text(page)
    assert "<h2>" not in page


def test_no_difference_at_all_is_exact():
    shown = text(render(bare() | {"proof": proof(0.0)}))
    assert "with the removed channels silenced, exactly (tolerance 1e-9, float64)." in shown


def test_the_report_of_a_build_is_rendered():
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 3)).eval()
    built = compress(net, randn(2, 3, 8, 8), budget=Budget(channels=0.5))
    shown = text(render(built.report))
    assert "The proof holds." in shown
    assert "0.weight[0] 8 → 4" in shown


@pytest.mark.parametrize(
    ("change", "mark", "words"),
    [
        ({"proof": proof(0.3)}, "bad", "The proof fails."),
        ({"proof": proof("inf")}, "bad", "The proof fails."),
        ({"parity": [SAME, SAME | {"max_rel": "nan"}]}, "bad", "Parity fails."),
        ({"latency": latency(1.2)}, "bad", "1.20 times as slow."),
        ({"latency": latency(0.99, 0.02)}, "open", "No change of latency can be told from noise."),
        ({"latency": latency(0.99)}, "good", "1.01 times as fast."),
        (
            {"latency": latency(0.994, 0.003)},
            "open",
            "No change of latency can be told from noise.",
        ),
        ({"accuracy": {"f1": {"original": 0.5, "small": 0.5}}}, "open", "f1 is unchanged at 0.5."),
        (
            {"accuracy": {"loss": {"original": 1.25, "small": "nan"}}},
            "open",
            "loss is 1.25 before and nan after.",
        ),
        (
            {"accuracy": {"loss": {"original": 1.25, "small": 1.5}}},
            "open",
            "loss changes by +0.25.",
        ),
    ],
)
def test_the_headline_says_what_was_found(change, mark, words):
    found = full() | change
    assert (mark, words) in [(one.mark, one.short) for one in verdicts(found)]
    assert words in text(render(found))


def test_rounds_are_shown_as_milliseconds_of_one_run():
    found = race(latency())
    assert found is not None
    original, small = found.curves
    assert original.median == pytest.approx(1.3)
    assert small.median == pytest.approx(1.3 * 0.583)
    assert original.low < original.median < original.high
    assert found.beyond == pytest.approx([6.5, 6.5 * 0.583])


def test_rounds_that_took_equally_long_are_shown():
    found = latency()
    same = {"runs": 1, "wall_ns": [9, 9, 9], "cpu_ns": [7, 7, 7]}
    found["samples"] = dict.fromkeys(("original", "small"), same)
    assert "small: median" in text(render(full() | {"latency": found}))


def test_many_axes_are_folded_and_too_many_are_in_the_other_report():
    wide = group("embed.weight[0]") | {"axes": [f"layer{index}.weight[0]" for index in range(60)]}
    shown = text(render(bare() | {"groups": [wide]}))
    assert "and 57 more" in shown
    assert "layer39.weight[0], and 20 more in report.json" in shown
    assert "layer40" not in shown


# ------------------------------------------------------------------------------------- numbers


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (1_234_567, "1,234,567"),
        (1_234_567.8, "1,234,568"),
        (999.7, "1,000"),
        (0.5123, "0.512"),
        (1.23e-15, "1.2e-15"),
        (1e-9, "1e-9"),
        (-0.25, "-0.25"),
        (0, "0"),
        (0.0, "0"),
        (None, "–"),  # noqa: RUF001 (the dash is meant)
        ("inf", "inf"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_are_thin(number, words):
    assert thin(number) == words


def test_times_keep_three_digits():
    assert [fixed(ms) for ms in (0.0123, 0.5, 1.3, 12, 1234.5)] == [
        *("0.0123", "0.500", "1.30", "12.0", "1,234")
    ]


def test_a_share_is_rounded_down():
    assert [percent(share) for share in (1, 0.9999, 0.5)] == ["100 %", "99.9 %", "50 %"]


def test_ticks_are_round_and_inside():
    assert Scale(0.57, 1.02).ticks() == [
        *((6.67, "0.6"), (28.89, "0.7"), (51.11, "0.8"), (73.33, "0.9"), (95.56, "1"))
    ]


# ---------------------------------------------------------------------------- one plain file


class Nesting(HTMLParser):
    """Fails where a tag is closed that is not open, or left open."""

    EMPTY = frozenset({"meta", "link", "wbr"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        assert tag != "script"
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in ("rect", "line")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize(
    "found",
    [bare(), full(), crowded() | repaired()],
    ids=["bare", "full", "crowded"],
)
def test_every_tag_is_closed(found):
    parser = Nesting()
    parser.feed(render(found))
    assert parser.open == []


def test_what_the_user_wrote_is_escaped():
    found = full() | {
        "model": EVIL,
        "engine": EVIL,
        "budget": {"kind": EVIL, "amount": 0.5, "unit": "share"},
        "options": {EVIL: [EVIL]},
        "groups": [group(EVIL), group(EVIL, kind="rows")],
        "frozen": [{"axis": EVIL, "size": 3, "why": EVIL}],
        "proof": proof(0.0) | {"dtype": EVIL, "inexact": [EVIL] * 50},
        "parity": [{"inputs": EVIL, "batch": EVIL, "max_abs": 0.0, "max_rel": 0.0, "top1": None}],
        "accuracy": {EVIL: {"original": 0.5, "small": 0.4}},
        "latency": latency() | {"provider": EVIL, "why": EVIL},
        "warnings": [EVIL],
        "repair": repaired()["repair"]
        | {"layers": [repaired()["repair"]["layers"][0] | {"name": EVIL}]},
        "layers": [{"name": EVIL, "original": [4, 4], "small": [4, 2]}],
        "operators": {
            side: [{"kind": EVIL, "ms": 1.0, "count": 1}] for side in ("original", "small")
        },
        "stages": {EVIL: 1.0},
        "environment": {EVIL: {EVIL: EVIL}},
    }
    page = render(found)
    assert "<script" not in page
    assert "alert('x')" not in page
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;") > 20


@pytest.mark.parametrize("found", [bare(), full(), crowded()], ids=["bare", "full", "crowded"])
def test_nothing_is_fetched(found):
    page = render(found)
    assert "default-src 'none'" in page
    for outside in ("http://", "https://", "<script", "@import", "url(", "src="):
        assert outside not in page


def test_the_same_report_gives_the_same_bytes():
    assert render(full()) == render(full())


def test_the_report_is_left_untouched():
    found = full()
    render(found)
    assert found == full()


def test_many_groups_scroll_and_the_page_stays_small():
    page = render(crowded())
    assert page.count("backbone.stage13.119.conv.weight[0]") == 2
    assert page.count('class="long"') == 1
    assert "channels: 120 groups" in text(page)
    assert len(page.encode()) < 300_000
    assert len(render(full()).encode()) < 40_000


# ------------------------------------------------------------------------------------- browser


def console(file) -> list[str]:
    """What Chromium complains about on opening a file."""
    options = (
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *(f"--user-data-dir={file.parent / 'profile'}", "--enable-logging=stderr", "--dump-dom"),
    )
    done = subprocess.run(
        ["chromium", *options, file.as_uri()],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert "</main>" in done.stdout
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not on the PATH")
def test_a_browser_has_nothing_to_complain_about(tmp_path):
    file = tmp_path / "report.html"
    file.write_text(render(full()), encoding="utf-8")
    assert console(file) == []
    planted = render(full()).replace("</main>", "<script>nonsense()</script></main>")
    file.write_text(planted, encoding="utf-8")
    assert console(file) != []
