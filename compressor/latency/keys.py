"""Keys in a folder that is sent to other machines: they stay here, whatever they are called.

    by name       `*.pem`, `id_rsa`, `.env`, `.aws` ...: `NAMES`
    by content    PEM, OpenSSH, PuTTY and age private keys, secrets of AWS, in a file of any name
    by option     the keys that the recipe names, and copies of them
    by place      a link that leads out of the folder

Archives are not opened.
"""

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

NAMES = (
    *("*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.der", "*.jks", "*.keystore", "*.ppk"),
    *("*.kdbx", "*.gpg", "*.asc", "*.age", "*.agekey", "*.ovpn", "*.enckey"),
    *("id_rsa*", "id_dsa*", "id_ecdsa*", "id_ed25519*", "id_xmss*", "*_rsa", "*_ed25519"),
    *(".env", ".env.*", "*.env", ".envrc", ".netrc", "_netrc", ".pypirc", ".npmrc", ".pgpass"),
    *(".git-credentials", ".htpasswd", ".dockercfg", ".boto", ".s3cfg", ".vault-token"),
    *("credentials", "credentials.json", "credentials.toml", "service-account*.json"),
    *("secret", "secrets", "secret.*", "secrets.*", "*.secret", "*.token"),
    *(
        ".aws",
        ".ssh",
        ".gnupg",
        ".gcloud",
        ".azure",
        ".kube",
        ".docker",
        ".config",
        ".password-store",
    ),
    *(".git", ".hg", ".svn"),  # addresses in them may have passwords
)
"""Files and folders, in lower case."""
_PRIVATE = re.compile(
    rb"-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File-|AGE-SECRET-KEY-|openssh-key-v1"
    rb"|aws_secret_access_key\s*[=:]",
    re.IGNORECASE,
)
_LOOKED_AT = 1 << 20
"""Bytes at the beginning, and at the end, of a file."""
_LARGEST = 1 << 16
"""Bytes of a key."""


def looks_private(path: Path) -> bool:
    """Whether a file is a key by its name or its content; one that cannot be read counts as one."""
    if _named_private(path):
        return True
    try:
        with path.open("rb") as file:
            data = file.read(_LOOKED_AT)
            if (size := os.fstat(file.fileno()).st_size) > len(data):
                file.seek(max(size - _LOOKED_AT, len(data)))
                data += file.read(_LOOKED_AT)
    except OSError:
        return True
    return _PRIVATE.search(data.replace(b"\0", b"")) is not None  # in UTF-16 too


def _named_private(path: Path) -> bool:
    name = path.name.lower()
    if name.startswith("id_") and path.is_file() and "." not in name:
        return True
    return any(fnmatchcase(name, pattern) for pattern in NAMES)


def private(folder: Path, keys: Sequence[Path] = ()) -> list[str]:
    """What has to stay of a folder, by name from there: keys, those named by `keys`, and links out.

    Names end in "/" where a whole folder stays.
    """
    root = folder.resolve()
    named = {key.resolve() for key in keys}
    contents = {data for key in keys if (data := _content(key))}
    return sorted(_found(root, root, named, contents))


def _found(root: Path, folder: Path, named: set[Path], contents: set[bytes]) -> Iterator[str]:
    for path in sorted(folder.iterdir()):
        name, there = path.relative_to(root).as_posix(), path.resolve()
        out = path.is_symlink() and not there.is_relative_to(root)
        if out or there in named or not os.access(path, os.R_OK):
            yield name
        elif path.is_dir():  # through a link too: it would be sent
            if _named_private(path) or folder.resolve().is_relative_to(there):
                yield f"{name}/"
            else:
                yield from _found(root, path, named, contents)
        elif path.is_file() and (looks_private(path) or _content(path) in contents):
            yield name


def _content(path: Path) -> bytes | None:
    """Of a small file, as keys are."""
    try:
        return path.read_bytes() if path.stat().st_size <= _LARGEST else None
    except OSError:
        return None


def patterns(names: Sequence[str]) -> list[str]:
    """The same as lines of a `.gitignore`: these, and no others."""
    return ["/" + re.sub(r"([\\*?\[\]! #])", r"\\\1", name) for name in names]
