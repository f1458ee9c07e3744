"""Everything that writes, once: what is recorded and then cut off by power failures.

    python -m tests.tools.reliability.writers FOLDER [KIND ...]

Each kind works in FOLDER/KIND. What it needs is there before it makes the folder `BEGIN`; what
it writes from then on is what a failure may tear. Outputs are those in `OUTPUTS`.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

BEGIN = ".begin"
RELEASE, FILE, FOLDERS = "release", "file", "folders"
"""A release; a single file; a folder in which each visible folder is whole."""

SINGLE = {
    "plan.json": "plan net.py --macs 0.5 --quiet -o plan.json",
    "recipe.toml": "init net.py --force -o recipe.toml",
    "saved.toml": "build net.py --macs 0.5 --save-config saved.toml --force",
    "aligned.onnx": "align model.onnx --seconds 0.1 --force --quiet -o aligned.onnx",
    "groups.json": "sensitivity net.py --share 0.5 --quiet -o groups.json",
    "device.json": "profile net.py --seconds 0 --quiet -o device.json",
}
"""Commands that write one file."""
CHECKED = {"junit": "junit.xml", "markdown": "notes.md", "history": "history.json"}
CHECK = "check model.onnx --baseline model.onnx --seconds 0.1 --max-regression 900% --quiet "
CHECK += " ".join(f"--{option} {file}" for option, file in CHECKED.items())
_FILES = (*SINGLE, *CHECKED.values())

OUTPUTS: Mapping[str, Mapping[str, str]] = {
    "new": {"out": RELEASE},
    "replaced": {"out": RELEASE},
    "sealed": {"out": RELEASE},
    "files": {f"{place}/{one}": FILE for place in ("fresh", "over") for one in _FILES},
    "shards": {"small": RELEASE},
    "sweep": {"front/0.7": RELEASE, "front/0.5": RELEASE,
              "front/front.json": FILE, "front/front.html": FILE},
    "training": {"out": RELEASE, "kept/distill": FOLDERS},
}  # fmt: skip
"""By kind, what must be whole."""


def command(line: str) -> None:
    """One of the program, in this process. Raises RuntimeError where it does not end with 0."""
    from compressor.cli.app import app

    sys.argv = ["compressor", *line.split()]
    if code := app(line.split(), standalone_mode=False):
        raise RuntimeError(f"{line}: {code}")


def _begin() -> None:
    os.mkdir(BEGIN)


_BUILD = "build net.py --bench-seconds 0.1 --allow-slower --quiet -o out"


def _new() -> None:
    _begin()
    command(f"{_BUILD} --macs 0.5")


def _replaced() -> None:
    command(f"{_BUILD} --macs 0.7")
    _begin()
    command(f"{_BUILD} --macs 0.5 --force")


def _sealed() -> None:
    keys()
    sealed = f"{_BUILD} --encrypt-key secret --sign key.pem"
    command(f"{sealed} --macs 0.7")
    _begin()
    command(f"{sealed} --macs 0.5 --force")


def keys() -> None:
    """A key to encrypt with, and a pair to sign with, in the present folder."""
    from cryptography.hazmat.primitives import serialization as forms
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    Path("secret").write_bytes(bytes(range(32)))
    key = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
    pem, plain = forms.Encoding.PEM, forms.PrivateFormat.PKCS8
    Path("key.pem").write_bytes(key.private_bytes(pem, plain, forms.NoEncryption()))
    public = key.public_key().public_bytes(pem, forms.PublicFormat.SubjectPublicKeyInfo)
    Path("key.pub").write_bytes(public)


def _files() -> None:
    for place in ("fresh", "over"):
        Path(place).mkdir()
        _here(Path(place))
        onnx(Path(place, "model.onnx"))
    for name in _FILES:
        Path("over", name).write_text("earlier\n")
    Path("over/device.json").unlink()  # another table is added to, and what is none is refused
    os.chdir("over")
    command(SINGLE["device.json"])
    os.chdir("..")
    _begin()
    for place in ("fresh", "over"):
        os.chdir(place)
        for line in (*SINGLE.values(), CHECK):
            command(line)
        os.chdir("..")


def _shards() -> None:
    import torch
    from safetensors.torch import save_file

    command("plan net.py --macs 0.5 --quiet -o plan.json")
    sys.path.insert(0, ".")
    from net import load_model  # type: ignore[import-not-found]

    save_file({n: torch.clone(t) for n, t in load_model().state_dict().items()}, "w.safetensors")
    _begin()
    command("shards plan.json w.safetensors --shard-bytes 6000 --quiet -o small")


def _sweep() -> None:
    """Of MACs: a front of times would be measured for minutes, and written in the same way."""
    from compressor.config import Recipe
    from compressor.latency.sweep import one_by_one, sweep
    from compressor.pipeline.build import build
    from compressor.process.progress import Watch

    _begin()
    asked = {"model": "net.py", "latency": "0.7,0.5", "output": Path("front"),
             "bench_seconds": 0.1, "allow_slower": True}  # fmt: skip

    def by_macs(one: Recipe) -> None:
        assert one.latency is not None
        build(one.model_copy(update={"latency": None, "macs": float(one.latency)}), Watch())

    sweep(Recipe.of(**asked), one_by_one(by_macs))


def _training() -> None:
    _begin()
    command(f"{_BUILD} --macs 0.5 --distill 3 --checkpoints kept")


KINDS: Mapping[str, Callable[[], None]] = {
    "new": _new,
    "replaced": _replaced,
    "sealed": _sealed,
    "files": _files,
    "shards": _shards,
    "sweep": _sweep,
    "training": _training,
}


def onnx(path: Path) -> None:
    """A small ONNX model."""
    from tests.tools.reliability.readers import two_products

    path.write_bytes(two_products())


def _here(folder: Path) -> None:
    from tests.tools.reliability.builds import NET

    (folder / "net.py").write_text(NET)


def main(root: Path, kinds: list[str]) -> None:
    for kind in kinds:
        folder = root / kind
        folder.mkdir()
        _here(folder)
        os.chdir(folder)
        KINDS[kind]()
        os.chdir(root)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), sys.argv[2:] or list(KINDS))
