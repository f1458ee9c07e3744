"""A captured network made narrower: half of the channels of its groups goes, as the passes cut.

    narrowed(net, fails, most=60, together=True)     all groups at once, again and again
    narrowed(net, fails, most=60)                    then some of them, then single ones

Which half goes does not matter here: what stays only has to fail in the same way. Where coupling or
surgery is what fails, they are no help, and the reason says so.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch

from compressor import passes
from compressor.base.messages import reason
from compressor.passes.base.minimise import runs, smallest

from .graph import Net


@dataclass(frozen=True)
class Narrowed:
    """What is left, how many were tried, and why it is no narrower."""

    net: Net
    tried: int
    why: str


def narrowed(
    net: Net, fails: Callable[[Net], bool], most: int, *, together: bool = False
) -> Narrowed:
    """Halve widths for as long as the network fails; `together`: those of all groups, or none."""
    why = ""

    def halves(net: Net) -> Iterator[Net]:
        nonlocal why
        try:
            coupling = _coupled(net)
            wide = [group for group in coupling.groups if group.size > 1]
            why = "narrower ones do not fail in the same way" if wide else "no channel can go"
            for groups in [wide] if wide and together else runs(wide):
                yield _halved(coupling, groups)
        except Exception as error:  # of the passes: what is looked for may be this
            why = f"channels cannot be removed: {reason(error)}"

    small, tried = smallest(net, halves, fails, most)
    return Narrowed(small, tried, why if tried < most else "no more may be tried")


def _coupled(net: Net) -> passes.Coupling:
    module, inputs = net.module()
    return passes.couple(passes.capture(module, inputs, {}))


def _halved(coupling: passes.Coupling, groups: Sequence[passes.Group]) -> Net:
    """The network without the first half of these groups."""
    gone = torch.cat([cell[: group.size // 2] for group in groups for cell in group.cells])
    plan = passes.Plan(coupling, passes.Budget(channels=0.5), gone.sort().values)
    return Net.of(passes.apply(passes.Shrink(plan), coupling.program).program)
