"""A disk that loses power: what may be on it afterwards, after a recorded sequence of calls.

    disk = Disk.of(tree)                 what was there, and durable, before
    history = History(disk, calls)       the calls, as changes of files and of folders
    tree = history.after(point, model, random)      what a failure after `point` calls may leave

A file's data are durable after fsync of the file, a folder's entries (create, rename, remove) after
fsync of that folder; each change of entries is atomic, also where it is of two folders. What is not
durable at the failure survives or not, by one of two models:

    ordered   a journal, as ext4's (data=ordered): changes of entries survive in their order, up to
              one; any fsync writes the journal so far; a file that took the place of another one by
              a rename has its data; other files have a first part of their writes
    strict    POSIX and no more: any of the changes survives without the others, and of a write any
              of its pages; where a file got longer, zeros take the place of what was lost
"""

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.tools.reliability.syscalls import Call

PAGE = 4096
ORDERED, STRICT = "ordered", "strict"
MODELS = (ORDERED, STRICT)

Tree = Mapping[str, Any]
"""By name: the bytes of a file, the tree of a folder, the target of a link."""


@dataclass
class File:
    data: bytearray = field(default_factory=bytearray)


@dataclass
class Folder:
    entries: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    target: str


@dataclass(frozen=True)
class Data:
    """A write to a file, or a new size of it."""

    inode: int
    at: int
    data: bytes | None
    """None: the file has `at` bytes from here on."""
    call: Call


@dataclass(frozen=True)
class Entries:
    """A change of entries of folders: (folder, name, what it names from here on)."""

    changes: tuple[tuple[int, str, int | None], ...]
    replaces: int | None
    """The file that took the place of another one."""
    call: Call


@dataclass(frozen=True)
class Synced:
    """What was written to a file or folder is durable; None: all of everything."""

    inode: int | None


Step = Data | Entries | Synced


class Disk:
    """Files and folders by number; 0 is the root."""

    def __init__(self) -> None:
        self.inodes: dict[int, File | Folder | Link] = {0: Folder()}

    @classmethod
    def of(cls, tree: Tree) -> "Disk":
        """A disk that has this."""
        disk = cls()
        disk._fill(0, tree)
        return disk

    def _fill(self, folder: int, tree: Tree) -> None:
        for name, one in tree.items():
            made: File | Folder | Link = Folder()
            if isinstance(one, bytes):
                made = File(bytearray(one))
            elif isinstance(one, str):
                made = Link(one)
            number = self.add(made)
            self.folder(folder).entries[name] = number
            if isinstance(one, Mapping):
                self._fill(number, one)

    def copy(self) -> "Disk":
        found = Disk()
        for number, one in self.inodes.items():
            if isinstance(one, File):
                found.inodes[number] = File(bytearray(one.data))
            elif isinstance(one, Folder):
                found.inodes[number] = Folder(dict(one.entries))
            else:
                found.inodes[number] = one
        return found

    def add(self, made: "File | Folder | Link") -> int:
        number = len(self.inodes)
        self.inodes[number] = made
        return number

    def folder(self, number: int) -> Folder:
        found = self.inodes[number]
        assert isinstance(found, Folder), f"{number} is no folder"
        return found

    def file(self, number: int) -> File:
        found = self.inodes[number]
        assert isinstance(found, File), f"{number} is no file"
        return found

    def find(self, path: str) -> int | None:
        """What a path names."""
        number = 0
        for name in filter(None, path.split("/")):
            one = self.inodes[number]
            if not isinstance(one, Folder) or name not in one.entries:
                return None
            number = one.entries[name]
        return number

    def apply(self, step: Step) -> None:
        """As on a disk that loses nothing."""
        if isinstance(step, Entries):
            for folder, name, number in step.changes:
                if number is None:
                    self.folder(folder).entries.pop(name, None)
                else:
                    self.folder(folder).entries[name] = number
        elif isinstance(step, Data):
            data = self.file(step.inode).data
            end = step.at + len(step.data or b"")
            if step.data is None:
                del data[step.at :]
            data.extend(bytes(max(0, end - len(data))))
            if step.data is not None:
                data[step.at : end] = step.data

    def tree(self, number: int = 0) -> Any:
        """What is below a folder, or the content of a file."""
        one = self.inodes[number]
        if isinstance(one, Folder):
            return {name: self.tree(inside) for name, inside in sorted(one.entries.items())}
        return one.target if isinstance(one, Link) else bytes(one.data)


