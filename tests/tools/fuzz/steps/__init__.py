"""The step table: what a line of a genome can be."""

from . import attention, channels, convert, elementwise, layers, places
from .table import ANY, StepKind, StepTable, Stream

__all__ = ["ANY", "ENDS", "GROWING", "STEPS", "StepKind", "Stream"]

GROWING: StepTable = {
    name: kind
    for family in (elementwise, channels, layers, attention, places, convert)
    for name, kind in family.STEPS.items()
}
"""Steps that a network grows by."""

ENDS: StepTable = convert.ENDS
STEPS: StepTable = {**GROWING, **convert.WORDS, **ENDS}
