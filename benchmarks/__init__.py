"""Experiments, run from the checkout by `python -m benchmarks`. No claim without a row here."""
