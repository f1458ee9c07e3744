"""Everything that a build and its readers are put through, and what must not come of it."""

import itertools
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.reliability import builds, malformed, malicious


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
    harmful: bool
    seed: int


@dataclass
class Found:
    """What came of it; `after` adds an earlier run."""

    undisturbed: dict[str, Any] = field(default_factory=dict)
    trials: list[builds.Trial] = field(default_factory=list)
    bad: list[builds.Trial] = field(default_factory=list)
    harm: dict[str, str] = field(default_factory=dict)
    malformed: dict[str, Any] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        return not (self.bad or self.malformed.get("bad") or any(self.harm.values()))

    def counts(self) -> dict[str, int]:
        """Disturbed builds of each kind."""
        return dict(Counter(one.kind for one in self.trials))

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "malformed": self.malformed,
            "made to harm": self.harm,
            "undisturbed": self.undisturbed,
            "counts": self.counts(),
            "trials": [asdict(one) for one in self.trials],
            "bad": [asdict(one) for one in self.bad],
        }

    def after(self, earlier: Mapping[str, Any]) -> "Found":
        """With the disturbed builds of an earlier record; and all else of it that is missing."""
        trials, bad = ([builds.Trial(**one) for one in earlier.get(key, ())]
                       for key in ("trials", "bad"))  # fmt: skip
        return Found(
            self.undisturbed or earlier.get("undisturbed", {}),
            trials + self.trials,
            bad + self.bad,
            self.harm or earlier.get("made to harm", {}),
            self.malformed or earlier.get("malformed", {}),
        )


def run(amounts: Amounts, say: Callable[[str], None]) -> Found:
    """All of it, in a temporary folder; a line for each trial."""
    found = Found()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for part in ("whole", "full", "disk", "two", "files", "writer", "made"):
            (folder / part).mkdir()
        sources = [builds.writer_kills(folder / "writer", amounts.writes, amounts.seed)]
        content = ""
        if amounts.kills:
            content, seconds = builds.undisturbed(folder / "whole")
            found.undisturbed = {"content": content, "seconds": round(seconds, 1)}
            say(f"undisturbed: {seconds:.0f} s, {content}")
            sources += [
                builds.two_at_once(folder / "two"),
                builds.full_disks(folder / "full", (0, 1000, 10_000, 50_000)),
                builds.mounted(folder / "disk", ("ro", "size=120k", "size=160k", "size=200k")),
                builds.kills(folder, amounts.kills, amounts.seed, amounts.minutes),
            ]
        for one in itertools.chain(*sources):
            found.trials.append(one)
            say(f"{one.kind} at {one.at}: {one.there} {one.code}")
        for name, done in malicious.trials(folder / "made") if amounts.harmful else ():
            found.harm[name] = done
            say(f"{name}: {done or 'no harm'}")
        if amounts.files:  # last: it limits memory
            rows = list(malformed.run(folder / "files", amounts.files, amounts.seed))
            found.malformed = malformed.summary(rows)
    found.bad = builds.bad(found.trials, content)
    return found
