"""What ran on a program: each pass with its options, what a replay needs, and the evidence.

    capture                metadata: how the model is called
    prune{criterion=obs}   metadata: kept indices     evidence: equal to the silenced original
    repair                 metadata: what was chosen  evidence: divergence on held-out inputs

A release keeps the log; whoever has the original and the log makes the small network again.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..base.errors import UsageError
from .spec import said

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One pass that has run. All values are plain: numbers, words, lists and mappings of them."""

    name: str
    version: int
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    changes: tuple[str, ...] = ()

    def __str__(self) -> str:
        return said(self.name, self.options)


@dataclass(frozen=True)
class Log:
    """Entries in the order in which they ran."""

    entries: tuple[Entry, ...] = ()

    def then(self, *entries: Entry) -> "Log":
        """With these after it."""
        return Log((*self.entries, *entries))

    def __iter__(self) -> Iterator[Entry]:
        return iter(self.entries)

    def __str__(self) -> str:
        return " ".join(map(str, self.entries))

    def find(self, name: str) -> Entry | None:
        """The last entry of a pass, if it ran."""
        return next((one for one in reversed(self.entries) if one.name == name), None)

    def to_json(self, without: Collection[str] = ()) -> dict[str, Any]:
        """As plain values. `without` names metadata that are left out: they may be long."""
        return {
            "format": FORMAT,
            "spec": str(self),
            "passes": [
                {
                    "name": one.name,
                    "version": one.version,
                    "options": dict(one.options),
                    "metadata": {k: v for k, v in one.metadata.items() if k not in without},
                    "evidence": dict(one.evidence),
                    "changes": list(one.changes),
                }
                for one in self.entries
            ],
        }

    @classmethod
    def from_json(cls, found: Any) -> "Log":
        """What `to_json` made. Raises UsageError for anything else."""
        try:
            if found["format"] != FORMAT:
                raise UsageError(
                    f"the log of passes has format {found['format']!r:.40}, known is {FORMAT}",
                    hint="it is of another version of the compressor",
                )
            if not isinstance(found["passes"], list):
                raise TypeError("its passes are no list")
            log = cls(tuple(map(_entry, found["passes"])))
            if found["spec"] != str(log):
                raise ValueError("its spec is not that of its passes")
            return log
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise UsageError("this is no log of passes", why=f"{error!r}"[:200]) from error


def _entry(found: Mapping[str, Any]) -> Entry:
    name, version, changes = found["name"], found["version"], found["changes"]
    plain = [found[part] for part in ("options", "metadata", "evidence")]
    if not isinstance(name, str) or not isinstance(version, int) or isinstance(version, bool):
        raise ValueError("a pass has a name and a version")
    if not all(isinstance(one, dict) for one in plain):
        raise ValueError(f"what {name} says of itself is no mapping")
    if not isinstance(changes, list) or not all(isinstance(one, str) for one in changes):
        raise ValueError(f"the changes of {name} are no lines")
    options, metadata, evidence = plain
    return Entry(name, version, options, metadata, evidence, tuple(changes))
