"""What the pages for contributors tell them to do is what works."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import compressor

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
CHANGELOG = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
NEW_PASS = (
    "passes/transforms/flush_denormals.py",
    "tests/passes/transforms/test_flush_denormals.py",
)


def section(title: str) -> list[tuple[str, str]]:
    """Its blocks of code, with their languages."""
    _, _, rest = PAGE.partition(f"\n## {title}\n")
    return BLOCK.findall(rest.partition("\n## ")[0])


def python(*words: str, cwd: Path) -> str:
    """What it says on both streams; it has to end well."""
    given = {**os.environ, "PYTHONPATH": str(cwd), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=given, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    """What the pass of the page needs of this repository, with that pass in it."""
    home = tmp_path_factory.mktemp("checkout")
    for part in ("passes", "compressor", "models", "tests/passes"):
        shutil.copytree(ROOT / part, home / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "README.md", "LICENSE", "tests/__init__.py"):
        shutil.copy(ROOT / part, home / part)
    blocks = section("Write a pass")
    assert [language for language, _ in blocks] == ["python", "diff", "python"]
    (_, code), (_, diff), (_, test) = blocks
    for name, text in zip(NEW_PASS, (code, test), strict=True):
        (home / name).write_text(text, encoding="utf-8")
    registry = home / "passes/pipeline/registry.py"
    registry.write_text(listed(registry.read_text(encoding="utf-8"), diff), encoding="utf-8")
    return home


def listed(registry: str, diff: str) -> str:
    """The list of passes with the two new lines of the page."""
    new_import, opening, new_line = diff.splitlines()
    first = registry.index("\nfrom ..transforms.prune ")
    text = registry[:first] + f"\n{new_import[1:]}" + registry[first:]
    assert text.count(opening[1:]) == 1
    return text.replace(opening[1:], f"{opening[1:]}\n{new_line[1:]}")


def test_the_pass_of_the_page_and_its_tests_run_as_they_stand_there(copy):
    said = python("-m", "pytest", "-q", "-p", "no:cacheprovider", NEW_PASS[1],
                  "tests/passes/ir/test_spec.py::test_every_pass_is_in_the_registry_under_its_name",
                  cwd=copy)  # fmt: skip
    assert re.search(r"^15 passed", said, re.MULTILINE), said


def test_the_pass_of_the_page_is_written_as_ours_are(copy):
    files = [*NEW_PASS, "passes/pipeline/registry.py"]
    python("-m", "ruff", "check", "--no-cache", *files, cwd=copy)
    python("-m", "ruff", "format", "--no-cache", "--check", *files, cwd=copy)


def test_the_operator_of_the_page_is_in_the_tables_as_it_is_shown():
    rules, cases = (code for language, code in section("Add an operator") if language == "python")
    assert rules in (ROOT / "passes/operators/movement.py").read_text(encoding="utf-8")
    assert cases in (ROOT / "tests/passes/cases.py").read_text(encoding="utf-8")


def test_every_file_and_command_of_the_page_is_there():
    named = re.findall(r"`((?:passes|tests|benchmarks|compressor|\.ci)/[\w./-]*)`", PAGE)
    assert len(named) > 10
    missing = {name for name in named if not (ROOT / name).exists()}
    assert missing == set(NEW_PASS)
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"\bmake ([a-z][\w-]+)", PAGE)) - {"to"} <= set(targets)


def test_every_record_has_a_row_that_says_how_it_is_renewed():
    table = PAGE.partition("\n## Renew a record\n")[2].partition("\n## ")[0]
    patterns = [re.sub("[A-Z]{2,}", "*", name) for name in re.findall(r"`([\w-]+\.[\w*]+)`", table)]
    for file in (ROOT / "benchmarks" / "results").iterdir():
        assert any(file.match(pattern) for pattern in patterns), file.name


# ---------------------------------------------------------------------------- versions


def test_the_changelog_begins_with_what_is_not_released_and_has_this_version_or_an_earlier_one():
    heads = re.findall(r"^## (.*)$", CHANGELOG, re.MULTILINE)
    assert heads[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+ - \d{4}-\d\d-\d\d", head) for head in heads[1:])
    kinds = set(re.findall(r"^### (.*)$", CHANGELOG, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert re.fullmatch(r"\d+\.\d+\.\d+", compressor.__version__)


def test_the_lowest_versions_are_those_of_the_project():
    made = python(".ci/lowest.py", cwd=ROOT)
    assert (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8") == made


def test_the_hooks_before_a_commit_run_what_make_lint_runs():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8")
    recipe = (ROOT / "Makefile").read_text(encoding="utf-8").partition("\nlint:")[2]
    entries = re.findall(r"entry: \.venv/bin/(.*)", hooks)
    lines = re.findall(r"\t\$\(BIN\)/(.*)", recipe.partition("\n\n")[0])
    assert entries == [line.removesuffix(" .") for line in lines]
    assert "http" not in hooks


def test_the_oldest_python_that_is_tried_is_the_oldest_that_is_allowed():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    supported = re.search(r"^supported=\((.*)\)$", (ROOT / ".ci/pythons").read_text(), re.MULTILINE)
    assert supported is not None
    assert f">={supported[1].split()[0]}" == project["requires-python"]
