"""Child process of `export.simplify`: a model comes in by standard input, another goes out.

It runs apart because it is native code that has crashed and hung on strange models. It is given a
`ModelProto` on standard input, never a path: by path it would follow external data out of the
model's folder, and a file would be left behind where it is killed. The arguments are the most
memory and the most seconds of CPU time that it may take.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec

import onnx

sys.modules["torch"] = None  # type: ignore[assignment]  # onnxsim imports it where it is: 3 s
import onnxsim  # noqa: E402


def limit(memory: int, seconds: int) -> None:
    """Refuse an allocation beyond this many bytes, and end after the time. Not on Windows."""
    if find_spec("resource"):
        resource = import_module("resource")
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))


def main() -> None:
    limit(int(sys.argv[1]), int(sys.argv[2]))
    with os.fdopen(os.dup(1), "wb") as answer:
        os.dup2(2, 1)  # what onnxsim prints is no part of it
        model = onnx.load_model_from_string(sys.stdin.buffer.read())
        simplified, fine = onnxsim.simplify(model, check_n=0)
        if not fine:
            raise SystemExit("onnxsim reports that its result differs")
        answer.write(simplified.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
