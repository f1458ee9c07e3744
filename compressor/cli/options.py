"""What several commands take and print."""

import json
import sys
from contextlib import redirect_stdout
from typing import Annotated, Any, TextIO

import typer

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print nothing but errors")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON instead of tables")]
Threads = Annotated[int, typer.Option(min=1, help="intra-op threads of the race")]
Seed = Annotated[int, typer.Option(min=0, help="of everything random")]


def stdout_is_ours(as_json: bool) -> redirect_stdout[TextIO]:
    """Where standard output is a document, what the user's code prints goes to standard error."""
    return redirect_stdout(sys.stderr if as_json else sys.stdout)


def print_json(value: Any) -> None:
    """One document on standard output."""
    print(json.dumps(value, indent=1).replace("\x7f", "\\u007f"))  # all other controls are escaped
