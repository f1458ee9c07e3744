"""Faults in the rules of data movement, and in the literals that follow."""

from tests.tools.faults.planted import Fault

MOVEMENT = [
    Fault(
        "one position along an axis is skipped if any axis is whole",
        "operators/movement.py",
        "    if all(array.shape[axis] == 1 for axis in axes):\n",
        "    if any(array.shape[axis] == 1 for axis in axes):\n",
        ("own:places", "case:flip"),
    ),
    Fault(
        "select takes the row before",
        "operators/movement.py",
        'return array.select(axis, int(call["index"]) if',
        'return array.select(axis, max(int(call["index"]) - 1, 0) if',
    ),
    Fault(
        "pieces are handed out in reverse",
        "operators/movement.py",
        "        return call.rerun(array)  # type: ignore[no-any-return]\n    piece",
        "        return call.rerun(array)[::-1]\n    piece",
    ),
    Fault(
        "all pieces have the channels of the first",
        "operators/movement.py",
        "        return call.rerun(array)  # type: ignore[no-any-return]\n    piece",
        "        found = call.rerun(array)\n"
        "        return [found[0] if f.shape == found[0].shape else f for f in found]\n    piece",
    ),
    Fault(
        "repeat repeats each position, not the whole",
        "operators/movement.py",
        "    return array.repeat([n if size > 1 else 1 for n, size in "
        "zip(times, array.shape, strict=True)])",
        "    for axis, n in enumerate(times):\n"
        "        if array.shape[axis] > 1:\n"
        "            array = array.repeat_interleave(n, axis)\n"
        "    return array",
    ),
    Fault(
        "a slice inside rows does not tie them",
        "operators/movement.py",
        'return ledger.pin(x, rows, "is cut inside its rows") if middle else x',
        "return x",
    ),
    Fault(
        "a slice in steps inside rows is like any other",
        "operators/movement.py",
        '        return ledger.pin(x, [axis], "is cut in steps")\n',
        "        return x\n",
    ),
    Fault(
        "a slice by the batch size is like any other",
        "operators/movement.py",
        '        return ledger.pin(x, [axis], "is cut where the batch size says")\n',
        "        pass\n",
    ),
    Fault(
        "a roll inside rows is like any other",
        "operators/movement.py",
        'return ledger.pin(x, axes, "is rolled") if apart else x',
        "return x",
    ),
    Fault(
        "view_as forgets what it is viewed as",
        "operators/movement.py",
        '    return ledger.merge([here, call["other"]], call.shape, f"in {',
        '    return here if here else ledger.merge([here, call["other"]], call.shape, f"in {',
    ),
    Fault(
        "expand_as forgets what it is expanded to",
        "operators/movement.py",
        'return ledger.merge([call.x, call["other"]], call.shape, "in expand_as")',
        "return Value(call.shape, call.x.arrays)",
    ),
    Fault(
        "cat joins in reverse",
        "operators/joining.py",
        "along = torch.cat(_matched(ledger, parts, axis), axis)",
        "along = torch.cat(_matched(ledger, parts[::-1], axis), axis)",
    ),
    Fault(
        "cat begins one position late",
        "operators/joining.py",
        "along = torch.cat(_matched(ledger, parts, axis), axis)",
        "along = torch.cat(_matched(ledger, parts, axis), axis).roll(1, axis)",
    ),
    Fault(
        "cat puts what has no channels last",
        "operators/joining.py",
        "along = torch.cat(_matched(ledger, parts, axis), axis)",
        "parts.sort(key=lambda part: not bool(part.any()))\n"
        "    along = torch.cat(_matched(ledger, parts, axis), axis)",
    ),
    Fault(
        "cat does not tie what lies across",
        "operators/joining.py",
        "        flat, [1 if a == axis else n",
        "        flat[:1], [1 if a == axis else n",
    ),
    Fault(
        "cat of rows and of plain channels does not tie the rows",
        "operators/joining.py",
        "                ledger.tie(parts[index], part)\n",
        "",
    ),
    Fault(
        "padding is labelled on the wrong side",
        "operators/joining.py",
        "arrays[at] = torch.cat([sides[0], array, sides[1]], axis)",
        "arrays[at] = torch.cat([sides[1], array, sides[0]], axis)",
    ),
    Fault(
        "padding with its own entries is like any other",
        "operators/joining.py",
        "            if not constant or low < 0 or high < 0:\n",
        "            if low < 0 or high < 0:\n",
    ),
    Fault(
        "zeros_like follows nothing",
        "operators/joining.py",
        "    return Value(call.shape, call.x.arrays)\n",
        "    return Value(call.shape)\n",
    ),
    Fault(
        "sizes of the batch get labels",
        "operators/joining.py",
        "free = [n if isinstance(raw, int) else 1 for n, raw in zip(shape, literal, strict=True)]",
        "free = list(shape)",
    ),
    Fault(
        "permute is ignored",
        "operators/movement.py",
        "    aten.permute.default: part(rerun, ",
        "    aten.permute.default: part(lambda call, array: array, ",
        ("case:permute", "network:encoder", "case:window_partition", "model:window"),
    ),
    Fault(
        "transpose is ignored",
        "operators/movement.py",
        "    aten.transpose.int: part(rerun, ",
        "    aten.transpose.int: part(lambda call, array: array, ",
        ("case:transpose", "network:encoder", "network:grouped_query"),
    ),
    Fault(
        "flip is ignored",
        "operators/movement.py",
        "    aten.flip.default: row(along_axis, ",
        "    aten.flip.default: row(lambda call, array: array, ",
        ("case:flip", "case:flip_in_rows", "own:shifted"),
    ),
    Fault(
        "roll is ignored",
        "operators/movement.py",
        "    aten.roll.default: row(along_axis, prepared=rolled, ",
        "    aten.roll.default: row(lambda call, array: array, ",
        ("case:roll", "case:roll_of_heads"),
    ),
    Fault(
        "repeat_interleave repeats the whole",
        "operators/movement.py",
        "    aten.repeat_interleave.self_int: row(along_axis),\n",
        "    aten.repeat_interleave.self_int: row(lambda call, array: array if array.shape"
        "[call.axis()] == 1 else torch.cat([array] * int(call['repeats']), call.axis())),\n",
        ("case:repeat_interleave", "network:grouped_query"),
    ),
    Fault(
        "a channel shuffle is ignored",
        "operators/movement.py",
        "    aten.channel_shuffle.default: row(in_full, prepared=shuffled, ",
        "    aten.channel_shuffle.default: row(lambda call, array: array, ",
        ("case:channel_shuffle",),
    ),
]

