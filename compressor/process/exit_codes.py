"""How a command ends.

0    done                                  4    nothing of the model can shrink
1    a limit of yours is not kept          5    proof or parity failed: nothing is published
2    the command, recipe or input is wrong 70   our bug: a traceback, a folder to reproduce it
3    too noisy to judge                    130  interrupted, 143 ended by SIGTERM
"""

import errno
import functools
import json
import os
import shlex
import shutil
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import typer

from compressor.base.messages import reason
from compressor.base.terminal_text import say
from compressor.passes.base.errors import CompressError, UsageError
from compressor.process import time_limit
from compressor.process.endings import ending

BUG = 70


def _reproducer() -> Path:
    """A folder with what is needed to see the present exception again; none of the user's code."""
    from compressor.process.environment import environment

    folder = Path(tempfile.mkdtemp(prefix="compressor-bug-"))
    (folder / "traceback.txt").write_text(traceback.format_exc(), encoding="utf-8")
    command = shlex.join(["compressor", *sys.argv[1:]])
    (folder / "command.txt").write_text(f"{command}\n", encoding="utf-8")
    (folder / "environment.json").write_text(json.dumps(environment(), indent=1) + "\n")
    for word in sys.argv[1:]:
        if word.endswith(".toml") and Path(word).is_file():
            shutil.copy(word, folder)
    return folder


_FULL = frozenset({errno.ENOSPC, errno.EFBIG, errno.EROFS, getattr(errno, "EDQUOT", -1)})
"""The machine's troubles, not ours."""
_NO_MEMORY = ("can't allocate memory", "CUDA out of memory", "std::bad_alloc", "bad allocation")
"""In the words of torch, of CUDA and of C++; numpy and Python raise MemoryError."""


def _machines(error: BaseException | None) -> UsageError | None:
    """What the disk or the memory said, in an error or in what it came from."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return UsageError("cannot write", why=str(error))
        text = str(error)
        if isinstance(error, MemoryError) or any(words in text for words in _NO_MEMORY):
            return UsageError(
                "this machine has not enough memory",
                why=reason(error)[:300],
                hint="give smaller inputs, a smaller batch or less data, or use a larger machine",
            )
        error = error.__cause__ or error.__context__
    return None


def _abandon(error: UsageError) -> None:
    """End the process where a run of a model cannot be stopped."""
    print(f"error: {error}", file=sys.stderr, flush=True)
    os._exit(error.exit_code)


def exits(command: Callable[..., None]) -> Callable[..., None]:
    """Turn what a command raises into a message and an exit code."""

    @functools.wraps(command)
    def guarded(*args: Any, **kwargs: Any) -> None:
        time_limit.stuck = _abandon
        try:
            with ending() as told:
                command(*args, **kwargs)
        except CompressError as error:
            print(f"error: {error}", file=sys.stderr)
            raise typer.Exit(error.exit_code) from None
        except KeyboardInterrupt as error:
            say(f"{told.how}; {str(error) or 'nothing was written'}", sys.stderr)
            raise typer.Exit(told.code) from None
        except (typer.Exit, typer.Abort, BrokenPipeError):  # the last: nobody reads on
            raise
        except Exception as error:
            if trouble := _machines(error):
                print(f"error: {trouble}", file=sys.stderr)
                raise typer.Exit(UsageError.exit_code) from None
            say(traceback.format_exc(), sys.stderr)
            print(
                "\nThis is a bug in the compressor, not in your model. Please report it with what "
                f"is in {_reproducer()}: the lines above, the command, the recipe, the versions.",
                file=sys.stderr,
            )
            raise typer.Exit(BUG) from None

    return guarded
