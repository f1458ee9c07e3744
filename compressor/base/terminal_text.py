"""What is said to people: terminals and Markdown get words, and never what a name would do there.

    say(text)           a line on standard output
    Screen()            rich's console, on which strings are words and not markup
    markdown(text)      words in a table or a line of Markdown

`compressor.passes.base.safe_text` says which characters are shown by their escapes.
"""

import sys
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from compressor.passes.base.safe_text import showable, showable_lines


def say(text: object, file: TextIO | None = None) -> None:
    """Print lines of words."""
    print(showable_lines(text), file=file or sys.stdout, flush=True)


class Screen(Console):
    """A console on which every string is plain: of a table, a title or a tree.

    What is to have a style is a `Text`, made of `words`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """rich calls this for every string that it meets."""
        return super().render_str(showable_lines(text), **options)


def words(text: object, style: str = "") -> Text:
    """For tables and trees that any console prints."""
    return Text(showable_lines(text), style)


def markdown(text: object) -> str:
    """One line of plain words: nothing of a name becomes markup."""
    line = showable(" ".join(str(text).split()))
    for sign in "\\`*_[]<>|&~":
        line = line.replace(sign, f"\\{sign}")
    return line
