"""What came of many networks, as one value that adds up over ranges of seeds."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from compressor.passes.operators import RULES
from rich.console import Console
from rich.table import Table

from tests.tools.fuzz.check import Found, due

OFTEN = 20
COUNTERS = (
    "outcomes", "refusals", "frozen", "rules", "steps", "checks", "inflated", "seconds",
)  # fmt: skip


@dataclass
class Tally:
    """Counts, and the seeds of failures with what they said."""

    seeds: list[list[int]] = field(default_factory=list)
    """Ranges: the first seed, and the first after."""
    groups: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    refusals: Counter[str] = field(default_factory=Counter)
    frozen: Counter[str] = field(default_factory=Counter)
    rules: Counter[str] = field(default_factory=Counter)
    steps: Counter[str] = field(default_factory=Counter)
    checks: Counter[str] = field(default_factory=Counter)
    inflated: Counter[str] = field(default_factory=Counter)
    """What came of networks that were made wider by hand."""
    seconds: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    def add(self, found: Found) -> None:
        self.groups += found.groups
        self.outcomes[found.outcome] += 1
        if found.outcome == "refused":
            self.refusals[found.why] += 1
        if found.failed:
            self.failures[str(found.seed)] = f"{found.outcome}: {found.why}"
        for name in ("frozen", "rules", "steps", "checks", "seconds"):
            getattr(self, name).update(getattr(found, name))

    def __add__(self, other: "Tally") -> "Tally":
        return Tally(
            merged(self.seeds + other.seeds),
            self.groups + other.groups,
            **{name: getattr(self, name) + getattr(other, name) for name in COUNTERS},
            failures=self.failures | other.failures,
        )

    @property
    def networks(self) -> int:
        return self.outcomes.total()

    @property
    def failed(self) -> bool:
        return bool(self.failures) or any(name.startswith("FAILED") for name in self.inflated)

    @property
    def limits(self) -> Counter[str]:
        """Frozen groups whose reason is ours: another rule could let them go."""
        return Counter({why: count for why, count in self.frozen.items() if not due(why)})

    @property
    def causes(self) -> Counter[str]:
        """Frozen groups whose reason lies in the network."""
        found: Counter[str] = Counter()
        for why, count in self.frozen.items():
            if due(why):
                found[due(why)] += count
        return found

    @property
    def refused_share(self) -> float:
        """Frozen groups over all groups that the network itself would let go."""
        return self.limits.total() / max(self.groups + self.limits.total(), 1)

    @property
    def rare(self) -> dict[str, int]:
        """Rules that were exercised in fewer networks than `OFTEN`."""
        return {str(op): self.rules[str(op)] for op in RULES if self.rules[str(op)] < OFTEN}

    def to_json(self) -> dict[str, Any]:
        counts = {name: dict(getattr(self, name).most_common()) for name in COUNTERS}
        counts["seconds"] = {name: round(value, 1) for name, value in counts["seconds"].items()}
        return {
            "seeds": self.seeds,
            "networks": self.networks,
            "networks_per_cpu_second": round(self.networks / max(self.seconds.total(), 1e-9), 2),
            "groups": self.groups,
            "groups_frozen_by_our_limits": round(self.refused_share, 4),
            **counts,
            "rare_rules": self.rare,
            "failures": self.failures,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> "Tally":
        counts = {name: Counter(found[name]) for name in COUNTERS}
        return cls(found["seeds"], found["groups"], **counts, failures=found["failures"])


def merged(ranges: list[list[int]]) -> list[list[int]]:
    """Ranges in order, neighbours joined."""
    found: list[list[int]] = []
    for first, end in sorted(ranges):
        if found and first <= found[-1][1]:
            found[-1][1] = max(found[-1][1], end)
        else:
            found.append([first, end])
    return found


def show(tally: Tally, console: Console) -> None:
    """Everything, in a few tables."""
    seeds = ", ".join(f"{first} to {end - 1}" for first, end in tally.seeds)
    speed = tally.networks / max(tally.seconds.total(), 1e-9)
    console.print(f"{tally.networks} networks (seeds {seeds}), {speed:.2f} a CPU second")
    for title, counter in (
        ("outcome", tally.outcomes),
        ("why a network was refused", tally.refusals),
        ("checks", tally.checks),
        ("inflated by hand", tally.inflated),
        ("groups frozen by the network itself", tally.causes),
        (f"groups frozen by our limits ({tally.refused_share:.1%})", tally.limits),
    ):
        table = Table("", title, title_justify="left", show_header=True)
        for name, count in counter.most_common():
            table.add_row(f"{count:,}", name)
        console.print(table)
    rare = ", ".join(f"{op} {count}" for op, count in sorted(tally.rare.items(), key=_count))
    console.print(f"{len(RULES) - len(tally.rare)} of {len(RULES)} rules in {OFTEN} networks or "
                  f"more; the others: {rare or 'none'}")  # fmt: skip
    for seed, why in tally.failures.items():
        console.print(f"[red]seed {seed}[/] {why}", highlight=False)


def _count(pair: tuple[str, int]) -> int:
    return pair[1]
