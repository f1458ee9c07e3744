"""Latency tests in pytest. Installed with the package:

@pytest.mark.latency(baseline="models/released.onnx", max_regression="5%")
def test_the_new_model_is_not_slower(latency_gate):
    latency_gate("build/net/model.onnx")

Regressed fails the test, inconclusive skips it with the reason (fails it with
`--latency-strict`). Further arguments of the marker, or of the call, are those of `gate.check`.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from compressor.gate.verdict import Verdict


def pytest_addoption(parser: pytest.Parser) -> None:
    """One option of our own."""
    parser.addoption(
        "--latency-strict",
        action="store_true",
        help="an inconclusive latency measurement fails the test instead of skipping it",
    )


def pytest_configure(config: pytest.Config) -> None:
    """The marker is known under --strict-markers."""
    config.addinivalue_line(
        "markers",
        "latency(baseline, max_regression='5%', **options): what `latency_gate` races against",
    )


@pytest.fixture
def latency_gate(request: pytest.FixtureRequest) -> "Callable[..., Verdict]":
    """A function: model file, and options in the place of the marker's -> verdict.

    Relative paths start at pytest's root folder.
    """
    from compressor.gate.verdict import INCONCLUSIVE, REGRESSED, check, percentage
    from compressor.passes.base.safe_text import showable

    marker = request.node.get_closest_marker("latency")
    given = dict(marker.kwargs) if marker is not None else {}
    if marker is not None and marker.args:
        given["baseline"] = marker.args[0]
    root = request.config.rootpath

    def run(new: str | Path, **options: Any) -> "Verdict":
        own = {**given, **options}
        if "baseline" not in own:
            pytest.fail("latency_gate needs a baseline: @pytest.mark.latency(baseline=...)")
        for name in ("max_regression", "max_growth", "max_macs_growth"):
            if isinstance(limit := own.get(name), str):
                own[name] = percentage(limit)
        verdict = check(root / new, root / own.pop("baseline"), **own)
        request.node.user_properties.append(("latency_ratio", verdict.ratio.median))
        if verdict.answer == REGRESSED:
            pytest.fail(showable(f"{Path(new).name} regressed: {verdict.why}"), pytrace=False)
        if verdict.answer == INCONCLUSIVE:
            report = pytest.fail if request.config.getoption("--latency-strict") else pytest.skip
            report(showable(f"inconclusive: {verdict.why}; {verdict.hint}"))
        return verdict

    return run
