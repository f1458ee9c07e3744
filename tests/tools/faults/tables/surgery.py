"""Faults in capture, choice, sizes, kept indices and the surgery itself."""

from tests.tools.faults.planted import Fault

CAPTURE = [
    Fault(
        "calls without users are dropped, also those that write in place",
        "frontend/torch_export.py",
        'unread = node.op == "get_attr" and not node.users',
        'unread = node.op in ("get_attr", "call_function") and not node.users',
        ("case:copy_into_a_slice", "case:zeros_written", "case:add_"),
    ),
    Fault(
        "a graph inside the graph gets its inputs in reverse",
        "frontend/torch_export.py",
        "twins = dict(zip(inputs, node.args[place + 1 :], strict=True))",
        "twins = dict(zip(inputs, node.args[place + 1 :][::-1], strict=True))",
        ("own:parts", "case:gradients_off"),
    ),
    Fault(
        "of a graph inside the graph the first result is all",
        "frontend/torch_export.py",
        "user.replace_all_uses_with(results[index])",
        "user.replace_all_uses_with(results[0])",
        ("own:parts",),
    ),
    Fault(
        "tied tensors get the name of another",
        "frontend/torch_export.py",
        "owner = {id(tensors[name]): name for name in sorted(read)}",
        "owner = {id(tensors[name]): sorted(read)[0] for name in sorted(read)}",
        ("case:embedding_tied",),
    ),
    Fault(
        "a model is captured in training mode",
        "frontend/torch_export.py",
        "    model.eval()\n    try",
        "    model.train()\n    try",
        networks=("network:residual", "case:batch_norm"),
    ),
]

PLAN = [
    Fault(
        "one of the cells of a group loses nothing",
        "planning/search.py",
        "gone = [cell[:count] for order, count in pairs for cell in order]",
        "gone = [c[:count] for order, count in pairs for c in order[: max(len(order) - 1, 1)]]",
    ),
    Fault(
        "only one of the cells of a group shrinks",
        "planning/search.py",
        "gone = [cell[:count] for order, count in pairs for cell in order]",
        "gone = [cell[:count] for order, count in pairs for cell in order[:1]]",
    ),
    Fault(
        "ranks stand for channels",
        "importance/ranking.py",
        "tuple(cell[torch.argsort(scores[cell], stable=True)] for cell in group.cells)",
        "tuple(torch.argsort(scores[cell], stable=True) for cell in group.cells)",
    ),
    Fault(
        "the most important channels go first",
        "importance/ranking.py",
        "tuple(cell[torch.argsort(scores[cell], stable=True)] for cell in group.cells)",
        "tuple(cell[torch.argsort(-scores[cell], stable=True)] for cell in group.cells)",
    ),
    Fault(
        "a group may lose everything",
        "planning/search.py",
        "kept = [n for n in range(group.size, 0, -1) if n == group.size or n % unit == 0]\n"
        "        return [group.size - n for n in kept if n >= least or n == group.size]",
        "return list(range(group.size + 1))",
    ),
    Fault(
        "cells lose one channel more in every other row",
        "planning/search.py",
        "gone = [cell[:count] for order, count in pairs for cell in order]",
        "gone = [cell[: count + i % 2] for order, count in pairs for i, cell in enumerate(order)]",
    ),
    Fault(
        "scores are those of the next channel",
        "importance/magnitude.py",
        "return total.index_add(0, owner, score[classes])",
        "return total.index_add(0, owner, score[classes]).roll(1)",
    ),
]

