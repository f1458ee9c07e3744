"""Child process of `export.simplify`: a model comes in by standard input, another goes out.

It runs apart because it is native code that has crashed and hung on strange models. It is given a
`ModelProto`, never a path: by path it would follow external data out of the model's folder. Nor is
the model ever in a file, which a kill would leave behind. The first argument is the most memory
that it may take.
"""

import os
import sys
from importlib import import_module
from importlib.util import find_spec

import onnx

sys.modules["torch"] = None  # type: ignore[assignment]  # onnxsim imports it where it is: 3 s
import onnxsim  # noqa: E402


def limit(memory: int) -> None:
    """An allocation beyond this many bytes is refused. Windows knows no such limit."""
    if find_spec("resource"):
        resource = import_module("resource")
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))


def main() -> None:
    limit(int(sys.argv[1]))
    made = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what it prints is not its result
    model = onnx.load_model_from_string(sys.stdin.buffer.read())
    simplified, fine = onnxsim.simplify(model, check_n=0)
    if not fine:
        raise SystemExit("onnxsim reports that its result differs")
    with made:
        made.write(simplified.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
