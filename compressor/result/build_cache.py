"""The work folder of a build: what a stage that takes long made, so that a killed build goes on.

    build/.net.work/repair.<key>        one file a result, under a digest of everything it came from

It lies beside the output, and is there only while the build is not complete: a kill or an interrupt
leaves it, success and an error take it away. Keys hold the network, its tensors, the options of the
stage, the spec of the passes before it (see `pass_log`), our source and the versions, so what is
found is what would be computed again. Capture and coupling are always made anew, and so is a plan
by time, or by a loss of the user's. The library keeps nothing.

The folder is private, and another one is refused (see `ours`). A release that is encrypted has its
results encrypted too, by the same key. What is found is looked at again by whoever asked for it
(see `recalled`): a file in a folder is no proof that this build made it.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from compressor.base.messages import reason
from compressor.passes.base.errors import CompressError, UsageError, WrongError
from compressor.storage import durable, owned_folders, sealing
from compressor.storage.files import open_file, write_file
from compressor.storage.manifest import source_digest

if TYPE_CHECKING:
    from compressor.config import Recipe

STAGES = (
    *("load", "capture", "couple", "sparse", "measure", "profile", "plan", "shrink", "prove"),
    *("repair", "distill", "finetune", "export", "parity", "simplify", "evaluate", "race", "write"),
)
"""In the order in which they run; some only where they were asked for."""


def stages_of(recipe: "Recipe") -> tuple[str, ...]:
    """The stages that a build of this recipe has."""
    has_data = recipe.data is not None
    where = {
        "sparse": recipe.sparse_train > 0,
        "measure": has_data,
        "profile": recipe.latency is not None,
        "repair": has_data,
        "distill": recipe.distill > 0,
        "finetune": recipe.finetune > 0 or recipe.train_with is not None,
        "evaluate": bool(recipe.evaluate),
        "race": recipe.race,
    }
    return tuple(stage for stage in STAGES if where.get(stage, True))


_PACKAGES = (
    "torch",
    "torch-pruning",
    "onnx",
    "onnxscript",
    "onnxsim",
    "onnxruntime",
    "numpy",
    "safetensors",
)


_NOTHING_KEPT = (
    "Nothing is kept of this build for the next one to go on from, because a new folder beside the "
    "output is not private:"
)
_RELEASE = b"work of a build\0"
_KIND = (sealing.MAGIC, _RELEASE)
"""Tells encrypted results from the files of a release."""


class BuildCache:
    """Results by stage and key. `start`: the first stage whose results are not taken from here."""

    def __init__(
        self, folder: Path | None = None, start: str | None = None, key: bytes | None = None
    ) -> None:
        self.folder, self.start, self._key = folder, start, key
        self.note = ""
        """Why nothing is kept, where the disk has no private folders."""

    @classmethod
    def of(cls, output: Path, start: str | None = None, key: bytes | None = None) -> "BuildCache":
        """The work folder that belongs to an output; results are encrypted where there is a key."""
        return cls(output.parent / f".{output.name}.work", start, key)

    def once(
        self,
        stage: str,
        parts: Mapping[str, Any],
        make: Callable[[], bytes],
        look: Callable[[bytes], object] | None = None,
    ) -> bytes:
        """What `make` gives, or gave for the same parts. `look` raises where that is not right."""
        if self.folder is None:
            return make()
        self.check()
        path = self.folder / f"{stage}.{_key(stage, parts)}"
        if (found := self._recalled(stage, path)) is not None:
            if look is not None:
                recalled(stage, lambda: look(found))
            return found
        made = make()
        self._keep(path, made)
        return made

    def check(self) -> None:
        """Raise UsageError where the folder is somebody else's, or others may write to it."""
        if self.folder is None or not os.path.lexists(self.folder):
            return
        if why := owned_folders.why_not(self.folder):
            raise UsageError(
                f"{self.folder} was not made by a build here",
                why=f"{why}; what is in it would be released",
                hint="delete it or move it away, or name another directory with -o",
            )

    def _keep(self, path: Path, made: bytes) -> None:
        self._begin()
        if self.folder is None:
            return
        data = hashlib.sha256(made).digest() + made
        if self._key is not None:
            data = b"".join(sealing.sealed(data, self._key, path.name, _RELEASE))
        write_file(path, data, 0o600)

    def _begin(self) -> None:
        """Make the folder, marked as ours before it has its name: several processes may do so."""
        assert self.folder is not None
        if os.path.lexists(self.folder):
            return
        try:
            durable.made(self.folder.parent)
            partial = durable.beside(self.folder, ".partial")
            owned_folders.make(partial)
            if why := owned_folders.why_not(partial):
                shutil.rmtree(partial)
                self.folder, self.note = None, f"{_NOTHING_KEPT} {why}."
                return
            try:
                durable.move(partial, self.folder)
            except OSError:  # another process was faster, or the disk is full
                shutil.rmtree(partial)
                if not self.folder.is_dir():
                    raise
        except OSError as error:
            raise UsageError(
                f"cannot write {self.folder}",
                why=error.strerror or str(error),
                hint="name a directory you may write to with -o",
            ) from error
        self.check()

    def _recalled(self, stage: str, path: Path) -> bytes | None:
        """None where it has to be made: it is not there, is torn, or is not wanted."""
        if self.start is not None and STAGES.index(stage) >= STAGES.index(self.start):
            return None
        try:
            with open_file(path) as file:
                why, data = owned_folders.why_open(os.fstat(file.fileno())), file.read()
        except FileNotFoundError:
            return None
        except OSError as error:
            why = error.strerror or str(error)
        if why:
            raise UsageError(
                f"{path} was not made by a build here",
                why=why,
                hint=f"delete {path.parent}, and build again",
            )
        try:
            if self._key is not None:
                data = b"".join(sealing.decrypted(BytesIO(data), self._key, path.name, _KIND))
        except WrongError:  # another key, or torn
            return None
        return data[32:] if hashlib.sha256(data[32:]).digest() == data[:32] else None

    def once_json(
        self,
        stage: str,
        parts: Mapping[str, Any],
        make: Callable[[], Any],
        look: Callable[[Any], object] | None = None,
    ) -> Any:
        """The same for plain values."""
        plain = None if look is None else lambda data: look(json.loads(data))
        return json.loads(self.once(stage, parts, lambda: json.dumps(make()).encode(), plain))

    def forget(self) -> None:
        """Delete all of it, where it is ours."""
        if self.folder is not None and owned_folders.is_ours(self.folder):
            shutil.rmtree(self.folder, ignore_errors=True)

    def there(self) -> dict[str, int]:
        """Bytes of the results that are kept, by stage."""
        found: dict[str, int] = {}
        if self.folder is not None and owned_folders.is_ours(self.folder):
            for path in self.folder.iterdir():
                stage = path.name.partition(".")[0]
                if stage in STAGES:
                    found[stage] = found.get(stage, 0) + path.stat().st_size
        return {stage: found[stage] for stage in STAGES if stage in found}


