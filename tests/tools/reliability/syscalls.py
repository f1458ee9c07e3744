"""What a program does to files, as the kernel saw it: a run under `strace`, as a list of calls.

    calls = recorded(["python", ...], folder)     every call that changed something below `folder`

Children and threads are followed. strace needs no rights beyond those of the program itself; where
it is not installed (`possible`), nothing is recorded and whoever asks says so.
"""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

TRACED = (
    *("openat", "?open", "?creat", "write", "pwrite64", "writev", "pwritev", "?pwritev2", "lseek"),
    *("ftruncate", "truncate", "?rename", "renameat", "?renameat2", "?unlink", "unlinkat"),
    *("?mkdir", "mkdirat", "?rmdir", "?link", "linkat", "?symlink", "symlinkat"),
    *("fsync", "fdatasync", "sync", "syncfs", "sendfile", "copy_file_range", "chdir"),
)
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$", re.DOTALL)
_OPEN = re.compile(r"^(\d+) +(.*?)\s*<unfinished \.\.\.>$", re.DOTALL)
_FILE = re.compile(r"^(\w+)<(.*)>$")
_BASE = re.compile(r'iov_base="([^"]*)"')


@dataclass(frozen=True)
class Call:
    """One change. Paths are absolute; `at` is an offset (-1: the end), a size, or nothing."""

    kind: str
    """create, write, truncate, rename, exchange, link, symlink, unlink, mkdir, rmdir, sync."""
    path: str
    other: str = ""
    """The new name of a rename, the second of an exchange, the target of a link."""
    at: int = 0
    data: bytes = b""

    def __str__(self) -> str:
        more = f" -> {self.other}" if self.other else ""
        return f"{self.kind} {self.path}{more}" + (f" ({len(self.data)})" if self.data else "")


def possible() -> bool:
    """Whether programs can be recorded here."""
    return shutil.which("strace") is not None


def recorded(line: list[str], folder: Path, **variables: str) -> list[Call]:
    """The calls of a program that changed something below `folder`, in their order.

    Raises RuntimeError where the program fails.
    """
    with tempfile.TemporaryDirectory() as place:
        log = Path(place) / "log"
        strace = ["strace", "-f", "--seccomp-bpf", "-qq", "-y", "-xx", "-s", str(1 << 28)]
        strace += ["-e", "signal=none", "-e", f"trace={','.join(TRACED)}", "-o", str(log), *line]
        done = subprocess.run(
            strace, cwd=folder, env={**os.environ, **variables},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"{line} ended with {done.returncode}: {done.stderr[-2000:]}")
        with log.open() as lines:
            return list(parsed(lines, folder.resolve()))


def parsed(lines: Iterable[str], folder: Path) -> Iterator[Call]:
    """The calls that a log of strace has, below `folder`."""
    reader = _Reader(f"{folder}/")
    for line in _whole(lines):
        if found := _LINE.match(line):
            process, name, rest, result = found.groups()
            yield from reader.read(process, name, _arguments(rest), int(result))


def _whole(lines: Iterable[str]) -> Iterator[str]:
    """Calls that another thread interrupted are put together, where they ended."""
    begun: dict[str, str] = {}
    for raw in lines:
        line = raw.rstrip("\n")
        if found := _OPEN.match(line):
            begun[found[1]] = found[2]
        elif found := _RESUMED.match(line):
            yield f"{found[1]} {begun.pop(found[1], '')}{found[3]}"
        else:
            yield line


def _arguments(text: str) -> list[str]:
    """Strings are in hexadecimal and have no commas."""
    return [one.strip() for one in text.split(",")]


def _bytes(text: str) -> bytes:
    r"""Of `"\x61\x62"`."""
    return bytes.fromhex(text.strip('"').replace("\\x", ""))


