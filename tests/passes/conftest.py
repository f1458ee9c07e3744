"""The golden fixture: text that is compared with a file, and written to it on request."""

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def golden() -> Callable[[str, str], None]:
    """`golden(text, name)` compares with `golden/name.txt`; UPDATE_GOLDEN=1 writes it.

    Line numbers of the networks are left out, so that moving one does not rewrite them all.
    """

    def compare(text: str, name: str) -> None:
        file = GOLDEN / f"{name}.txt"
        text = re.sub(r"(passes/\w+\.py):\d+", r"\1", text)
        if os.environ.get("UPDATE_GOLDEN"):
            file.write_text(text, encoding="utf-8")
        assert file.exists(), f"no {file.name}; make it with UPDATE_GOLDEN=1"
        assert text == file.read_text(encoding="utf-8")

    return compare
