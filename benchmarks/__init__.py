"""Experiments, run from the checkout by `python -m benchmarks`. No claim without a row here."""

import compressor as compressor  # before anything imports ONNX Runtime: its telemetry is off then
