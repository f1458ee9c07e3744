"""A verdict for other tools: JUnit for a CI server, Markdown for a summary, JSON for a history."""

import json
from xml.etree import ElementTree

from compressor.base.terminal_text import markdown as words
from compressor.gate.verdict import INCONCLUSIVE, REGRESSED, Verdict
from compressor.passes.base.safe_text import showable


def junit(verdict: Verdict, name: str) -> str:
    """One test case: regressed is a failure, inconclusive is an error."""
    bad = {REGRESSED: "failures", INCONCLUSIVE: "errors"}
    counts = {kind: str(int(bad.get(verdict.answer) == kind)) for kind in bad.values()}
    seconds = f"{verdict.race.seconds:.3f}"
    found = {"name": "compressor check", "tests": "1", "time": seconds, **counts}
    why, hint, name = (showable(one) for one in (verdict.why, verdict.hint, name))
    suite = ElementTree.Element("testsuite", found)
    case = ElementTree.SubElement(suite, "testcase", classname="latency", name=name, time=seconds)
    if verdict.answer in bad:
        kind = bad[verdict.answer].removesuffix("s")
        text = "\n".join(filter(None, (why, hint)))
        ElementTree.SubElement(case, kind, message=why).text = text
    ElementTree.SubElement(case, "system-out").text = markdown(verdict, name)
    ElementTree.indent(suite)
    return ElementTree.tostring(suite, encoding="unicode", xml_declaration=True) + "\n"


def markdown(verdict: Verdict, name: str) -> str:
    """A table for a job's summary."""
    rows = [
        "| model | ms | p99 ms | ratio | bytes |",
        "|---|---|---|---|---|",
        *(
            f"| {words(row.name)} | {row.wall_ms:.3g} | {row.p99_ms:.3g} | {row.ratio} | "
            f"{row.file_bytes:,} |"
            for row in verdict.race.rows
        ),
    ]
    told = f"**{words(name)}: {verdict.answer}**: {words(verdict.why)}."
    hint = f" {words(verdict.hint)}." if verdict.hint else ""
    noise = f"The baseline against itself: {verdict.noise}, {verdict.race.rounds} rounds."
    return "\n".join([told + hint, "", *rows, "", noise, ""])


def history(verdict: Verdict, name: str) -> str:
    """JSON for github-action-benchmark, tool "customSmallerIsBetter".

    The ratio is kept, and not the milliseconds: those of two machines cannot be compared.
    """
    ratio = verdict.ratio
    entry = {
        "name": showable(name),
        "unit": "x baseline",
        "value": round(ratio.median, 5),
        "range": f"{ratio.low:.4f}-{ratio.high:.4f}",
        "extra": showable(verdict.why),
    }
    return json.dumps([entry], indent=1) + "\n"
