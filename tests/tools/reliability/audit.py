"""What a Python process runs, told by its own audit events. Standard library only.

A copy of this file named sitecustomize.py, in a folder of PYTHONPATH, installs the hook in every
Python process before anything else runs, in children too. Code below AUDIT_FOLDER that is compiled,
executed, loaded as a library or started as a program makes a line of AUDIT_LOG.
"""

import os
import sys
from typing import Any

FOLDER, LOG = "AUDIT_FOLDER", "AUDIT_LOG"


def install(folder: str, log: str) -> None:
    """Watch from here on, until the process ends."""
    below = os.path.realpath(folder) + os.sep
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    started = os.getcwd()

    def inside(name: Any) -> str:
        """The path, where it is one below the folder."""
        if isinstance(name, bytes):
            name = os.fsdecode(name)
        if not isinstance(name, str) or not name or name.startswith("<"):
            return ""
        path = os.path.normpath(os.path.join(started, name))
        return path if path.startswith(below) and os.path.lexists(path) else ""

    def hook(event: str, args: tuple[Any, ...]) -> None:
        names: tuple[Any, ...] = ()
        if event == "exec":
            names = (getattr(args[0], "co_filename", None),)
        elif event in ("compile", "import"):
            names = (args[1],)
        elif event in ("ctypes.dlopen", "os.system"):
            names = (args[0],)
        elif event in ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.spawn"):
            words = args[1] if isinstance(args[1], list | tuple) else (args[1],)
            names = (args[0], *words[:2])
            names = tuple(one for one in names if one in words[1:] or os.sep in str(one))
        for name in names:
            if path := inside(name):
                os.write(file, f"{event} {path}\n".encode(errors="replace"))

    sys.addaudithook(hook)


if FOLDER in os.environ and LOG in os.environ:
    install(os.environ[FOLDER], os.environ[LOG])