SIZES = [
    Fault(
        "splits that share an axis are looked at one by one",
        "coupling/sizes.py",
        "            if other_axes & axes:\n",
        "            if other_axes == axes:\n",
    ),
    Fault(
        "a position stays if one of its labels stays",
        "coupling/sizes.py",
        "                stays = stays & self._stays(array)\n            self",
        "                stays = stays | self._stays(array)\n            self",
    ),
    Fault(
        "every axis of a split has the size of its rows",
        "coupling/sizes.py",
        "return rectangle(self.mask(arrays, axes))[axes.index(axis)]",
        "return rectangle(self.mask(arrays, axes))[0]",
    ),
    Fault(
        "an index is kept only if it is kept in every row",
        "coupling/sizes.py",
        "return stays.movedim(axes.index(axis), 0).reshape(value.shape[axis], -1).any(1)",
        "return stays.movedim(axes.index(axis), 0).reshape(value.shape[axis], -1).all(1)",
    ),
    Fault(
        "the first index is always kept",
        "coupling/sizes.py",
        "return stays.movedim(axes.index(axis), 0).reshape(value.shape[axis], -1).any(1)",
        "k = stays.movedim(axes.index(axis), 0).reshape(value.shape[axis], -1).any(1).roll(1)\n"
        "                return k",
    ),
    Fault(
        "axes come back in another order after a cut",
        "coupling/sizes.py",
        "order = [*axes, *rest]\n",
        "order = [*rest, *axes]\n",
    ),
    Fault(
        "only the first shrinking axis of a tensor is cut",
        "coupling/sizes.py",
        "                continue\n            index",
        "                break\n            index",
    ),
    Fault(
        "kept indices are sorted in descending order",
        "coupling/sizes.py",
        "index = torch.from_numpy(np.flatnonzero(stays.numpy()))",
        "index = torch.from_numpy(np.flatnonzero(stays.numpy())[::-1].copy())",
    ),
    Fault(
        "a cut keeps the neighbours of what it should keep",
        "coupling/sizes.py",
        "index = torch.from_numpy(np.flatnonzero(stays.numpy()))",
        "index = torch.from_numpy(np.flatnonzero(np.roll(stays.numpy(), 1)))",
    ),
    Fault(
        "a cut keeps as many as it should, the first ones",
        "coupling/sizes.py",
        "index = torch.from_numpy(np.flatnonzero(stays.numpy()))",
        "index = torch.arange(int(stays.sum()))",
    ),
    Fault(
        "the rows of a ragged cut are all cut like the first",
        "coupling/sizes.py",
        "index = torch.from_numpy(np.flatnonzero(stays.numpy()))",
        "if stays.dim() == 2:\n"
        "                first = stays[stays.any(1)][:1]\n"
        "                stays = stays.any(1, keepdim=True) & first\n"
        "            index = torch.from_numpy(np.flatnonzero(stays.numpy()))",
    ),
    Fault(
        "masks are remembered by their axes",
        "coupling/sizes.py",
        "key = tuple(id(array) for array in arrays)",
        "key = tuple(n for array in arrays for n in array.shape)",
        ("network:residual", "network:grouped"),
    ),
]

KEPT = [
    Fault(
        "removed indices are published as kept",
        "coupling/kept_indices.py",
        "return union.nonzero().flatten().tolist()",
        "return (~union).nonzero().flatten().tolist()",
    ),
    Fault(
        "kept indices are published in descending order",
        "coupling/kept_indices.py",
        "return union.nonzero().flatten().tolist()",
        "return union.nonzero().flatten().tolist()[::-1]",
    ),
    Fault(
        "kept indices are counted from one",
        "coupling/kept_indices.py",
        "return union.nonzero().flatten().tolist()",
        "return (union.nonzero().flatten() + 1).tolist()",
    ),
    Fault(
        "all rows are published with the entries of the first",
        "coupling/kept_indices.py",
        "return [row.nonzero().flatten().tolist() for row in whole if bool(row.any())]",
        "return [whole[0].nonzero().flatten().tolist() for row in whole if bool(row.any())]",
    ),
    Fault(
        "ragged rows are published from the last to the first",
        "coupling/kept_indices.py",
        "return [row.nonzero().flatten().tolist() for row in whole if bool(row.any())]",
        "return [row.nonzero().flatten().tolist() for row in whole if bool(row.any())][::-1]",
    ),
    Fault(
        "the kept indices of one dimension are published for the next",
        "coupling/kept_indices.py",
        "            dims.append(_kept_along(sizes, value, axis))\n",
        "            dims.insert(0, _kept_along(sizes, value, axis))\n",
    ),
]

