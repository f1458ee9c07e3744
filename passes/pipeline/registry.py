"""Every pass, by the name that specs and logs know it by.

A new pass is one more line here: `spec.parsed(text, PASSES)` reads it then, and whoever replays a
log finds it by name and version.
"""

from collections.abc import Mapping

from ..ir.pass_base import Pass
from ..repair.repair import Repair
from ..transforms.prune import Shrink

_ALL: tuple[type[Pass], ...] = (
    Shrink,
    Repair,
)

PASSES: Mapping[str, type[Pass]] = {one.name: one for one in _ALL}
"""Name -> class; `version` of the class is the one that this release can replay."""
