"""Removing equals silencing, in float64: the silenced reference, and the comparison."""