def recalled(stage: str, look: Callable[[], Any]) -> Any:
    """What `look` makes of a result that was kept. Raises WrongError where that is no result."""
    try:
        return look()
    except CompressError as error:
        refuse(stage, str(error))
    except (
        *(ValueError, LookupError, TypeError, AttributeError, ArithmeticError),
        RuntimeError,  # torch's, over numbers that no tensor holds
    ) as error:
        refuse(stage, reason(error))


def refuse(stage: str, why: str) -> NoReturn:
    """Raise for a result that was kept and is not what this build makes."""
    raise WrongError(
        f"what was kept of '{stage}' is not what this build makes",
        why=why,
        hint="somebody may have changed the work folder; it is deleted: build again",
    )


def _key(stage: str, parts: Mapping[str, Any]) -> str:
    versions = {name: _version(name) for name in _PACKAGES}
    text = json.dumps([stage, parts, versions, source_digest()], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


# ---------------------------------------------------------------------------- what goes in


def digest(*values: Any) -> str:
    """Of tensors in any structure, bytes and plain values."""
    from torch import Tensor
    from torch.utils import _pytree as pytree

    found = hashlib.sha256()
    for leaf in pytree.tree_leaves(values):
        if isinstance(leaf, Tensor):
            plain = leaf.detach().cpu().contiguous()
            found.update(f"{plain.dtype}{list(plain.shape)}".encode())
            found.update(plain.reshape(-1).view(_byte()).numpy().data)
        elif isinstance(leaf, bytes):
            found.update(leaf)
        else:
            found.update(repr(leaf).encode())
    return found.hexdigest()


def _byte() -> Any:
    import torch

    return torch.uint8


def of_program(program: Any) -> str:
    """A digest of a network: its graph, its tensors and its example inputs."""
    tensors = dict(sorted(program.tensors().items()))
    axes = {place: dict(one) for place, one in program.axes.items()}
    return digest(
        program.module.graph.python_code("self").src,
        list(tensors),
        list(tensors.values()),
        program.args,
        dict(program.kwargs),
        repr((program.batch, axes)),
    )
