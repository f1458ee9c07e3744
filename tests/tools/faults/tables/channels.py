"""Faults in classes, rows, stacks, grids, and regions that only reorder."""

from tests.tools.faults.planted import Fault

COUPLING = [
    Fault(
        "what meets a position without a channel may go",
        "coupling/groups.py",
        '    why.add(classes[lost].numpy(), "meets positions that cannot go")\n',
        "",
        ("own:mixed", "case:cat_with_the_input"),
    ),
    Fault(
        "ties are followed one step only",
        "coupling/shared_entries.py",
        "            root = root[root]\n    return root\n",
        "            root = root[root]\n        break\n    return root\n",
    ),
    Fault(
        "only the first position of a frozen array stays",
        "coupling/groups.py",
        "why.add(classes[labels].unique().numpy(), text + place)",
        "why.add(classes[labels[:1]].unique().numpy(), text + place)",
    ),
    Fault(
        "frozen channels may go",
        "coupling/groups.py",
        "    free[stacks.why.index > 0] = False\n",
        "",
    ),
    Fault(
        "channels are alike whatever results they lie in",
        "coupling/groups.py",
        "        *(v for r in trace.results.values() for v in results_of(r)),\n",
        "",
        ("case:split_unequal", "case:chunk", "network:shuffled", "model:shuffle"),
    ),
    Fault(
        "all channels are alike",
        "coupling/groups.py",
        "np.add.at(total, classes[array.reshape(-1)].numpy(), salt)",
        "total[classes[array.reshape(-1)].numpy()] = 1",
    ),
    Fault(
        "a row goes with its first entry only",
        "coupling/groups.py",
        "edges.append(torch.stack([left.repeat_interleave(right.shape[1]), right.reshape(-1)]))",
        "edges.append(torch.stack([left, right[:, 0]]))",
    ),
    Fault(
        "a row goes with all its entries but the last",
        "coupling/groups.py",
        "        left, right = classes[rows], classes[members]\n",
        "        members = members[:, : max(members.shape[1] - 1, 1)]\n"
        "        left, right = classes[rows], classes[members]\n",
    ),
    Fault(
        "a row may go though a part of it is frozen",
        "coupling/groups.py",
        "if not len(bundle) or why.index[bundle].any():",
        "if not len(bundle):",
    ),
    Fault(
        "rows may go though others are uneven then",
        "coupling/groups.py",
        "elif len(bundle) and not grids.can_lose(bundle):",
        "elif False:",
        (
            "case:conv_of_conv_grouped_twice",
            "case:attention_fused",
            "case:flatten_of_two_labelled_axes",
        ),
    ),
    Fault(
        "the names of rows are channels of their own",
        "coupling/groups.py",
        "    free[of[rows]] = False\n",
        "",
        ("case:attention_by_hand", "case:group_norm", "network:encoder"),
    ),
    Fault(
        "what cannot stay even may go",
        "coupling/groups.py",
        '        stacks.why.add(stuck, f"its rows cannot stay equally long{place}")\n',
        "        cells.append([stuck])\n",
        ("case:conv_of_conv_grouped_twice", "own:turned"),
    ),
    Fault(
        "the classes of a channel are those of the next",
        "coupling/groups.py",
        "        return torch.from_numpy(classes[chosen[owner]])",
        "        return torch.from_numpy(np.roll(classes, -1)[chosen[owner]])",
    ),
    Fault(
        "rows take the first of their classes with them",
        "coupling/groups.py",
        "        chosen[channels.numpy()] = True\n",
        "        chosen[channels.numpy()] = True\n"
        "        chosen[owner[1:][owner[1:] == owner[:-1]]] &= len(channels) % 2 == 0\n",
    ),
    Fault(
        "the lengths of rows and of single channels are mixed up",
        "coupling/groups.py",
        "lengths = torch.cat([none, *self._lengths])",
        "lengths = torch.cat([none, *self._lengths]).sort().values",
        ("case:attention_grouped", "network:grouped", "network:encoder"),
    ),
    Fault(
        "nothing inside any reordered region needs to be even, nor around it",
        "coupling/groups.py",
        "    waived = {node for gather in gathers for node in gather.inside}\n",
        "    waived = {n for gather in gathers for node in gather.inside for n in node.users}\n",
    ),
]

