"""Imported by the process that tries fork from: one capture, for what torch imports when asked."""

import torch

import compressor.build
import compressor.planning
from compressor import passes

passes.capture(torch.nn.Linear(2, 2), (torch.ones(2, 2),), {})

assert compressor.build
assert compressor.planning
