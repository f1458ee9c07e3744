"""What a build found out, in few words and numbers: verdicts, original beside small, Markdown.

What was not measured says so.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from compressor.base.terminal_text import markdown

COSTS = {
    "params": "parameters",
    "macs": "MACs",
    "channels": "prunable channels",
    "bytes": "bytes of weights",
}
NOTHING = "–"  # noqa: RUF001 (a dash in an empty cell)


def summary(found: Mapping[str, Any]) -> str:
    """The headline in Markdown: for a job summary, a pull request, a release note."""
    lines = [f"### {markdown(found['model'])}", "", f"{asked(found)}.", ""]
    for one in verdicts(found):
        lines.append(f"- **{markdown(one.short)}** {markdown(one.full)}".rstrip())
    lines += ["", "|  | original | small | ratio |", "|---|---|---|---|"]
    for row in costs(found):
        cells = (row.name, row.original, row.small, f"{row.ratio} {row.ratio_note}".strip())
        lines.append(f"| {' | '.join(map(markdown, cells))} |")
    lines += [""] + [f"> {markdown(line)}\n" for line in found.get("warnings", ())]
    return "\n".join(lines).rstrip() + "\n"


# ------------------------------------------------------------------------------------- numbers


def thin(value: Any, digits: int = 3) -> str:
    """``1,234,567``, ``0.512``, ``1.2e-15``; words stay words, and nothing is a dash."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, str | bool):
        return str(value)
    size = abs(value)
    if not math.isfinite(size):
        return str(value)
    if isinstance(value, int) or size >= 999.5:
        return f"{value:,.0f}"
    if 0 < size < 1e-3:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.{digits}g}"


def finite(value: Any) -> Any:
    """The same for JSON, which has no infinity and no NaN: they become words."""
    if isinstance(value, Mapping):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def fixed(value: float) -> str:
    """Three digits that count, zeros among them: ``1.30``."""
    digits = 2 - math.floor(math.log10(abs(value))) if value else 2
    return f"{value:,.{max(digits, 0)}f}"


def percent(share: float | None) -> str:
    """Rounded down: 100 % is all of them."""
    return NOTHING if share is None else f"{math.floor(share * 1000) / 10:g} %"


def ratio(pair: Mapping[str, Any]) -> str:
    """Small over original, with three decimals."""
    original, small = float(pair["original"]), float(pair["small"])
    found = small / original if original else math.nan
    return f"{found:.3f}" if math.isfinite(found) else NOTHING


# ------------------------------------------------------------------------------------ headline


class Finding(NamedTuple):
    """A finding in a few words and in full; `mark` is `good`, `bad` or neither (`open`)."""

    mark: str
    short: str
    full: str = ""


def asked(found: Mapping[str, Any]) -> str:
    """The budget, and what came of it."""
    kind, amount = found["budget"]["kind"], found["budget"]["amount"]
    name = COSTS.get(kind, kind)
    words = {"share": f"{amount * 100:.4g} % of the {name}", "ms": f"{amount:g} ms of {name}"}
    wish = words.get(found["budget"]["unit"], f"{thin(amount)} {name}")
    cost = found.get("cost", {}).get(kind)
    if not cost or not cost["original"]:
        return f"at most {wish}"
    share = cost["small"] / cost["original"]
    return f"at most {wish}; {thin(cost['small'])} are left, {share * 100:.1f} %"


def verdicts(found: Mapping[str, Any]) -> Iterator[Finding]:
    """What was shown and what was measured."""
    left = kept(found)
    if left is not None and left.mark == "bad":
        yield left
    yield _proof(found.get("proof"))
    if found.get("changed"):
        yield Finding("open", "The weights were changed after the build.", "The proof is older.")
    yield _parity(found.get("parity"))
    yield _latency(found.get("latency"))
    if left is not None and left.mark != "bad":
        yield left
    if not found.get("accuracy"):
        yield Finding("open", "Accuracy was not measured.")
    for name, pair in found.get("accuracy", {}).items():
        yield _changed(name, pair)


MUCH = 0.1
"""Of the variance of the original's outputs: on image classifiers this share costs about four
points of accuracy (`benchmarks/results/accuracy.json`)."""


def kept(found: Mapping[str, Any]) -> Finding | None:
    """How near the repaired network is to the original, on inputs that nothing was fitted to."""
    repair, trained = found.get("repair"), found.get("training") or found.get("changed")
    if not repair:
        return None
    lost, same = repair["divergences"][repair["chosen"]], repair.get("agreement")
    samples = repair["samples"]
    given = (
        f"{thin(samples['given'])} inputs were given, {thin(samples['used'])} used, and "
        f"{thin(samples['held_out'])} of them only judge."
    )
    if same is not None:
        given = f"The class is the original's on {percent(same)} of these. {given}"
    when = " before training" if trained else ""
    what = f"{thin(float(lost) * 100)} % of what the original's outputs vary by"
    if float(lost) <= MUCH or trained:
        return Finding("open", f"The repair leaves an error of {what}{when}.", given)
    return Finding("bad", f"Much is lost: an error of {what}.", f"{given} {NEXT}")


