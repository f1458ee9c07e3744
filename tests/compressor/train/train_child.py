"""Distils the sample network, in however many processes it is started: writes what happened.

python -m tests.compressor.train.train_child FILE [CHECKPOINTS [KILL_AFTER_STEPS]]
"""

import json
import os
import signal
import sys
from pathlib import Path

import torch

from compressor import Budget, compress
from compressor.config.training import Training
from compressor.process.progress import Watch
from compressor.train.phases import Task, trained
from tests.compressor import samples


class Deadly(Watch):
    """Kills its process after so many steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._steps = steps

    def advance(self, done: int, total: int) -> None:
        if done >= self._steps:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    torch.set_num_threads(1)
    built = compress(samples.net(), samples.example_inputs(), budget=Budget(macs=0.5))
    pictures = torch.randn(100, 3, 8, 8, generator=torch.Generator().manual_seed(2))
    folder = Path(sys.argv[2]) if len(sys.argv) > 2 else None
    watch = Deadly(int(sys.argv[3])) if len(sys.argv) > 3 else Watch()
    settings = Training(
        distill=3, learning_rate=1e-3, batch_size=33, checkpoints=folder, checkpoint_steps=1
    )
    small, (found,) = trained(
        built.original, built.small, built.plan, Task(settings, pictures), watch
    )
    if os.environ.get("RANK", "0") == "0":
        state = {name: one.double().sum().item() for name, one in small.tensors().items()}
        Path(sys.argv[1]).write_text(json.dumps({**found, "state": state}))


if __name__ == "__main__":
    main()