STACKS = [
    Fault(
        "what rows share is not tied to them",
        "ir/labels.py",
        "                self.columns.append(Column(flat[0][:, 0], flat[1]))\n",
        "                pass\n",
        networks=("network:rotary", "case:attention_rotary", "case:attention_with_one_key_head"),
    ),
    Fault(
        "what rows share is tied to the first row only",
        "ir/labels.py",
        "                self.columns.append(Column(flat[0][:, 0], flat[1]))\n",
        "                self.columns.append(Column(flat[0][:, 0], flat[1][:, :1]))\n",
        networks=("network:rotary", "case:attention_rotary", "case:attention_with_one_key_head"),
    ),
    Fault(
        "the entries of a column are those of a row",
        "ir/labels.py",
        "flat = [one.permute(order).reshape(-1, rows) for one in (first, wide)]",
        "flat = [one.reshape(rows, -1).t() if rows == 1 else one.reshape(-1, rows)\n"
        "                        for one in (first, wide)]",
        networks=("network:rotary", "case:attention_rotary", "case:attention_with_one_key_head"),
    ),
    Fault(
        "a column may run empty",
        "coupling/rectangles.py",
        "return not self._breaks(classes) and self._columns.can_lose(classes)",
        "return not self._breaks(classes)",
        networks=("network:rotary", "case:attention_rotary", "case:attention_with_one_key_head"),
    ),
    Fault(
        "entries that rows share go in the first row only",
        "coupling/shared_entries.py",
        "        counts = self._counts[which]\n",
        "        counts = self._counts[which].clamp(max=1)\n",
        networks=("network:rotary", "case:attention_rotary", "case:attention_with_one_key_head"),
    ),
    Fault(
        "a stack may go though a part of it is frozen",
        "coupling/shared_entries.py",
        "        found.index[stacks.numpy()[stuck]] = self.index[stuck]\n",
        "",
        networks=("network:rotary", "case:attention_rotary", "case:attention_with_one_key_head"),
    ),
]

GRIDS = [
    Fault(
        "rows of any length leave a rectangle",
        "coupling/rectangles.py",
        "        return not self._breaks(classes)",
        "        return True",
        ("case:conv_of_conv_grouped_twice", "network:grouped", "network:grouped_query"),
    ),
    Fault(
        "grids of equal sizes are one",
        "coupling/rectangles.py",
        "key = (tuple(table.shape), table.numpy().tobytes())",
        'key = (tuple(table.shape), b"")',
    ),
    Fault(
        "groups that lie in some rows only shrink alone",
        "coupling/rectangles.py",
        "        if not uneven:\n            return []\n",
        "        return []\n",
    ),
    Fault(
        "groups that are even only together are not joined",
        "coupling/rectangles.py",
        "            join[_root(join, g)] = _root(join, uneven[0])\n",
        "            pass\n",
    ),
    Fault(
        "all channels of a group are one cell",
        "coupling/rectangles.py",
        "        pattern[ones] = pattern[ones] * np.uint64(0x9E3779B97F4A7C15) + kind\n",
        "",
    ),
    Fault(
        "the cells of a group are told by their last grid",
        "coupling/rectangles.py",
        "        pattern[ones] = pattern[ones] * np.uint64(0x9E3779B97F4A7C15) + kind\n",
        "        pattern[ones] = kind\n",
    ),
    Fault(
        "every channel fills rows",
        "coupling/rectangles.py",
        "        found: Array = whole & (rows",
        "        found: Array = whole | (rows",
    ),
    Fault(
        "classes that fill rows need not be cut straight through",
        "coupling/rectangles.py",
        "straight\n        return found\n",
        "straight\n        return whole\n",
    ),
    Fault(
        "rows are counted along the wrong axis",
        "coupling/rectangles.py",
        "table = self.tables[index].reshape(-1, self.tables[index].shape[-1]).numpy()",
        "table = self.tables[index].mT.reshape(-1, self.tables[index].shape[-1]).numpy()",
    ),
    Fault(
        "what stays uneven may shrink",
        "coupling/rectangles.py",
        "            if uneven and min(map(len, cells)) > 1:",
        "            if False:",
    ),
    Fault(
        "a stuck grid sticks one of its groups only",
        "coupling/rectangles.py",
        "            if bad & set(together):",
        "            if bad & set(together[1:]):",
    ),
]

GATHERS = [
    Fault(
        "a reordered axis is read backwards",
        "coupling/permutations.py",
        "source = ids[own].flatten() - 1",
        "source = ids[own].flatten().flip(0) - 1",
    ),
    Fault(
        "a reordered axis is read from the next position",
        "coupling/permutations.py",
        "source = ids[own].flatten() - 1",
        "source = ids[own].flatten() % start.shape[own]",
    ),
    Fault(
        "the rows of a shuffle are dealt as they are",
        "coupling/permutations.py",
        "source = ids[own].flatten() - 1",
        "source = torch.arange(end.shape[own])",
    ),
    Fault(
        "a region may be read from in its middle",
        "coupling/permutations.py",
        "        if len(node.users) != 1:\n            return None\n",
        "",
        ("own:middle",),
    ),
    Fault(
        "a region may move other axes as well",
        "coupling/permutations.py",
        "        if axis != own and not torch.equal(array, position_ids(start, axis)):\n"
        "            return None\n",
        "",
        ("own:turned",),
    ),
    Fault(
        "a region may end on another axis",
        "coupling/permutations.py",
        "if along != [[(own,)], [(own,)]]:",
        "if along[0] != [(own,)]:",
        ("own:turned", "case:channel_shuffle_of_tokens"),
    ),
    Fault(
        "a roll is no reordering",
        "operators/movement.py",
        'aten.roll.default: row(along_axis, prepared=rolled, reorders="positions")',
        "aten.roll.default: row(along_axis, prepared=rolled)",
        ("case:roll",),
    ),
    Fault(
        "a region ends one call early",
        "coupling/permutations.py",
        "        if not _on_several_axes(trace.results[node]):\n            break\n",
        "        if not _on_several_axes(trace.results[node]) or len(inside) == 1:\n"
        "            break\n",
    ),
]

FAULTS = [*COUPLING, *STACKS, *GRIDS, *GATHERS]
