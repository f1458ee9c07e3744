"""`compressor inspect`: the groups of a model in the user's own names."""

from collections.abc import Mapping
from typing import Any

import torch
from rich.text import Text
from rich.tree import Tree

from compressor import passes
from compressor.base.terminal_text import words
from compressor.config import Recipe
from compressor.config.user_file import with_code
from compressor.loading import load_inputs, load_model
from compressor.loading.calls import as_call, check_runs
from compressor.loading.dynamic_axes import free_where_possible, other_sizes
from compressor.loading.short_names import wishes
from compressor.passes.frontend.dynamic_axes import Dynamic
from compressor.passes.ir.fake_weights import has_values
from compressor.passes.pipeline.text import width
from compressor.pipeline.compress import check_ignored
from compressor.pipeline.report_contents import frozen
from compressor.process.progress import Watch


def captured(recipe: Recipe, watch: Watch) -> passes.Program:
    """The program of the recipe's model, which may have no values."""
    with watch.stage("load"):
        recipe = with_code(recipe)
        assert recipe.model is not None
        module, namespace = load_model(
            recipe.model, recipe.weights, values=False, trust=recipe.trust
        )
        args, kwargs = as_call(load_inputs(namespace, recipe.input_shape, recipe.inputs))
        own = recipe.input_shape is None and recipe.inputs is None and not recipe.dynamic
        wished = wishes(namespace)[0] if own else {}
    runs = all(has_values(tensor) for tensor in (*module.parameters(), *module.buffers()))
    if runs:
        check_runs(module, (args, kwargs))

    def found(dynamic: Dynamic) -> passes.Program:
        program = passes.capture(module, args, kwargs, recipe.axes() or dynamic)
        if runs:
            other_sizes(module, program, (program.args, dict(program.kwargs)))
        return program

    with watch.stage("capture"):
        program, _ = free_where_possible(wished, found)
    check_ignored(module, program, recipe.ignore)
    return program


def inspect(recipe: Recipe, watch: Watch) -> dict[str, Any]:
    """Groups with their sizes and what goes with them, and frozen axes with reasons."""
    program = captured(recipe, watch)
    with watch.stage("couple"):
        coupling = passes.couple(program, recipe.ignore)
    costs = {kind: passes.Costs(coupling, kind) for kind in ("params", "macs")}
    return {
        "model": recipe.title,
        "engine": program.engine,
        "operators": sum(1 for _ in program.calls()),
        **{kind: round(one.dense) for kind, one in costs.items()},
        "groups": [_group(group, costs) for group in coupling.groups],
        "frozen": frozen(coupling),
    }


def _group(group: passes.Group, costs: Mapping[str, passes.Costs]) -> dict[str, Any]:
    """The shares are what would go if the whole group went, alone."""
    everything = torch.cat(group.cells)
    shares = {
        f"{kind}_share": round(1 - one.amount(everything) / one.dense, 4) if one.dense else 0.0
        for kind, one in costs.items()
    }
    return {
        "name": group.name,
        "width": width(group),
        "kind": "rows" if group.rows else "channels",
        "size": group.size,
        **shares,
        "axes": [str(axis) for axis in group.axes],
    }


def tree(found: Mapping[str, Any]) -> Tree:
    """A tree of groups for the terminal."""
    root = Tree(
        words(
            f"{found['model']}: {found['params']:,} parameters, {found['macs']:,} MACs "
            f"({found['engine']})"
        )
    )
    groups = root.add(f"{len(found['groups'])} groups of channels that can shrink")
    for group in found["groups"]:
        shares = f"{group['params_share']:.1%} of parameters, {group['macs_share']:.1%} of MACs"
        named = words(f"{group['name']}  {group['width']}  ")
        branch = groups.add(Text.assemble(named, (shares, "dim")))
        for axis in group["axes"][1:]:
            branch.add(words(axis))
    stuck = root.add(f"{len(found['frozen'])} axes that keep their size")
    for one in found["frozen"]:
        stuck.add(words(f"{one['axis']} ({one['size']}): {one['why']}"))
    return root
