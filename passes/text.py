"""Groups and plans as text, in the names of the user's own model."""

from .coupling import Coupling, Group
from .plan import Plan


def to_text(coupling: Coupling) -> str:
    """One line a group, then one a frozen axis with its reason.

    8        conv.weight[0] ~ norm.weight[0] ~ next.weight[1]
    4 x 16   q.weight[0] ~ k.weight[0]                            entries of 4 rows
    4 rows   q.weight[0] ~ ...                                    whole rows
    frozen   head.weight[0] (10): program output
    """
    lines = [f"{width(group):8} {' ~ '.join(map(str, group.axes))}" for group in coupling.groups]
    lines += [f"{'frozen':8} {f.axis} ({f.size}): {f.why}" for f in coupling.frozen]
    return "\n".join(lines) + "\n"


def width(group: Group) -> str:
    """``64``, ``4 x 16`` (entries of rows) or ``4 rows``."""
    if group.rows:
        return f"{group.size} rows"
    return f"{len(group.cells)} x {group.size}" if len(group.cells) > 1 else str(group.size)


def plan_to_text(plan: Plan) -> str:
    """One line a group: its width before and after."""
    lines = [f"{width(group):8} -> {kept:4} {group.name}" for group, kept in plan.widths]
    return "\n".join(lines) + "\n"
