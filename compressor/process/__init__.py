"""Processes: children and their end, time limits, exit codes, progress, temporary folders."""
