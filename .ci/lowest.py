"""constraints-lowest.txt from pyproject.toml: what users install, and pytest, at the lower bounds.

    python .ci/lowest.py > constraints-lowest.txt

torch stays at the version of constraints.txt, see the head of the file. Tools, peers and Ray are
left out: no user needs them for what is tested with it.
"""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """\
# The lowest versions that pyproject.toml allows, for `make test-lowest`. Made from it:
#     python .ci/lowest.py > constraints-lowest.txt
# torch is at the version that everything is tested with: older ones were not to be had as builds
# for CPUs, and those for GPUs bring gigabytes of libraries.
"""
GROUPS = ("train", "sign", "test")
TOOLS = {"build", "hatchling", "mypy", "ruff"}
BOUND = re.compile(r"([A-Za-z0-9._-]+)>=([0-9.]+)")


def lowest() -> str:
    """The text of the file, sorted by name. Raises SystemExit for what has no lower bound."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = [one for group in GROUPS for one in project["optional-dependencies"][group]]
    found: dict[str, str] = {}
    for one in [*project["dependencies"], *extras]:
        if one.startswith("compressor["):
            continue
        bound = BOUND.fullmatch(one)
        if bound is None:
            raise SystemExit(f"pyproject.toml: {one!r} is not of the form name>=version")
        if bound[1] not in TOOLS:
            found[bound[1]] = bound[2]
    tested = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    found["torch"] = re.findall(r"^torch==(\S+)$", tested, re.MULTILINE)[0]
    return HEAD + "".join(f"{name}=={found[name]}\n" for name in sorted(found))


if __name__ == "__main__":
    print(lowest(), end="")
