"""Child process of `export.simplify`: onnxsim reads one model and writes another.

It runs apart because it is native code that has crashed and hung on strange models. It is given a
`ModelProto`, never a path: by path it would follow external data out of the model's folder.
"""

import sys
from pathlib import Path

import onnx
import onnxsim


def main() -> None:
    given, made = map(Path, sys.argv[1:3])
    model = onnx.load_model_from_string(given.read_bytes())
    simplified, fine = onnxsim.simplify(model, check_n=0)
    if not fine:
        raise SystemExit("onnxsim reports that its result differs")
    made.write_bytes(simplified.SerializeToString(deterministic=True))


if __name__ == "__main__":
    main()
