"""A release is what it was when it was made, or `verify` says what is not."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compressor.passes.errors import UsageError, WrongError
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import compressor
from compressor import manifest, onnx_files, sealing
from compressor.place import Place
from compressor.verify import verify
from compressor.writing import _write_onnx
from tests.compressor import samples
from tests.compressor.conftest import ROOT


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


def test_the_same_inputs_give_the_same_bytes_on_one_thread_and_on_two(release, built, tmp_path):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
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
    plan = json.loads((copy / "plan.json").read_text())
    plan["channels"] = plan["channels"][::-1]
    (copy / "plan.json").write_text(json.dumps(plan, indent=1) + "\n")
    with pytest.raises(WrongError, match=r"plan\.json was changed"):
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


@pytest.mark.parametrize("name", ["../net.py", "/etc/passwd", "a/../../b", ""])
def test_a_manifest_that_names_a_file_elsewhere_is_refused(name, copy):
    found = json.loads((copy / "manifest.json").read_text())
    found["files"][name] = {"sha256": "0" * 64, "bytes": 1, "measured": True}
    (copy / "manifest.json").write_text(json.dumps(found))
    with pytest.raises(WrongError, match="is not a manifest"):
        verify(copy)


def test_a_model_that_gives_something_else_is_found(copy):
    """All digests fit: only running it shows that it is another model."""
    import onnx

    model = onnx.load(copy / "model.onnx")
    bias = next(one for one in model.graph.initializer if list(one.dims) == [10])
    values = onnx.numpy_helper.to_array(bias) + 1
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, copy / "model.onnx")
    facts = {
        key: value
        for key, value in manifest.read(copy).items()
        if key not in ("format", "content", "files")
    }
    (copy / "manifest.json").write_text(json.dumps(manifest.make(copy, facts)))
    with pytest.raises(WrongError, match="gives something else"):
        verify(copy)


def test_verify_ends_with_5_or_2(command, copy):
    assert command(f"verify {copy}").exit_code == 0
    assert command(f"verify {copy.parent}/nowhere").exit_code == 2
    (copy / "plan.json").write_text("{}")
    done = command(f"verify {copy}")
    assert done.exit_code == 5
    assert "error: plan.json was changed" in done.stderr


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
    sealing.seal(copy, key)
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
    plain, sealed, back = (tmp_path / name for name in ("plain", "sealed", "back"))
    plain.write_bytes(whole)
    sealing.encrypt(plain, sealed, key)
    sealing.decrypt(sealed, back, key)
    assert back.read_bytes() == whole
    data = sealed.read_bytes()
    step, head = sealing.BLOCK + 16, len(sealing.MAGIC) + 16 + 32
    spoilt = [data[:-1], data + b"0", data[:head]]
    if size > 2 * sealing.BLOCK:
        first, second = data[head : head + step], data[head + step : head + 2 * step]
        spoilt += [data[:head] + second + first + data[head + 2 * step :], data[: head + step]]
    for one in spoilt:
        sealed.write_bytes(one)
        back.unlink(missing_ok=True)
        with pytest.raises(WrongError):
            sealing.decrypt(sealed, back, key)


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
    (copy / "plan.json").write_text((copy / "plan.json").read_text().replace("1", "2"))
    with pytest.raises(WrongError, match="was changed"):
        compressor.load(copy, samples.net())


def test_a_model_over_the_limit_has_its_tensors_beside_it(release, tmp_path):
    data = (release.folder / "model.onnx").read_bytes()
    _write_onnx(data, Place(tmp_path), inline=1000)
    assert (tmp_path / "model.onnx.data").stat().st_size > 10_000
    onnx_files.safe(tmp_path / "model.onnx")
    assert len(onnx_files.read(tmp_path / "model.onnx")) > 10_000
