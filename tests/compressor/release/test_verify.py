"""A release is what it was when it was made, or `verify` says what is not."""

import json
import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from compressor.passes import Budget
from compressor.passes.base.errors import UsageError, WrongError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

import compressor
from compressor import compress
from compressor.onnx import model_files
from compressor.onnx.sessions import opened, options
from compressor.pipeline.variant_race import keep_fastest
from compressor.release import reader
from compressor.release.destination import Place
from compressor.release.verify import verify
from compressor.release.writing import _write_onnx
from compressor.storage import files, manifest, sealing
from compressor.storage.sealing import encrypt
from tests.compressor import samples
from tests.compressor.conftest import ROOT
from tests.compressor.encrypting import decrypted, seal


@pytest.fixture
def copy(release, tmp_path: Path) -> Path:
    """A release of its own, to be spoilt."""
    return Path(shutil.copytree(release.folder, tmp_path / "copy"))


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """a.pem and b.pem with their public halves, and a key to encrypt with."""
    folder = tmp_path_factory.mktemp("keys")
    pem, none = serialization.Encoding.PEM, serialization.NoEncryption()
    for name in "ab":
        key = Ed25519PrivateKey.generate()
        private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, none)
        public = key.public_key().public_bytes(pem, serialization.PublicFormat.SubjectPublicKeyInfo)
        (folder / f"{name}.pem").write_bytes(private)
        (folder / f"{name}.pub").write_bytes(public)
    (folder / "aes").write_bytes(bytes(range(32)))
    return folder


# ---------------------------------------------------------------------------- as it was made


