"""Digests of plans and weights, to hold beside those of another commit: a change of structure alone
changes none of them.

    python -m tests.tools.snapshot before.json          on the commit before
    python -m tests.tools.snapshot after.json --against before.json

Both on the same machine with the same number of threads: least squares adds up in the order that
the machine likes. The subjects are the demo, ResNet-20 at half of the MACs with calibration images
(where `../shared/data` is), and torchvision's models at half of the channels.
"""

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from benchmarks.accuracy.networks import available, network
from benchmarks.cases import VISION, vision
from compressor import Budget, Built, compress
from models import digits


def subjects() -> Iterator[tuple[str, Callable[[], Built]]]:
    """A name and how it is built, for each subject that can be had here."""
    yield "demo", _demo
    if available():
        yield "resnet20", _resnet20
    for name in VISION:
        yield name, partial(_half, name)


def _demo() -> Built:
    budget = Budget(macs=0.5)
    data = digits.calibration()
    return compress(digits.digits_resnet(), digits.example_inputs(), budget=budget, data=data)


def _resnet20() -> Built:
    subject = network("resnet20", 512)
    images = subject.calibration
    return compress(subject.model, images[:2], budget=Budget(macs=0.5), data=images.split(64))


def _half(name: str) -> Built:
    model, inputs = vision(name).make()
    return compress(model, inputs, budget=Budget(channels=0.5), uniform=True)


def digest(built: Built) -> dict[str, str]:
    """One of what is kept, one of the weights."""
    kept = json.dumps(built.plan.kept, sort_keys=True).encode()
    weights = hashlib.sha256()
    for name, tensor in sorted(built.module.state_dict().items()):
        weights.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        weights.update(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {"kept": hashlib.sha256(kept).hexdigest(), "weights": weights.hexdigest()}


def main() -> int:
    """Write the digests; 1 where any differs from those to compare with."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path)
    parser.add_argument("--against", type=Path)
    asked = parser.parse_args()
    wanted = json.loads(asked.against.read_text()) if asked.against else {}
    torch.set_num_threads(1)
    found: dict[str, Any] = {}
    for name, make in subjects():
        found[name] = digest(make())
        same = "" if name not in wanted else "same" if wanted[name] == found[name] else "DIFFERS"
        print(name, found[name]["kept"][:12], found[name]["weights"][:12], same, flush=True)
        asked.output.write_text(json.dumps(found, indent=1) + "\n")
    return int(any(found[name] != wanted[name] for name in wanted))


if __name__ == "__main__":
    raise SystemExit(main())
