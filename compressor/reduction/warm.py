"""Imported by the process that tries fork from: one capture, for what torch imports when asked."""

import os

import torch

import compressor.build
import compressor.planning
from compressor import passes
from compressor.child_start import bound

bound(os.getppid())  # the process that tries fork from; each of them is bound to it

passes.capture(torch.nn.Linear(2, 2), (torch.ones(2, 2),), {})

assert compressor.build
assert compressor.planning