class History:
    """A recorded sequence as steps; `point` counts them."""

    def __init__(self, before: Disk, calls: Iterable[Call], root: str) -> None:
        """`root` is the folder of the recording that is the disk's root."""
        self.before, self.root = before.copy(), root.rstrip("/")
        self.now = before.copy()
        """After all that was recorded."""
        self.steps: list[Step] = []
        self.bound: list[tuple[int, str, Any]] = []
        """(point, path, tree): what a rename or a link gave a name."""
        for call in calls:
            for step in self._steps(call):
                self.now.apply(step)
                self.steps.append(step)
                if isinstance(step, Entries) and call.kind in ("rename", "exchange", "link"):
                    self._note(call)

    def _note(self, call: Call) -> None:
        for path in map(self._inside, (call.path, call.other)):
            if (number := self.now.find(path)) is not None:
                self.bound.append((len(self.steps), path, self.now.tree(number)))

    def _inside(self, path: str) -> str:
        if path != self.root and not path.startswith(f"{self.root}/"):
            raise ValueError(f"{path} is outside of {self.root}")
        return path[len(self.root) :].strip("/")

    def _place(self, path: str) -> tuple[int, str, int | None]:
        """The folder of a path, its name there, and what it names now."""
        folder, _, name = self._inside(path).rpartition("/")
        number = self.now.find(folder)
        assert number is not None, f"there is no folder of {path}"
        return number, name, self.now.folder(number).entries.get(name)

    def _steps(self, call: Call) -> list[Step]:
        if call.kind == "sync":
            number = None if call.path == "/" else self.now.find(self._inside(call.path))
            return [Synced(number)]
        folder, name, number = self._place(call.path)
        match call.kind:
            case "write" | "truncate":
                assert number is not None, f"there is no {call.path}"
                at = len(self.now.file(number).data) if call.at < 0 else call.at
                return [Data(number, at, call.data if call.kind == "write" else None, call)]
            case "create" | "mkdir" | "symlink":
                if number is not None:  # opened, not made
                    return []
                made = {"create": File, "mkdir": Folder}.get(call.kind, lambda: Link(call.other))
                return [Entries(((folder, name, self._make(made())),), None, call)]
            case "unlink" | "rmdir":
                return [Entries(((folder, name, None),), None, call)]
        there, new, second = self._place(call.other)
        match call.kind:
            case "link":
                return [Entries(((there, new, number),), None, call)]
            case "rename":
                changes = ((folder, name, None), (there, new, number))
                return [Entries(changes, number if second is not None else None, call)]
            case "exchange":
                return [Entries(((folder, name, second), (there, new, number)), None, call)]
        raise NotImplementedError(f"{call} is not modelled")

    def _make(self, made: File | Folder | Link) -> int:
        """A new file; it is on the disk before too, without a name."""
        number = self.now.add(made)
        empty: File | Folder | Link = made
        if not isinstance(made, Link):
            empty = type(made)()
        self.before.inodes[number] = empty
        return number

    # ------------------------------------------------------------------------ failures

    def after(self, point: int, model: str, rng: random.Random) -> "Left":
        """What a power failure after `point` steps may leave on the disk."""
        if model not in MODELS:
            raise ValueError(f"there is no model {model!r}")
        done = self.steps[:point]
        durable = _durable(done)
        kept = (_in_order if model == ORDERED else _any)(done, durable, rng)
        disk, lost = self.before.copy(), []
        for index, step in enumerate(done):
            if isinstance(step, Synced):
                continue
            if (survived := kept.get(index)) is None:
                lost.append(index)
            else:
                for part in survived:
                    disk.apply(part)
        calls = [str(step.call) for index in lost if not isinstance(step := done[index], Synced)]
        return Left(disk, tuple(one.replace(f"{self.root}/", "") for one in calls))


@dataclass(frozen=True)
class Left:
    """A disk after a failure, and the calls that left nothing on it."""

    disk: Disk
    lost: tuple[str, ...]


def _durable(done: Sequence[Step]) -> set[int]:
    """The steps that have to survive: those that an fsync came after."""
    found: set[int] = set()
    pending: dict[int, list[int]] = {}
    for index, step in enumerate(done):
        if isinstance(step, Data):
            pending.setdefault(step.inode, []).append(index)
        elif isinstance(step, Entries):
            for folder in {one[0] for one in step.changes}:
                pending.setdefault(folder, []).append(index)
        elif step.inode is None:
            found.update(*pending.values())
            pending.clear()
        else:
            found.update(pending.pop(step.inode, ()))
    return found


Kept = dict[int, list[Data | Entries]]
"""By step, what of it survives; nothing of a step that is not here."""


def _in_order(done: Sequence[Step], durable: set[int], rng: random.Random) -> Kept:
    written = max((i for i, step in enumerate(done) if isinstance(step, Synced)), default=0)
    last = rng.randint(written, len(done))
    kept: Kept = {}
    whole: dict[int, int] = {}
    """By file: up to this step it has its data, whatever comes."""
    for index, step in enumerate(done[:last]):
        if isinstance(step, Entries):
            kept[index] = [step]
            if step.replaces is not None:
                whole[step.replaces] = index
    parts: dict[int, int] = {}
    for index, step in enumerate(done):
        if isinstance(step, Data):
            if step.inode not in parts:
                parts[step.inode] = rng.choice((0, len(done), rng.randint(0, len(done))))
            sure = index in durable or index < whole.get(step.inode, -1)
            if sure or index < parts[step.inode]:
                kept[index] = [step]
    return kept


def _any(done: Sequence[Step], durable: set[int], rng: random.Random) -> Kept:
    """One chance for all entries, one for all data: few lost, half of them, or nearly all."""
    chances = (0.0, 0.1, 0.5, 0.9, 1.0)
    entries, data = rng.choice(chances), rng.choice(chances)
    kept: Kept = {}
    for index, step in enumerate(done):
        if isinstance(step, Synced):
            continue
        if index in durable:
            kept[index] = [step]
        elif isinstance(step, Entries):
            if rng.random() < entries:
                kept[index] = [step]
        elif step.data is None:
            if rng.random() < data:
                kept[index] = [step]
        elif parts := _pages(step, data, rng):
            kept[index] = parts
    return kept


def _pages(step: Data, chance: float, rng: random.Random) -> list[Data | Entries]:
    """Of a write, the pages that reached the disk; what came before a kept one is zeros, if new."""
    assert step.data is not None
    found: list[Data | Entries] = []
    start = step.at
    while start < step.at + len(step.data):
        end = min(step.at + len(step.data), (start // PAGE + 1) * PAGE)
        if rng.random() < chance:
            part = step.data[start - step.at : end - step.at]
            found.append(Data(step.inode, start, part, step.call))
        start = end
    return found
