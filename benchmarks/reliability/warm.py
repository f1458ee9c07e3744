"""Imported by the process that builds fork from (`forked`): it builds once."""

from benchmarks.reliability.forked import warm

warm()