def test_a_release_is_verified_without_torch(release):
    code = (
        "import sys; from compressor.__main__ import main\n"
        f"sys.argv = ['compressor', 'verify', {str(release.folder)!r}]\n"
        "try: main()\n"
        "except SystemExit as end: print('torch' in sys.modules, end.code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "False 0", done.stderr
    assert "parity of example.safetensors: " in done.stdout


def test_the_manifest_names_every_file_and_what_made_it(release):
    found = manifest.read(release.folder)
    names = {path.relative_to(release.folder).as_posix() for path in release.folder.rglob("*")}
    assert found["files"].keys() == names - {"manifest.json", "parity"}
    assert {name for name, one in found["files"].items() if one["measured"]} == manifest.MEASURED
    assert found["versions"]["torch"] == torch.__version__
    assert (found["seed"], found["threads"]["race"]) == (0, 1)
    assert len(found["source"]) == 64


def test_nothing_in_a_release_names_the_build_machine(release, project):
    for name in manifest.read(release.folder)["files"]:
        data = (release.folder / name).read_bytes()
        for place in (ROOT, project, release.folder.parent, sys.prefix, "site-packages"):
            assert str(place).encode() not in data, (name, place)


def test_the_same_inputs_give_the_same_bytes_on_one_thread_and_on_two(release, tmp_path):
    """In the form that won the race of the first build: the second has none."""
    race = json.loads((release.folder / "report.json").read_text())["latency"]
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        built = compress(
            samples.net(), samples.example_inputs(), budget=Budget(macs=0.5), race=False
        )
        keep_fastest(built, race)
        built.save(tmp_path / "again")
    finally:
        torch.set_num_threads(before)
    ours, theirs = (manifest.read(one)["files"] for one in (tmp_path / "again", release.folder))
    for name, one in ours.items():
        if not one["measured"] and name != "recipe.toml":  # `built` comes from the library
            assert one == theirs[name], name


# ---------------------------------------------------------------------------- as it was not made


@settings(
    max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_one_flipped_bit_anywhere_is_found(copy, data):
    names = sorted(path for path in copy.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(names))
    whole = path.read_bytes()
    at = data.draw(st.integers(0, 8 * len(whole) - 1))
    changed = bytearray(whole)
    changed[at // 8] ^= 1 << at % 8
    path.write_bytes(changed)
    try:
        if path.name == "manifest.json":
            with pytest.raises((UsageError, WrongError)):
                sealed_by_content(copy, whole)
        else:
            with pytest.raises(WrongError, match="was changed"):
                verify(copy)
    finally:
        path.write_bytes(whole)


def sealed_by_content(folder: Path, original: bytes) -> None:
    """A bit of the manifest itself: facts beside the digests are covered by the signature only."""
    verify(folder)
    found, wanted = json.loads((folder / "manifest.json").read_bytes()), json.loads(original)
    assert (found["files"], found["content"]) == (wanted["files"], wanted["content"])
    raise WrongError("only a signature covers this")


def test_every_bit_of_a_signed_manifest_counts(copy, keys):
    sealing.sign(copy, keys / "a.pem")
    verify(copy, keys / "a.pub")
    whole = (copy / "manifest.json").read_bytes()
    rng = random.Random(0)
    for _ in range(50):
        at = rng.randrange(8 * len(whole))
        changed = bytearray(whole)
        changed[at // 8] ^= 1 << at % 8
        (copy / "manifest.json").write_bytes(changed)
        with pytest.raises(WrongError):
            verify(copy, keys / "a.pub")
    (copy / "manifest.json").write_bytes(whole)
    signature = bytearray((copy / "manifest.sig").read_bytes())
    signature[5] ^= 4
    (copy / "manifest.sig").write_bytes(signature)
    with pytest.raises(WrongError, match="not by this key"):
        verify(copy, keys / "a.pub")


def test_a_swapped_plan_is_found(copy):
    log = json.loads((copy / "passes.json").read_text())
    log["passes"][1]["metadata"]["channels"].reverse()
    (copy / "passes.json").write_text(json.dumps(log, indent=1) + "\n")
    with pytest.raises(WrongError, match=r"passes\.json was changed"):
        verify(copy)


@pytest.mark.parametrize("name", ["model.onnx", "parity/random.safetensors", "summary.md"])
def test_a_missing_file_is_found(name, copy):
    (copy / name).unlink()
    with pytest.raises(WrongError, match="is not complete"):
        verify(copy)


def test_an_added_file_is_found(copy):
    (copy / "parity" / "more.txt").write_text("")
    with pytest.raises(WrongError, match="does not name"):
        verify(copy)


@pytest.mark.skipif(os.name == "nt", reason="links need a permission there")
def test_a_link_is_refused(copy, tmp_path):
    shutil.move(copy / "model.onnx", tmp_path / "model.onnx")
    (copy / "model.onnx").symlink_to(tmp_path / "model.onnx")
    with pytest.raises(UsageError, match="is a link"):
        verify(copy)


@pytest.mark.parametrize(
    "name",
    ["../net.py", "/etc/passwd", "a/../../b", "", "a//b", "./a", "a/", "a\nb", "manifest.sig"],
)
def test_a_manifest_that_names_a_file_elsewhere_is_refused(name, copy):
    found = json.loads((copy / "manifest.json").read_text())
    found["files"][name] = {"sha256": "0" * 64, "bytes": 1, "measured": True}
    (copy / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(WrongError, match="is not a manifest"):
        verify(copy)


def test_a_model_that_gives_something_else_is_found(copy):
    """All digests fit: only running it shows that it is another model."""
    model = onnx.load(copy / "model.onnx")
    bias = next(one for one in model.graph.initializer if list(one.dims) == [10])
    values = onnx.numpy_helper.to_array(bias) + 1
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, copy / "model.onnx")
    restated(copy)
    with pytest.raises(WrongError, match="gives something else"):
        verify(copy)


# ---------------------------------------------------------------------------- what is no file


@pytest.mark.skipif(os.name == "nt", reason="made of what POSIX has")
@pytest.mark.parametrize("kind", ["folder", "deep folder", "pipe", "socket", "link", "loose link"])
@pytest.mark.parametrize("encrypted", [False, True])
def test_what_no_manifest_can_name_is_refused(kind, encrypted, copy, keys, monkeypatch):
    key = sealing.read_key(keys / "aes") if encrypted else None
    if key is not None:
        seal(copy, key)
    monkeypatch.chdir(copy)  # names of sockets are short
    path = Path("parity", "more.enc")
    if kind == "folder":
        path.mkdir()
    elif kind == "deep folder":
        (path / "deeper" / "deepest").mkdir(parents=True)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(str(path))
    else:
        path.symlink_to("nowhere" if kind == "loose link" else "example.safetensors")
    with pytest.raises((WrongError, UsageError)) as caught:
        verify(copy, None, key)
    assert "more.enc" in str(caught.value)
    with pytest.raises((WrongError, UsageError)):
        compressor.load(copy, samples.net(), key=key)


@pytest.mark.skipif(os.name == "nt", reason="made of what POSIX has")
@pytest.mark.parametrize("name", ["manifest.json", "manifest.sig", "model.onnx"])
def test_a_pipe_in_the_place_of_a_file_is_refused_and_not_waited_for(name, copy, keys):
    sealing.sign(copy, keys / "a.pem")
    (copy / name).unlink()
    os.mkfifo(copy / name)
    with pytest.raises((WrongError, UsageError)):
        verify(copy, keys / "a.pub")


def test_what_is_changed_after_it_was_checked_changes_nothing(copy, monkeypatch):
    """Every file is read once: ONNX Runtime gets the bytes that the manifest was compared with."""
    opened: list[str] = []
    really = files.blocks

    def read_and_spoilt(path, *more):
        opened.append(path.name)
        yield from really(path, *more)
        path.write_bytes(b"another")

    monkeypatch.setattr(reader, "blocks", read_and_spoilt)
    names = [path.name for path in copy.rglob("*") if path.is_file()]
    assert verify(copy).files == len(names) - 1
    assert sorted(opened) == sorted(names)


def test_tensors_beside_the_model_are_read_once_too(copy, monkeypatch):
    restated(copy, apart=True)
    data = (copy / "model.onnx.data").read_bytes()
    checked = reader.Arrived.all

    def spoilt_afterwards(self, keep):
        found = checked(self, keep)
        (copy / "model.onnx.data").write_bytes(bytes(len(data)))
        return found

    monkeypatch.setattr(reader.Arrived, "all", spoilt_afterwards)
    assert verify(copy).files == len(manifest.read(copy)["files"])


def test_tensors_that_do_not_fit_into_one_file_come_from_memory(copy):
    restated(copy, apart=True)
    files = {name: (copy / name).read_bytes() for name in ("model.onnx", "model.onnx.data")}
    whole, apart = (model_files.held(files, "model.onnx", most) for most in (10**9, 1000))
    assert (list(whole.beside), list(apart.beside)) == ([], ["model.onnx.data"])
    shutil.rmtree(copy)
    x = {"x": np.ones((2, 3, 8, 8), np.float32)}
    found = []
    for one in (whole, apart):
        wanted = options()
        one.lend(wanted)
        found += opened(one.data, "model", wanted).run(None, x)[:1]
    assert np.array_equal(*found)


@pytest.mark.parametrize("place", ["../secret", "summary.md", "nowhere", "/etc/passwd"])
def test_a_model_of_a_release_takes_nothing_from_elsewhere(place, copy):
    (copy.parent / "secret").write_bytes(bytes(10**6))
    restated(copy, apart=True, place=place)
    with pytest.raises(WrongError, match="not one that a build writes"):
        verify(copy)


def restated(folder: Path, apart: bool = False, place: str = "", **facts: object) -> None:
    """A manifest that fits the files again, with other facts; perhaps with tensors apart."""
    if apart:
        data = (folder / "model.onnx").read_bytes()
        (folder / "model.onnx").unlink()
        _write_onnx(data, Place(folder), inline=1000)
    if place:
        model = onnx.load(folder / "model.onnx", load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = place
        (folder / "model.onnx").write_bytes(model.SerializeToString())
    old = manifest.read(folder)
    kept = {key: value for key, value in old.items() if key not in ("format", "content", "files")}
    found = manifest.make(folder, kept | facts)
    (folder / "manifest.json").write_text(json.dumps(found))


# ---------------------------------------------------------------------------- of itself


@pytest.mark.parametrize("stated", [1e-3, 0.01, 1e9, 0.0, -1.0, 1, "1"])
def test_a_manifest_may_not_allow_more_than_a_build_would(stated, copy):
    restated(copy, tolerance=stated)
    with pytest.raises(WrongError, match="tolerance"):
        verify(copy)
    restated(copy, tolerance=1e-4)
    assert verify(copy).parity


@pytest.mark.parametrize("stated", [float("inf"), float("nan")])
def test_a_manifest_of_numbers_that_are_none_is_no_manifest(stated, copy):
    restated(copy, tolerance=stated)
    with pytest.raises(WrongError, match="is not a manifest"):
        verify(copy)


@pytest.mark.parametrize(("kind", "most"), [(10, 8 * 2**-10), (16, 8 * 2**-7)])
def test_coarse_numbers_allow_as_much_as_a_build_of_them_states(kind, most):
    from compressor.release.verify import _tolerance

    assert _tolerance(most, model_files.Held(b"", {}, frozenset({1, kind}))) == most
    with pytest.raises(WrongError, match="states a tolerance"):
        _tolerance(most * 1.01, model_files.Held(b"", {}, frozenset({1, kind})))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("model.onnx", {"measured": True}),
        ("report.json", {"measured": False}),
        ("model.onnx", {"bytes": -1}),
        ("model.onnx", {"bytes": True}),
        ("model.onnx", {"bytes": 1e3}),
        ("model.onnx", {"sha256": "0" * 63}),
        ("model.onnx", {"sha256": "G" * 64}),
        ("model.onnx", {"measured": 0}),
    ],
)
def test_a_manifest_says_of_files_what_a_build_says(name, change, copy):
    found = json.loads((copy / "manifest.json").read_text())
    found["files"][name] |= change
    found["content"] = manifest.content(found["files"])
    (copy / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(WrongError, match="is not a manifest"):
        verify(copy)


def test_what_is_recorded_of_one_output_does_not_stand_for_all(copy):
    path = copy / "parity" / "random.safetensors"
    arrays = {key: one for key, one in load_file(path).items() if not key.startswith("output.")}
    save_file(arrays, path)
    restated(copy)
    with pytest.raises(WrongError, match="does not run on its parity inputs"):
        verify(copy)


def test_verify_ends_with_5_or_2(command, copy):
    assert command(f"verify {copy}").exit_code == 0
    assert command(f"verify {copy.parent}/nowhere").exit_code == 2
    (copy / "passes.json").write_text("{}")
    done = command(f"verify {copy}")
    assert done.exit_code == 5
    assert "error: passes.json was changed" in done.stderr


# ---------------------------------------------------------------------------- keys


def test_another_key_or_none_is_found(copy, keys):
    with pytest.raises(WrongError, match="is not signed"):
        verify(copy, keys / "a.pub")
    sealing.sign(copy, keys / "a.pem")
    assert verify(copy, keys / "a.pem").signed
    with pytest.raises(WrongError, match="not by this key"):
        verify(copy, keys / "b.pub")
    with pytest.raises(UsageError, match="is not an Ed25519 key"):
        verify(copy, keys / "aes")


def test_an_encrypted_release_is_verified_with_its_key_alone(copy, keys, tmp_path):
    key = sealing.read_key(keys / "aes")
    sealing.sign(copy, keys / "a.pem")
    seal(copy, key)
    assert {path.suffix for path in copy.rglob("*") if path.is_file()} == {".enc"}
    assert verify(copy, keys / "a.pub", key).signed
    with pytest.raises(UsageError, match="is encrypted"):
        verify(copy)
    with pytest.raises(WrongError, match="cannot be decrypted"):
        verify(copy, None, bytes(32))
    with pytest.raises(UsageError, match="not a key of 32 bytes"):
        sealing.read_key(keys / "a.pem")


@pytest.mark.parametrize("size", [0, 1, sealing.BLOCK - 1, sealing.BLOCK, 2 * sealing.BLOCK + 5])
def test_a_file_comes_back_as_it_was_and_no_block_may_move(size, tmp_path):
    key, whole = bytes(range(32)), random.Random(size).randbytes(size)
    plain, sealed = tmp_path / "plain", tmp_path / "sealed"
    plain.write_bytes(whole)
    encrypt(plain, sealed, key)
    assert decrypted(sealed, key) == whole
    data = sealed.read_bytes()
    step, head = sealing.BLOCK + 16, len(sealing.MAGIC) + 16 + 32
    spoilt = [data[:-1], data + b"0", data[:head]]
    if size > 2 * sealing.BLOCK:
        first, second = data[head : head + step], data[head + step : head + 2 * step]
        spoilt += [data[:head] + second + first + data[head + 2 * step :], data[: head + step]]
    for one in spoilt:
        sealed.write_bytes(one)
        with pytest.raises(WrongError):
            decrypted(sealed, key)


def test_a_build_signs_and_encrypts(command, fast, keys, tmp_path):
    line = f"build net.py:net --macs 0.5 --bench-seconds 0.1 --allow-slower -o {tmp_path}/out"
    assert command(f"{line} --sign {keys}/aes").exit_code == 2
    done = command(f"{line} --sign {keys}/a.pem --encrypt-key {keys}/aes")
    assert done.exit_code == 0, done.stderr
    assert command(f"verify {tmp_path}/out").exit_code == 2
    done = command(f"verify {tmp_path}/out --key {keys}/a.pub --encrypt-key {keys}/aes --json")
    assert json.loads(done.stdout)["signed"] is True
    assert command(f"{line} --force").exit_code == 0  # an encrypted release is ours, too


# ---------------------------------------------------------------------------- and back to torch


def test_the_small_module_comes_back_without_a_pickle(release, built):
    small = compressor.load(release.folder, samples.net())
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(small(x), built.module(x))
    small(x).sum().backward()
    assert all(one.grad is not None for one in small.parameters())


def test_a_plan_for_another_model_is_refused(release):
    class Wider(samples.Net):
        def __init__(self) -> None:
            super().__init__()
            self.last = torch.nn.Conv2d(32, 26, 3, padding=1)
            self.head = torch.nn.Linear(26, 10)

    with pytest.raises(UsageError, match="the plan is for another model"):
        compressor.load(release.folder, Wider())


def test_a_changed_plan_is_not_loaded(copy):
    log = (copy / "passes.json").read_text()
    (copy / "passes.json").write_text(log.replace("1", "2"))
    with pytest.raises(WrongError, match="was changed"):
        compressor.load(copy, samples.net())


def test_a_model_over_the_limit_has_its_tensors_beside_it(release, tmp_path):
    data = (release.folder / "model.onnx").read_bytes()
    _write_onnx(data, Place(tmp_path), inline=1000)
    assert (tmp_path / "model.onnx.data").stat().st_size > 10_000
    model_files.safe(tmp_path / "model.onnx")
    assert len(model_files.read(tmp_path / "model.onnx")) > 10_000
