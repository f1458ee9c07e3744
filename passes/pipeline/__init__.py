"""Passes in order: pruning in several steps, the choice among plans, the list of passes, texts."""
