"""Everything that a build and its readers are put through, and what must not come of it.

    python -m benchmarks reliability                            all of it, some three hours
    python -m benchmarks reliability --only power --power 500   one part: see `PARTS`

Parts that were not run stay in the record as they were; `source` says of which code each is.
"""

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from compressor.storage.manifest import source_digest
from tests.tools.reliability import builds, hostile, malformed, malicious, power

Say = Callable[[str], None]


@dataclass(frozen=True)
class Amounts:
    """How much of each."""

    kills: int
    """Builds that are killed at a random moment, each with a rerun."""
    minutes: float
    """After which no more of them begin."""
    writes: int
    """Writers of releases that are killed."""
    files: int
    """Malformed files."""
    power: int
    """Power failures."""
    seed: int


def _disturbed(folder: Path, amounts: Amounts, say: Say) -> dict[str, Any]:
    """Builds and writers that are killed, disks that fill, two builds at once."""
    for part in ("whole", "full", "disk", "two", "writer"):
        (folder / part).mkdir()
    content, seconds = builds.undisturbed(folder / "whole")
    say(f"undisturbed: {seconds:.0f} s, {content}")
    rows = []
    for one in itertools.chain(
        builds.writer_kills(folder / "writer", amounts.writes, amounts.seed),
        builds.two_at_once(folder / "two"),
        builds.full_disks(folder / "full", (0, 1000, 10_000, 50_000)),
        builds.mounted(folder / "disk", (2, 10, 20)),
        builds.kills(folder, amounts.kills, amounts.seed, amounts.minutes),
    ):
        rows.append(one)
        say(f"{one.kind} at {one.at}: {one.there} {one.code}")
    return disturbed(rows, content)


def disturbed(rows: Iterable[builds.Trial], content: str) -> dict[str, Any]:
    """What was there afterwards, by kind; and every trial that must not have ended so."""
    rows = list(rows)
    counts = Counter((one.kind, one.there.partition(":")[0], one.code) for one in rows)
    kinds: dict[str, dict[str, int]] = {}
    for (kind, there, code), count in sorted(counts.items()):
        kinds.setdefault(kind, {})[f"{there}, ended with {code}"] = count
    bad = [asdict(one) for one in builds.bad(rows, content)]
    return {"trials": len(rows), "kinds": kinds, "bad": bad}


def _power(folder: Path, amounts: Amounts, say: Say) -> dict[str, Any]:
    """Power failures at random points of what was recorded."""
    return power.summary(power.run(folder, amounts.power, amounts.seed, say))


def _malformed(folder: Path, amounts: Amounts, say: Say) -> dict[str, Any]:
    """Readers on malformed files."""
    rows = []
    for row in malformed.run(folder, amounts.files, amounts.seed):
        rows.append(row)
        if row.bad:
            say(f"malformed, {row.kind} (seed {row.seed}): {row.outcome} {row.why}")
        if len(rows) % 500 == 0:
            say(f"malformed: {len(rows)} files")
    return malformed.summary(rows)


def _harmful(folder: Path, amounts: Amounts, say: Say) -> dict[str, Any]:
    """Inputs that are made to harm."""
    found = {}
    for name, done in malicious.trials(folder):
        found[name] = done
        say(f"{name}: {done or 'no harm'}")
    return {"inputs": len(found), "bad": {name: done for name, done in found.items() if done}}


def _hostile(folder: Path, amounts: Amounts, say: Say) -> dict[str, Any]:
    """Folders of strangers."""
    found = {}
    for name, done in hostile.trials(folder):
        found[name] = done
        say(f"{name}: {'; '.join(done) or 'nothing ran'}")
    return {"folders": len(found), "bad": {name: done for name, done in found.items() if done}}


PARTS: Mapping[str, Callable[[Path, Amounts, Say], dict[str, Any]]] = {
    "disturbed": _disturbed,
    "power": _power,
    "malformed": _malformed,
    "harmful": _harmful,
    "hostile": _hostile,
}
"""Each gives plain values: counts, and under `bad` whatever must not happen, in full."""


def run(amounts: Amounts, parts: Iterable[str], say: Say) -> dict[str, Any]:
    """Some parts, each in a temporary folder; what came of them, by part."""
    found = {}
    for part in parts:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            done = PARTS[part](Path(name).resolve(), amounts, say)
        found[part] = {"source": source_digest()[:12], "seed": amounts.seed, **done}
    return found


def bad(found: Mapping[str, Any]) -> dict[str, Any]:
    """By part, what must not happen."""
    return {part: one["bad"] for part, one in found.items() if one["bad"]}
