"""Training, where repair is not enough: distillation, fine-tuning, sparse training.

    feed.py         the same batches in every process and every run
    nets.py         a captured network that trains
    objectives.py   what is to be small
    sparse.py       penalties on whole groups of channels
    loop.py         steps, scores, the best state; checkpoint.py: where a killed run goes on
    phases.py       from a plan to a trained network

Hugging Face accelerate has the devices and the processes:
`accelerate launch -m compressor build ...`
"""

from compressor.config.training import Training as Training

__all__ = ["Training"]
