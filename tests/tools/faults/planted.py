"""A copy of the passes with one fault in it, imported beside the healthy ones."""

import importlib
import shutil
import sys
import tempfile
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from types import ModuleType

from compressor import passes

HEALTHY = Path(passes.__file__).parent
_numbers = count(1)


@dataclass(frozen=True)
class Fault:
    """One change of the source: in `file`, `old` (found exactly once) becomes `new`."""

    sentence: str
    file: str
    """Below `passes/`."""
    old: str
    new: str
    networks: tuple[str, ...] = ()
    """Networks that must be among those it is tried on."""

    @property
    def captures(self) -> bool:
        """Whether the networks must be captured again to meet it."""
        return self.file in ("frontend/torch_export.py", "ir/program.py")

    def source(self) -> str:
        """The whole changed file. Raises LookupError unless the old text is there exactly once."""
        text = (HEALTHY / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            times = text.count(self.old)
            raise LookupError(
                f"'{self.sentence}': passes/{self.file} has {times} times\n{self.old}"
            )
        return text.replace(self.old, self.new)


def planted(fault: Fault | None) -> ModuleType:
    """The passes with this fault (or without any): a package of its own, all of it imported."""
    name = f"planted_passes_{next(_numbers)}"
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, name)
        shutil.copytree(HEALTHY, copy, ignore=shutil.ignore_patterns("__pycache__"))
        if fault is not None:
            (copy / fault.file).write_text(fault.source(), encoding="utf-8")
        sys.path.insert(0, folder)
        importlib.invalidate_caches()
        try:
            package = importlib.import_module(name)
            for file in sorted(copy.rglob("*.py")):
                parts = file.relative_to(copy).with_suffix("").parts
                parts = parts[:-1] if parts[-1] == "__init__" else parts
                importlib.import_module(".".join((name, *parts)))
        finally:
            sys.path.remove(folder)
    # Which groups are guilty is of no interest here, and takes many proofs to find out.
    sys.modules[f"{name}.proof.equal"].__dict__["_bisect"] = lambda *_: []
    return package


def uproot(package: ModuleType) -> None:
    """Forget a planted package."""
    own = [n for n in sys.modules if n.partition(".")[0] == package.__name__]
    for name in own:
        del sys.modules[name]