LITERALS = [
    Fault(
        "views keep their sizes",
        "operators/movement.py",
        "        return {name: list(new.out)}\n",
        "        return {name: list(new.call.shape)}\n",
    ),
    Fault(
        "views get the sizes of their input where those have as many axes",
        "operators/movement.py",
        "        return {name: list(new.out)}\n",
        "        sizes = new.shape(new.call.values[0]) if new.call.values else new.out\n"
        "        return {name: list(sizes if len(sizes) == len(new.out) else new.out)}\n",
    ),
    Fault(
        "unflatten keeps its sizes",
        "operators/movement.py",
        'return {"sizes": list(new.out[axis : axis + count])}',
        "return {}",
    ),
    Fault(
        "pieces keep their sizes",
        "operators/movement.py",
        'return {"op": aten.split_with_sizes.default, "split_sizes": sizes}',
        "return {}",
    ),
    Fault(
        "pieces are all as large as the first, and the rest",
        "operators/movement.py",
        "    sizes = [new.extent(value, axis) for value in new.results]\n",
        "    total = new.extent(new.call.x, axis)\n"
        "    each = total // len(new.results)\n"
        "    sizes = [each] * (len(new.results) - 1) + [total - each * (len(new.results) - 1)]\n",
    ),
    Fault(
        "the sizes of pieces are in reverse",
        "operators/movement.py",
        "    sizes = [new.extent(value, axis) for value in new.results]\n",
        "    sizes = [new.extent(value, axis) for value in new.results][::-1]\n",
    ),
    Fault(
        "slices keep their bounds",
        "operators/movement.py",
        '    return {"start": first, "end": end}\n',
        "    return {}\n",
    ),
    Fault(
        "slices begin one position late",
        "operators/movement.py",
        "        before = int(kept[:first].sum())\n",
        "        before = int(kept[: first + 1].sum())\n",
    ),
    Fault(
        "slices shrink in proportion",
        "operators/movement.py",
        "        before = int(kept[:first].sum())\n",
        "        before = first * size // len(kept)\n",
    ),
    Fault(
        "slices end where they did",
        "operators/movement.py",
        "        return before, before + int(kept[first:end].sum())\n",
        "        return before, min(end, size)\n",
    ),
    Fault(
        "slices of ragged rows are taken from the front",
        "operators/movement.py",
        "return (0, taken) if first == 0 else (size - taken, size)",
        "return (0, taken)",
    ),
    Fault(
        "narrow ends where it should be long",
        "operators/movement.py",
        'return {"start": first, "length": end - first}',
        'return {"start": first, "length": end}',
    ),
    Fault(
        "select keeps its index",
        "operators/movement.py",
        '{"index": new_span(new)[0]}',
        "{}",
    ),
    Fault(
        "padding keeps its widths",
        "operators/joining.py",
        '    return {"pad": pad}\n',
        "    return {}\n",
    ),
    Fault(
        "padding counts its end from the front",
        "operators/joining.py",
        "int(kept[len(kept) - high :].sum())",
        "int(kept[:high].sum())",
    ),
]

FAULTS = [*MOVEMENT, *LITERALS]
