"""`compressor check`: is the new model slower than the old one? Yes, no, or too noisy to say.

A stored number of milliseconds says nothing on another day or machine, so the baseline is the old
*file*: both run side by side, in one process, in turn. Two things must hold for "regressed":

    the margin        the median ratio is above 1 + max_regression
    the statistics    the whole 95 % interval is above 1

    verdict.py        the three answers, and other limits: size, arithmetic, metrics
    limits.py         metrics of the user's own, of files
    arithmetic.py     multiply-accumulates of a file: by the rules of operators.py, with the sizes
                      that values.py finds
    formats.py        JUnit, Markdown, and what github-action-benchmark reads

`pytest_plugin.py`, one folder up, is the same as a fixture.
"""

from compressor.gate.verdict import (
    INCONCLUSIVE,
    PASSED,
    REGRESSED,
    Verdict,
    check,
    percentage,
)

__all__ = ["INCONCLUSIVE", "PASSED", "REGRESSED", "Verdict", "check", "percentage"]
