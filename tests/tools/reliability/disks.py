"""Disks of their own for a command: small ones that fill, and ones that take nothing.

    on_disk(["python", ...], folder, "size=256k")     a tmpfs at `folder`, only for this command

They are mounted in a name space of the command's, where the system gives one (`possible`).
"""

import os
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
SCRIPT = """
set -e
place=$1; options=$2; keep=$3; shift 3
mount -t tmpfs -o "size=64m" none "$place"
cp -a "$keep/." "$place/"
mount -o "remount,$options" "$place"
cd "$place"
code=0; "$@" || code=$?
mount -o remount,rw,size=64m "$place"
rm -rf "$keep"; cp -a "$place/." "$keep/"
exit $code
"""


@cache
def possible() -> bool:
    """Whether this user may mount something for himself."""
    try:
        line = ["unshare", "-rm", "mount", "-t", "tmpfs", "none", "/mnt"]
        return subprocess.run(line, capture_output=True, check=False).returncode == 0
    except OSError:
        return False


def on_disk(
    line: list[str], folder: Path, options: str, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run a command in `folder`, on a disk that has what is in there now.

    `options` are those of the mount. Afterwards, `folder` has what was on the disk in the end.
    """
    place = folder.with_name(f"{folder.name}.disk")
    place.mkdir()
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", SCRIPT, "sh", str(place), options, str(folder), *line],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    place.rmdir()
    return done
