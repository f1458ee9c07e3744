"""Accuracy against latency: sweeps over budgets, here or on other machines; the Pareto front."""