NEXT = "Give more inputs with --data, keep more by the budget, or train with --distill."


def _proof(proof: Mapping[str, Any] | None) -> Finding:
    if not proof:
        return Finding("open", "The surgery was not proven.")
    gap, limit = thin(proof["max_rel"]), thin(proof["tolerance"])
    if not float(proof["max_rel"]) <= proof["tolerance"]:
        full = f"Removing and silencing differ by {gap} of the largest output"
        return Finding("bad", "The proof fails.", f"{full} (tolerance {limit}, {proof['dtype']}).")
    how = "exactly" if gap == "0" else f"to {gap} of the largest output"
    full = (
        "The small network equals the original with the removed channels silenced, "
        f"{how} (tolerance {limit}, {proof['dtype']})."
    )
    return Finding("good", "The proof holds.", full)


def _parity(parity: Sequence[Mapping[str, Any]] | None) -> Finding:
    if not parity:
        return Finding("open", "The exported model was not compared with PyTorch.")
    worst = max((float(one["max_rel"]) for one in parity), key=lambda gap: (gap != gap, gap))
    count = f"{len(parity)} comparisons" if len(parity) > 1 else "one comparison"
    full = f"ONNX Runtime and PyTorch differ by at most {thin(worst)} of the largest output"
    slices = [float(out["max_rel"]) for one in parity for out in one.get("outputs", ())]
    if slices and max(slices) > worst:
        full += f", {thin(max(slices))} of the largest number of a slice of it"
    if not math.isfinite(worst):
        return Finding("bad", "Parity fails.", f"{full}.")
    return Finding("good", "Parity holds.", f"{full}, in {count}.")


def _latency(latency: Mapping[str, Any] | None) -> Finding:
    if not latency:
        return Finding("open", "Latency was not measured.")
    noise = latency["noise"]
    full = (
        f"One run takes {_interval(latency)} of the original's time (95 % interval). "
        f"Noise control, the original against itself: {_interval(noise)}."
    )
    if latency["high"] < min(1, noise["low"]):
        return Finding("good", f"{1 / latency['ratio']:.2f} times as fast.", full)
    if latency["low"] > max(1, noise["high"]):
        return Finding("bad", f"{latency['ratio']:.2f} times as slow.", full)
    return Finding("open", "No change of latency can be told from noise.", full)


def _interval(one: Mapping[str, float]) -> str:
    return f"{one['ratio']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"


def _changed(name: str, pair: Mapping[str, Any]) -> Finding:
    original, small = float(pair["original"]), float(pair["small"])
    before, after = thin(original, 4), thin(small, 4)
    if original == small:
        return Finding("open", f"{name} is unchanged at {before}.")
    if not math.isfinite(small - original):
        return Finding("open", f"{name} is {before} before and {after} after.")
    change = f"{'+' if small > original else ''}{thin(small - original, 4)}"
    return Finding("open", f"{name} changes by {change}.", f"From {before} to {after}.")


class SummaryRow(NamedTuple):
    """One line of the table of costs; notes are small print."""

    name: str
    original: str
    small: str
    ratio: str
    name_note: str = ""
    ratio_note: str = ""


def costs(found: Mapping[str, Any]) -> Iterator[SummaryRow]:
    """Everything that has an original and a small amount."""
    pairs = {name: found.get("cost", {}).get(kind) for kind, name in COSTS.items()}
    pairs["bytes of the ONNX file"] = found.get("file_bytes")
    for name, pair in pairs.items():
        if pair:
            yield SummaryRow(name, thin(pair["original"]), thin(pair["small"]), ratio(pair))
    for name, pair in found.get("accuracy", {}).items():
        yield SummaryRow(name, thin(pair["original"], 4), thin(pair["small"], 4), ratio(pair))
    if latency := found.get("latency"):
        before, after = (f"{fixed(latency[side]['ms'])} ms" for side in ("original", "small"))
        middle, interval = _interval(latency).split(" ", 1)
        yield SummaryRow("median latency", before, after, middle, circumstances(latency), interval)


def circumstances(latency: Mapping[str, Any]) -> str:
    """What a time cannot be read without."""
    clock = {"cpu": "CPU time", "wall": "wall time"}[latency["clock"]]
    threads = f"{latency['threads']} thread{'' if latency['threads'] == 1 else 's'}"
    return f"{clock}, {threads}, {latency['provider']}, {latency['rounds']} rounds"
