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
from compressor.load.words import reason

from .graph import Net


@dataclass(frozen=True)
class Narrowed:
    """What is left, how many were tried, and why it is no narrower."""

    net: Net
    tried: int
    why: str


class _Cannot(Exception):
    """There is no narrower network to try."""


def narrowed(
    net: Net, fails: Callable[[Net], bool], most: int, *, together: bool = False
) -> Narrowed:
    """Halve widths for as long as the network fails; `together`: those of all groups, or none."""
    tried = 0
    while True:
        try:
            for candidate in _halves(net, together):
                if tried >= most:
                    return Narrowed(net, tried, "no more may be tried")
                tried += 1
                if fails(candidate):
                    break
            else:
                return Narrowed(net, tried, "narrower ones do not fail in the same way")
        except _Cannot as error:
            return Narrowed(net, tried, str(error))
        net = candidate


def _halves(net: Net, together: bool) -> Iterator[Net]:
    """The network with half as many channels in all groups, in some, in one."""
    try:
        coupling = _coupled(net)
        wide = [group for group in coupling.groups if group.size > 1]
        for groups in _parts(wide, together):
            yield _halved(coupling, groups)
    except Exception as error:  # of the passes: what is looked for may be this
        raise _Cannot(f"channels cannot be removed: {reason(error)}") from error
    if not wide:
        raise _Cannot("no channel can go")


def _coupled(net: Net) -> passes.Coupling:
    module, inputs = net.module()
    return passes.couple(passes.capture(module, inputs, {}))


def _parts(groups: Sequence[passes.Group], together: bool) -> Iterator[Sequence[passes.Group]]:
    """All, then runs of half as many each, then single ones."""
    size = len(groups)
    while size:
        yield from (groups[start : start + size] for start in range(0, len(groups), size))
        size = 0 if together else size // 2


def _halved(coupling: passes.Coupling, groups: Sequence[passes.Group]) -> Net:
    """The network without the first half of these groups."""
    gone = torch.cat([cell[: group.size // 2] for group in groups for cell in group.cells])
    plan = passes.Plan(coupling, passes.Budget(channels=0.5), gone.sort().values)
    return Net.of(passes.apply(passes.Shrink(plan), coupling.program).program)
