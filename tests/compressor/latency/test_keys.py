"""Keys stay here: what of a folder is not sent to other machines."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from compressor.passes.base.errors import UsageError, WrongError

from compressor.config import Recipe
from compressor.latency import on_ray
from compressor.latency.keys import NAMES, patterns, private
from compressor.latency.remote import Order, _received, fulfilled, order

PEM = "-----BEGIN {}PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n"


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("net.py").write_text("def net(): ...\n")
    return tmp_path / "here"


@pytest.mark.parametrize(
    "name",
    ["key.pem", "KEY.PEM", "sub/deep/own.key", "id_rsa", "id_ed25519", "id_work", ".env",
     ".env.local", "prod.env", ".netrc", ".aws/credentials", ".ssh/known_hosts", ".git/config",
     "x.p12", "secrets.toml", "service-account-1.json", ".config/token"],
)  # fmt: skip
def test_a_key_is_known_by_its_name(name):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("nothing that looks like one")
    (found,) = private(Path())
    assert name.startswith(found.rstrip("/"))


@pytest.mark.parametrize(
    "data",
    [PEM.format("").encode(), PEM.format("OPENSSH ").encode(), PEM.format("RSA ").encode(),
     PEM.format("ENCRYPTED ").encode(), b"# notes\n\n  " + PEM.format("EC ").encode(),
     PEM.format("").encode("utf-16"), b'{"private_key": "' + PEM.format("").encode() + b'"}',
     b"x" * 3_000_000 + PEM.format("").encode(), b"PuTTY-User-Key-File-3: ssh-ed25519\n",
     b"AGE-SECRET-KEY-1QQQ", b"[default]\naws_secret_access_key = abc\n"],
    ids=range(11),
)  # fmt: skip
def test_a_key_is_known_by_its_content(data):
    Path("notes.txt").write_bytes(data)
    assert private(Path()) == ["notes.txt"]


def test_keys_that_are_named_stay_under_every_name(here):
    Path("sub").mkdir()
    Path("secret-bytes").write_bytes(bytes(range(32)))
    Path("sub/copy").write_bytes(bytes(range(32)))
    os.link("secret-bytes", "sub/hard")
    os.symlink("../secret-bytes", "sub/soft")
    Path("other").write_bytes(bytes(32))
    outside = here.parent / "outside"
    outside.write_bytes(bytes(range(32)))
    names = ["secret-bytes", "sub/copy", "sub/hard", "sub/soft"]
    assert private(Path(), [Path("secret-bytes")]) == names
    assert private(Path(), [outside]) == names  # the link is to a copy
    assert private(Path()) == []


def test_links_that_lead_out_stay_and_those_within_are_followed(here):
    (here.parent / "home").mkdir()
    (here.parent / "home/plain.txt").write_text("private")
    os.symlink(here.parent / "home", "home")
    os.symlink(here.parent / "home/plain.txt", "plain.txt")
    os.symlink("nowhere", "broken")
    Path("data").mkdir()
    Path("data/odd.txt").write_text(PEM.format(""))
    Path("data/fine.txt").write_text("fine")
    os.symlink("data", "linked")
    os.symlink("..", "data/loop")
    within = ["data/loop/", "data/odd.txt", "linked/loop/", "linked/odd.txt"]
    assert private(Path()) == sorted(["broken", "home", "plain.txt", *within])


def test_what_is_no_key_is_sent():
    for name in ("keyboard.py", "id_mapping.py", "environment.py", "monkey.txt", "token_count.py",
                 "public.pub", "net.onnx", "key.npy"):  # fmt: skip
        Path(name).write_text("-----BEGIN PUBLIC KEY-----\n")
    assert private(Path()) == []


def test_odd_names_are_left_out_by_a_pattern_that_means_them_alone():
    pathspec = pytest.importorskip("pathspec")
    names = ["a b", "!x", "#y", "[ab]", "a*", "a?c", "back\\slash", "end ", "sub/*.txt"]
    matches = pathspec.GitIgnoreSpec.from_lines(patterns(names)).match_file
    assert [name for name in names if not matches(name)] == []
    assert not any(map(matches, ["ab", "a", "abc", "x", "y", "sub/b.txt", "deep/a b"]))


# ---------------------------------------------------------------------------- sent


@pytest.fixture
def sent(monkeypatch) -> dict:
    """What `ray.init` is asked for."""
    seen: dict = {}
    ray = SimpleNamespace(
        init=lambda **given: seen.update(given),
        shutdown=lambda: None,
        remote=lambda **given: lambda function: function,
    )
    monkeypatch.setattr(on_ray, "needed", lambda *names: ray)
    return seen


def test_the_folder_goes_to_the_cluster_without_keys_and_the_user_is_told(sent):
    Path("own").write_bytes(bytes(range(32)))
    Path("notes.txt").write_text(PEM.format(""))
    said: list[str] = []
    with on_ray.connected("auto", Path("front"), [Path("own")], said.append):
        pass
    excludes = sent["runtime_env"]["excludes"]
    assert set(excludes) == {*NAMES, "/front", "/notes.txt", "/own"}
    assert said == ["not sent, as keys stay here: notes.txt, own"]


def test_no_option_sends_a_key():
    for name in ("key.pem", "own", "w.pt"):
        Path(name).write_bytes(bytes(range(32)))
    keys = {"sign": Path("key.pem"), "encrypt_key": Path("own")}
    made = order(Recipe.of(model="net.py:net", weights=Path("w.pt"), **keys))
    assert made.named.keys() == {"net.py", "w.pt"}
    assert (made.recipe.sign, made.recipe.encrypt_key) == (None, None)
    with pytest.raises(UsageError, match=r"key.pem looks like a key"):
        order(Recipe.of(model="net.py:net", weights=Path("key.pem")))
    Path("net.py").write_text(PEM.format(""))
    with pytest.raises(UsageError, match=r"net.py looks like a key"):
        order(Recipe.of(model="net.py:net"))


# ---------------------------------------------------------------------------- back


@pytest.mark.parametrize(
    "name", ["../../x", "/tmp/x", "a\\..\\x", "C:x", "a\x1bb", "nul", "."], ids=ascii
)
def test_what_comes_back_under_a_name_that_leads_out_is_not_written(name, here):
    recipe = Recipe.of(model="net.py:net", output=Path("front/0.5"))
    with pytest.raises(WrongError, match="a file came back under a name") as caught:
        _received(recipe, {"fine": b"1", name: b"2"}, "node 7")
    assert caught.value.where == "node 7"
    assert not Path("front").exists()
    assert sorted(os.listdir()) == ["net.py"]
    assert sorted(os.listdir(here.parent)) == ["here"]


def test_what_is_sent_is_written_in_the_folder_alone(here):
    sent = order(Recipe.of(model="net.py:net", macs=0.5))
    refused = fulfilled(Order(sent.recipe, {"../x": b"1"}, sent.source))
    assert isinstance(refused, WrongError)
    assert sorted(os.listdir(here.parent)) == ["here"]
