"""Criteria: ours, torch-pruning's, and what the groups of a user are worth."""
