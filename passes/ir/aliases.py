"""Views that are written through: `y[:, ::2] = x` changes y.

A view shows the memory of another value. Where a call that works in place comes later, the view
must stay one: a copy in its place would lose what is written, or miss it.
"""

import torch
from torch.fx import Node


def is_view(node: Node) -> bool:
    """Whether the result shows the memory of the first argument."""
    op = node.target
    if not isinstance(op, torch._ops.OpOverload):
        return False
    return any(one.alias_info is not None for one in op._schema.returns)


def is_written_later(view: Node) -> bool:
    """Whether a call after `view` works in place on memory that `view` shows."""
    root = view
    while is_view(root) and isinstance(root.args[0], Node):
        root = root.args[0]
    same, todo = {root}, [root]
    while todo:
        for user in todo.pop().users:
            if user not in same and is_view(user) and user.args[0] in same:
                same.add(user)
                todo.append(user)
    return any(view < node and _writes(node) for node in same)


def _writes(node: Node) -> bool:
    op = node.target
    if not isinstance(op, torch._ops.OpOverload):
        return False
    infos = [one.alias_info for one in op._schema.arguments]
    return any(info is not None and info.is_write for info in infos)