class _Reader:
    """Keeps where each open file is, and where each process stands: a call does not say it."""

    def __init__(self, below: str) -> None:
        self._below = below
        self._at: dict[tuple[str, str], int] = {}
        self._first = self._here = ""
        self._stands: dict[str, str] = {}

    def read(self, process: str, name: str, words: list[str], result: int) -> Iterator[Call]:
        """The changes that one call made; none where it failed or is about other files."""
        self._first = self._first or process
        if result < 0:
            return
        here = self._stands.get(process) or self._stands.get(self._first, self._below)
        words = [f"AT_FDCWD<{_hex(here)}>" if one == "AT_FDCWD" else one for one in words]
        if name == "chdir":
            self._stands[process] = os.path.join(here, os.fsdecode(_bytes(words[0])))
            return
        self._here = f"AT_FDCWD<{_hex(here)}>"
        if name == "sync":
            yield Call("sync", "/")
        elif name in _PATHS:
            yield from self._about_paths(name, words)
        elif name in ("openat", "open", "creat"):
            yield from self._opened(name, words, result)
        elif found := _FILE.match(words[0]):
            path = os.fsdecode(_bytes(found[2]))
            if self._ours(path) or name in ("copy_file_range", "syncfs"):
                yield from self._about_file(name, (found[1], path), words, result)

    def _ours(self, path: str) -> bool:
        return path.startswith(self._below) and not path.endswith(" (deleted)")

    def _opened(self, name: str, words: list[str], result: int) -> Iterator[Call]:
        if name != "openat":
            words = [self._here, *words]
        flags = "O_WRONLY|O_CREAT|O_TRUNC" if name == "creat" else words[2]
        path = _path(words[0], words[1])
        if not self._ours(path) or "O_TMPFILE" in flags or not _writes(flags):
            return
        self._at[str(result), path] = -1 if "O_APPEND" in flags else 0
        if "O_CREAT" in flags:
            yield Call("create", path)
        if "O_TRUNC" in flags:
            yield Call("truncate", path)

    def _about_paths(self, name: str, words: list[str]) -> Iterator[Call]:
        kind, first, second = _PATHS[name]
        path = self._path(words, first)
        other = "" if second is None else self._path(words, second)
        if name.startswith("symlink"):
            path, other = other, os.fsdecode(_bytes(words[0]))
        if not self._ours(path) and not self._ours(other):
            return
        if name == "renameat2" and "EXCHANGE" in words[-1]:
            kind = "exchange"
        if name == "unlinkat" and "AT_REMOVEDIR" in words[-1]:
            kind = "rmdir"
        yield Call(kind, path, other, int(words[1]) if name == "truncate" else 0)

    def _about_file(
        self, name: str, key: tuple[str, str], words: list[str], result: int
    ) -> Iterator[Call]:
        path = key[1]
        if name in ("fsync", "fdatasync", "syncfs"):
            yield Call("sync", "/" if name == "syncfs" else path)
        elif name == "lseek":
            self._at[key] = result
        elif name == "ftruncate":
            yield Call("truncate", path, at=int(words[1]))
        elif name in ("write", "writev"):
            yield Call("write", path, at=self._moved(key, result), data=_data(words)[:result])
        elif name in ("pwrite64", "pwritev", "pwritev2"):
            at = int(words[-1] if name == "pwrite64" else words[-1 if name == "pwritev" else -2])
            yield Call("write", path, at=at, data=_data(words)[:result])
        elif name == "sendfile":
            source = _FILE.match(words[1])
            if result and source:
                data = _copied(os.fsdecode(_bytes(source[2])), words[2], result)
                yield Call("write", path, at=self._moved(key, result), data=data)
        elif name == "copy_file_range" and result:
            target = _FILE.match(words[2])
            if target and self._ours(os.fsdecode(_bytes(target[2]))):
                raise NotImplementedError("a copy by copy_file_range is not recorded")

    def _path(self, words: list[str], place: int) -> str:
        """The path that begins at a place; a negative one has no folder before it."""
        if place < 0:
            return _path(self._here, words[-place - 1])
        return _path(words[place], words[place + 1])

    def _moved(self, key: tuple[str, str], count: int) -> int:
        at = self._at.get(key, 0)
        if at >= 0:
            self._at[key] = at + count
        return at


_PATHS: Mapping[str, tuple[str, int, int | None]] = {
    # the kind, and where both paths begin: at word n, or at word -n - 1 without a folder before it
    "rename": ("rename", -1, -2), "renameat": ("rename", 0, 2), "renameat2": ("rename", 0, 2),
    "unlink": ("unlink", -1, None), "unlinkat": ("unlink", 0, None),
    "mkdir": ("mkdir", -1, None), "mkdirat": ("mkdir", 0, None), "rmdir": ("rmdir", -1, None),
    "link": ("link", -1, -2), "linkat": ("link", 0, 2),
    "symlink": ("symlink", -1, -2), "symlinkat": ("symlink", -1, 1),
    "truncate": ("truncate", -1, None),
}  # fmt: skip


def _hex(text: str) -> str:
    return "".join(f"\\x{one:02x}" for one in os.fsencode(text))


def _path(folder: str, name: str) -> str:
    """Absolute: `folder` is an open one, as strace shows it with its path."""
    text = os.fsdecode(_bytes(name))
    found = _FILE.match(folder)
    return os.path.normpath(os.path.join(os.fsdecode(_bytes(found[2])) if found else "/", text))


def _writes(flags: str) -> bool:
    return "O_WRONLY" in flags or "O_RDWR" in flags


def _data(words: list[str]) -> bytes:
    several = _BASE.findall(",".join(words[1:-1]))
    return b"".join(map(_bytes, several)) if several else _bytes(words[1])


def _copied(source: str, offset: str, count: int) -> bytes:
    """What sendfile took: of a file that is there still."""
    at = int(re.sub(r"\D.*", "", offset.strip("[")) or 0)
    with open(source, "rb") as file:
        file.seek(at)
        return file.read(count)
