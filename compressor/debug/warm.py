"""Imported by the process that tries fork from: one capture, for what torch imports when asked."""

import os

import torch

import compressor.analysis.planning
import compressor.pipeline.build
from compressor import passes
from compressor.process.child_start import bound

bound(os.getppid())  # the process that tries fork from; each of them is bound to it

passes.capture(torch.nn.Linear(2, 2), (torch.ones(2, 2),), {})

assert compressor.pipeline.build
assert compressor.analysis.planning