SHRINK = [
    Fault(
        "buffers are not cut",
        "transforms/prune.py",
        "small = sizes.cut(tensor.detach(), coupling.state[name])",
        "small = sizes.cut(tensor.detach(), coupling.state[name]) "
        "if isinstance(tensor, nn.Parameter) else tensor",
    ),
    Fault(
        "running variances are not cut at the right places",
        "transforms/prune.py",
        "small = sizes.cut(tensor.detach(), coupling.state[name])",
        "small = sizes.cut(tensor.detach(), coupling.state[name])\n"
        "            if name.endswith('running_var'):\n"
        "                small = tensor.detach()[: len(small)]",
    ),
    Fault(
        "biases are not cut at the right places",
        "transforms/prune.py",
        "small = sizes.cut(tensor.detach(), coupling.state[name])",
        "small = sizes.cut(tensor.detach(), coupling.state[name])\n"
        "            if name.endswith('bias'):\n"
        "                small = tensor.detach()[: len(small)]",
    ),
    Fault(
        "the transpose of a square weight is cut",
        "transforms/prune.py",
        "small = sizes.cut(tensor.detach(), coupling.state[name])",
        "whole = tensor.detach()\n"
        "            square = whole.dim() == 2 and whole.shape[0] == whole.shape[1]\n"
        "            small = sizes.cut(whole.t() if square else whole, coupling.state[name])",
    ),
    Fault(
        "tensors of one set of labels share their values",
        "transforms/prune.py",
        "        key = id(coupling.state[name])\n",
        "        key = hash(tuple(coupling.state[name].shape))\n",
        ("network:residual", "network:encoder"),
    ),
    Fault(
        "a tied weight is cut once for each name",
        "transforms/prune.py",
        "        if key not in done:\n            small",
        "        if True:\n            small",
        ("case:embedding_tied", "case:shared_twice"),
    ),
    Fault(
        "parameters become constants",
        "transforms/prune.py",
        "            wrap = isinstance(tensor, nn.Parameter)\n",
        "            wrap = False\n",
    ),
    Fault(
        "literals change only where all sizes change",
        "transforms/prune.py",
        "    if all(sizes.shape(v) == v.shape for v in [*call.values, *results]):",
        "    if any(sizes.shape(v) == v.shape for v in [*call.values, *results]):",
    ),
    Fault(
        "literals follow the results, not the arguments",
        "transforms/prune.py",
        "    if all(sizes.shape(v) == v.shape for v in [*call.values, *results]):",
        "    if all(sizes.shape(v) == v.shape for v in results):",
    ),
    Fault(
        "sizes that are inferred become those of the example",
        "transforms/prune.py",
        "            result.append(-1 if was == -1 else int(after))",
        "            result.append(int(after))",
        ("case:linear_to_picture", "case:window_partition", "case:heads_in_the_batch"),
    ),
    Fault(
        "symbolic sizes become those of the example",
        "transforms/prune.py",
        "            result.append(was if before == after else _scaled(twin, was, before, after))",
        "            result.append(int(after))",
        ("case:heads_in_the_batch", "case:attention_in_the_batch", "case:view", "model:window"),
    ),
    Fault(
        "symbolic sizes are not scaled",
        "transforms/prune.py",
        "            result.append(was if before == after else _scaled(twin, was, before, after))",
        "            result.append(was)",
        (
            "case:heads_in_the_batch",
            "case:attention_in_the_batch",
            "case:heads_in_the_batch_by_its_size",
            "model:window",
        ),
    ),
    Fault(
        "symbolic sizes are scaled the other way round",
        "transforms/prune.py",
        "        many = graph.call_function(operator.mul, (size, after // common))\n"
        "        return graph.call_function(operator.floordiv, (many, before // common))",
        "        many = graph.call_function(operator.mul, (size, before // common))\n"
        "        return graph.call_function(operator.floordiv, (many, after // common))",
        (
            "case:heads_in_the_batch",
            "case:attention_in_the_batch",
            "case:heads_in_the_batch_by_its_size",
            "model:window",
        ),
    ),
    Fault(
        "literals get the place of their neighbour",
        "transforms/prune.py",
        "        elif argument.kwarg_only:\n"
        "            kwargs[argument.name] = raw[argument.name]\n"
        "        else:\n            args.append(raw[argument.name])\n",
        "        elif argument.kwarg_only:\n            pass\n"
        "        else:\n            args.append(raw[argument.name])\n",
    ),
    Fault(
        "a selection counts from one",
        "transforms/prune.py",
        "    place = before.cumsum(0) - 1\n",
        "    place = before.cumsum(0).clamp(max=int(before.sum()) - 1)\n",
    ),
    Fault(
        "a selection is in ascending order",
        "transforms/prune.py",
        "    index = place[gather.source[after]]\n",
        "    index = place[gather.source[after]].sort().values\n",
    ),
    Fault(
        "a selection is of the positions that were in front",
        "transforms/prune.py",
        "    index = place[gather.source[after]]\n",
        "    index = place[gather.source[before]]\n",
    ),
    Fault(
        "a selection picks from axis 1",
        "transforms/prune.py",
        "aten.index_select.default, (entry, gather.axis, constant)",
        "aten.index_select.default, (entry, 1, constant)",
        ("case:channel_shuffle_of_tokens",),
    ),
    Fault(
        "a selection is made though nothing went",
        "transforms/prune.py",
        "    if bool(before.all()):\n        return []\n",
        "",
    ),
    Fault(
        "selections share one index",
        "transforms/prune.py",
        "name = f\"gather_{len([key for key in state if key.startswith('gather_')])}\"",
        'name = "gather_0"',
        ("case:channel_shuffle_twice", "model:shuffle"),
    ),
    Fault(
        "other names of tied tensors are lost",
        "ir/rebuild.py",
        "    for alias, name in program.aliases.items():\n"
        "        attach(module, alias, state[name])\n",
        "",
        ("case:embedding_tied",),
    ),
]

FAULTS = [*CAPTURE, *PLAN, *SIZES, *KEPT, *SHRINK]
