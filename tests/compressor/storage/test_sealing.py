"""Encrypted files: a key for each, a place for each, and the earlier format is still read."""

import os
import shutil
from pathlib import Path

import pytest
import torch
from compressor.passes.base.errors import UsageError, WrongError
from torch import nn

import compressor
from compressor.release.decrypt import decrypt as open_release
from compressor.release.verify import verify
from compressor.storage import manifest, sealing
from compressor.storage.sealing import encrypt
from tests.compressor.encrypting import decrypted, seal

FORMAT1 = Path(__file__).parents[1] / "format1"
CONTENT1 = "0e0e1b4069952ad4b0308ec501900c0fc72254e9411f26b443fb9e0d2160cfd3"
KEY = bytes(range(32))


def sealed(tmp_path: Path, name: str = "sealed", key: bytes = KEY) -> Path:
    """A release of today's format, made of the one of the first."""
    folder = Path(shutil.copytree(FORMAT1 / "signed", tmp_path / name))
    seal(folder, key)
    return folder


def everything(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


# ---------------------------------------------------------------------------- one key a file


def test_no_two_files_have_the_same_key_whatever_the_random_numbers(tmp_path, monkeypatch):
    """250,000 files took 50 s: here the random salt is all of 32 bytes, and the key follows it."""
    keys, derive = set(), sealing._cipher

    def watched(head, key, name):
        keys.add((head.salt, head.release, name))
        return derive(head, key, name)

    monkeypatch.setattr(sealing, "_cipher", watched)
    (tmp_path / "plain").write_bytes(bytes(16))
    seen = set()
    for _ in range(2000):
        encrypt(tmp_path / "plain", tmp_path / "sealed", KEY)
        seen.add((tmp_path / "sealed").read_bytes())
        (tmp_path / "sealed").unlink()
    assert len(seen) == len(keys) == 2000
    assert {(len(salt), len(release)) for salt, release, _ in keys} == {(32, 16)}
    head = sealing.Head(sealing.MAGIC, bytes(32), bytes(16))
    others = [
        sealing.Head(sealing.MAGIC, bytes(31) + b"1", bytes(16)),
        sealing.Head(sealing.MAGIC, bytes(32), bytes(15) + b"1"),
    ]
    texts = [derive(one, KEY, "a").encrypt(bytes(12), b"text", b"") for one in (head, *others)]
    texts.append(derive(head, KEY, "b").encrypt(bytes(12), b"text", b""))
    assert len(set(texts)) == 4


def test_a_file_under_the_name_of_another_is_not_decrypted(tmp_path):
    for name in "ab":
        (tmp_path / name).write_bytes(name.encode())
        encrypt(tmp_path / name, tmp_path / f"{name}.enc", KEY)
    (tmp_path / "a.enc").rename(tmp_path / "c.enc")
    (tmp_path / "b.enc").rename(tmp_path / "a.enc")
    with pytest.raises(WrongError, match="a cannot be decrypted"):
        decrypted(tmp_path / "a.enc", KEY)


def test_files_of_one_release_cannot_change_places(tmp_path):
    folder = sealed(tmp_path)
    one, other = (folder / "parity" / f"{name}.safetensors.enc" for name in ("example", "random"))
    first, second = one.read_bytes(), other.read_bytes()
    one.write_bytes(second)
    other.write_bytes(first)
    with pytest.raises(WrongError, match="has another's place"):
        verify(folder, None, KEY)


def test_files_of_two_releases_of_one_key_cannot_change_places(tmp_path):
    """Their plain text is the same: only who it was encrypted with tells them apart."""
    one, other = sealed(tmp_path, "one"), sealed(tmp_path, "other")
    shutil.copy(other / "model.onnx.enc", one / "model.onnx.enc")
    with pytest.raises(WrongError, match=r"model\.onnx is of another release"):
        verify(one, None, KEY)
    with pytest.raises(WrongError, match=r"model\.onnx is of another release"):
        open_release(one, tmp_path / "out", KEY)
    assert not (tmp_path / "out").exists()


def test_a_file_of_the_first_format_has_no_place_in_a_release_of_the_second(tmp_path):
    folder = sealed(tmp_path)
    shutil.copy(FORMAT1 / "sealed" / "model.onnx.enc", folder / "model.onnx.enc")
    with pytest.raises(WrongError, match=r"model\.onnx is of another release"):
        verify(folder, None, KEY)


# ---------------------------------------------------------------------------- the first format


def test_releases_of_the_first_format_are_read(tmp_path):
    public = FORMAT1 / "key.pub"
    for folder, key in ((FORMAT1 / "signed", None), (FORMAT1 / "sealed", KEY)):
        found = verify(folder, public, key)
        assert (found.content, found.files, found.signed) == (CONTENT1, 8, True)
    open_release(FORMAT1 / "sealed", tmp_path / "out", KEY, public, CONTENT1)
    assert everything(tmp_path / "out") == everything(FORMAT1 / "signed")


def test_an_encrypted_release_comes_back_as_a_module():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    plain = compressor.load(FORMAT1 / "signed", net)
    small = compressor.load(FORMAT1 / "sealed", net, key=KEY)
    assert torch.equal(small(torch.ones(1, 4)), plain(torch.ones(1, 4)))
    with pytest.raises(UsageError, match="is encrypted"):
        compressor.load(FORMAT1 / "sealed", net)
    with pytest.raises(WrongError, match="cannot be decrypted"):
        compressor.load(FORMAT1 / "sealed", net, key=bytes(32))
    with pytest.raises(UsageError, match="is not a key of 32 bytes"):
        compressor.load(FORMAT1 / "sealed", net, key=b"short")


# ---------------------------------------------------------------------------- open


@pytest.fixture
def secret(tmp_path) -> Path:
    (tmp_path / "secret").write_bytes(KEY)
    return tmp_path / "secret"


def test_open_writes_what_was_encrypted_and_nobody_else_may_read_it(command, secret, tmp_path):
    folder, out = sealed(tmp_path), tmp_path / "new" / "out"
    line = f"open {folder} --encrypt-key {secret} -o {out}"
    done = command(f"{line} --key {FORMAT1}/key.pub --expect-content {CONTENT1}")
    assert done.exit_code == 0, done.stderr
    assert everything(out) == everything(FORMAT1 / "signed")
    if os.name != "nt":
        modes = {path.stat().st_mode & 0o777 for path in (out, *out.rglob("*"))}
        assert modes == {0o700, 0o600}
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert command(line).exit_code == 2  # it is there
    assert command(f"{line} --force").exit_code == 0
    assert command(f"verify {out} --key {FORMAT1}/key.pub").exit_code == 0


@pytest.mark.parametrize(
    "name", ["model.onnx.enc", "summary.md.enc", "parity/random.safetensors.enc"]
)
def test_open_writes_all_or_nothing(name, command, secret, tmp_path):
    folder, out = sealed(tmp_path), tmp_path / "out"
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    done = command(f"open {folder} --encrypt-key {secret} -o {out}")
    assert done.exit_code == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sealed", "secret"]


def test_open_refuses_what_is_not_encrypted_and_another_key(command, secret, tmp_path):
    (tmp_path / "other").write_bytes(bytes(32))
    for folder, key, code in (
        (FORMAT1 / "signed", secret, 2),
        (FORMAT1 / "sealed", tmp_path / "other", 5),
        (FORMAT1 / "sealed", FORMAT1 / "key.pub", 2),
        (tmp_path / "nowhere", secret, 2),
    ):
        assert command(f"open {folder} --encrypt-key {key} -o {tmp_path}/out").exit_code == code
        assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------- an older release


def test_an_older_signed_release_in_the_place_of_a_new_one_is_found(command, secret):
    new = "f" * 64
    for line in (
        f"verify {FORMAT1}/signed --key {FORMAT1}/key.pub",
        f"verify {FORMAT1}/sealed --key {FORMAT1}/key.pub --encrypt-key {secret}",
    ):
        assert command(f"{line} --expect-content {CONTENT1}").exit_code == 0
        done = command(f"{line} --expect-content {new}")
        assert done.exit_code == 5
        assert "another release than the one that is expected" in done.stderr
        for no_digest in ("f" * 63, CONTENT1.upper(), CONTENT1[:-1] + "g"):
            assert command(f"{line} --expect-content {no_digest}").exit_code == 2


def test_the_content_of_the_first_format_is_what_its_manifest_says():
    assert manifest.read(FORMAT1 / "signed")["content"] == CONTENT1
