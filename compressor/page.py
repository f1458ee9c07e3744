"""The report as one self-contained HTML page."""

from collections.abc import Mapping
from typing import Any


def render(found: Mapping[str, Any]) -> str:
    return "<html></html>"
