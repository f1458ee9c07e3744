"""From a live `nn.Module` to a `Program`, by `torch.export`.

Tried in this order, and the one that worked is named in `Program.engine`. What was captured must
compute what the module computes on the example inputs, or the next is tried:

    1. dynamic batch    dimension 0 of every input that shares the batch size is symbolic
    2. static batch     exactly the example's sizes
    3. strict mode      TorchDynamo instead of tracing in Python
    4. make_fx          tracing on the example inputs, for models that torch.export refuses

FreeAxes that the user names are symbolic in the first two, or the model is refused.
"""

import io
import operator
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import GraphModule, Interpreter, Node
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils import _pytree as pytree

from ..base.errors import ContractError, UsageError
from ..base.library_logs import quiet
from ..ir.dtypes import attach
from ..ir.fake_weights import has_values, imagined
from ..ir.leaves import fresh, tensors
from ..ir.program import FreeAxes, Nested, Program, fetch, shares_batch
from ..ir.shapes import trimmed
from .decompositions import decompose
from .dynamic_axes import Dynamic, check_apart, dynamic_shapes, fixes, free_axes, input_names

aten = torch.ops.aten

_LEAST_BATCH = 2
"""A batch of one would be burnt in as a constant by torch.export."""

Attempt = Callable[[], Program]


def capture(
    model: nn.Module,
    args: tuple[Nested, ...],
    kwargs: Mapping[str, Nested],
    dynamic: Dynamic | None = None,
) -> Program:
    """Trace `model` in eval mode; the module itself is left as it was.

    `dynamic` names axes of inputs that stay free: ``{"ids": {1: "sequence"}}`` (see `free`).
    Raises UsageError with the reason of every attempt if none of them captures the model.
    """
    _refuse_names(model)
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        with imagined(model, (args, dict(kwargs))) as (args, kwargs):
            axes = free_axes(model.forward, args, kwargs, dynamic or {})
            with fixes(axes) as fixed:
                return _captured(model, args, dict(kwargs), axes, fixed)
    finally:
        for module, training in modes:
            module.training = training


def _refuse_names(model: nn.Module) -> None:
    """Raise UsageError for parts with a name that a captured graph has a use of its own for."""
    taken = sorted({name.split(".")[0] for name in model.state_dict()} & _RESERVED)
    if taken:
        raise UsageError(
            f"the model {type(model).__name__} cannot be captured",
            why=f"it has a part called {taken[0]!r}, a name that torch.fx keeps for itself",
            hint=f"rename it, and its weights: {taken[0]}_ would do",
        )


_RESERVED = set(dir(GraphModule)) - set(dir(nn.Module))


def _captured(
    model: nn.Module,
    args: tuple[Nested, ...],
    kwargs: dict[str, Nested],
    axes: FreeAxes,
    fixed: Mapping[str, str],
) -> Program:
    failures: list[str] = []
    for name, attempt in _attempts(model, args, kwargs, axes):
        try:
            with _nothing_printed(), torch.no_grad():
                program = attempt()
                decompose(program.module)
                trimmed(program.module)
                program.check()
        except Exception as error:  # whatever the tracer raises is the reason we report
            first = str(error).strip().splitlines() or [""]
            failures.append(f"{name}: {type(error).__name__}: {first[0][:200]}")
            continue
        if program.batch is not None or name != "dynamic batch" or _batch(args, kwargs) != 1:
            check_apart(program)
            return replace(program, aliases=_aliases(model, program))
        failures.append(f"{name}: the model fixes its batch size")
    wanted = _wanted(model, args, kwargs, axes)
    if reasons := [f"{axis} {why}" for axis, why in fixed.items() if axis in wanted]:
        raise UsageError(
            f"the model {type(model).__name__} cannot be captured with these axes free: "
            f"{', '.join(axis for axis in wanted if axis in fixed)}",
            why="; ".join(reasons),
            hint="leave them out of what is dynamic, or compute there with x.shape, not a number",
        )
    raise UsageError(
        f"the model {type(model).__name__} cannot be captured"
        f"{f' with these axes free: {listed}' if (listed := ', '.join(wanted)) else ''}",
        why="; ".join(failures),
        hint="make its forward traceable by torch.export.export(model, args), then run again",
    )


_TOLERANCE = 1e-4
"""Of the largest output: kernels of the eager module may be fused. Coarser for half precision."""


def _checked(
    program: Program, model: nn.Module, args: tuple[Nested, ...], kwargs: dict[str, Nested]
) -> Program:
    """The program. Raises UsageError unless it agrees with the module, in their own precision.

    A module that does not agree with itself draws random numbers; the proof refuses those.
    """
    if not all(map(has_values, [*model.parameters(), *model.buffers()])):
        return program
    leaves = fresh(pytree.tree_leaves((args, kwargs)))
    found = _Unwritten(program.module).run(*leaves, enable_io_processing=False)
    wanted = eager(model, args, kwargs)
    if _close(wanted, found) or not _close(wanted, eager(model, args, kwargs)):
        return program
    raise UsageError("what was captured computes something else than the model")


class _Unwritten(Interpreter):
    """Runs a graph whose buffers stay as they are, also where it writes into them."""

    def fetch_attr(self, target: str) -> Any:
        found = super().fetch_attr(target)
        writable = isinstance(found, Tensor) and not isinstance(found, nn.Parameter)
        return found.clone() if writable else found


def eager(model: nn.Module, args: tuple[Nested, ...], kwargs: dict[str, Nested]) -> Nested:
    """What the module gives in eval mode; its buffers and the inputs stay as they are.

    Without torch's fused encoder layers, which no tracer sees: they give zeros for padding.
    """
    buffers = {name: one.clone() for name, one in model.named_buffers()}
    args, kwargs = fresh((args, kwargs))
    model.eval()  # whatever mode it was traced in; `capture` puts it back
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        return torch.func.functional_call(model, buffers, args, kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def _close(a: Nested, b: Nested) -> bool:
    mine, theirs = tensors(a), tensors(b)
    return len(mine) == len(theirs) and all(map(_near, mine, theirs))


def _near(a: Tensor, b: Tensor) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    if not a.is_floating_point() or not a.numel():
        return True  # an index may turn over with the last digit
    tolerance = max(_TOLERANCE, 16 * torch.finfo(a.dtype).eps)
    limit = tolerance * float(a.detach().abs().nan_to_num(posinf=0.0).max())
    return torch.allclose(a, b, rtol=tolerance, atol=limit, equal_nan=True)


def _wanted(
    model: nn.Module, args: tuple[Nested, ...], kwargs: dict[str, Nested], axes: FreeAxes
) -> list[str]:
    names = input_names(model.forward, args, kwargs)
    return [f"axis {axis} of {names[position]}" for position, own in axes.items() for axis in own]


def _aliases(model: nn.Module, program: Program) -> dict[str, str]:
    """Other names of the tensors that the graph reads: it knows each by one."""
    named = dict(model.named_parameters(remove_duplicate=False))
    tensors: dict[str, Tensor] = {**named, **dict(model.named_buffers(remove_duplicate=False))}
    read = program.tensors().keys() & tensors.keys()
    owner = {id(tensors[name]): name for name in sorted(read)}
    found = {
        name: owner[id(tensor)]
        for name, tensor in tensors.items()
        if name not in read and id(tensor) in owner
    }
    if any(tensors[alias] is not tensors[name] for alias, name in found.items()):
        raise ContractError("a tied tensor has the name of another")
    return found


@contextmanager
def _nothing_printed() -> Iterator[None]:
    """torch.export warns, logs, and prints the graph where it gave up; our report says why."""
    with quiet("torch.export", "torch._dynamo", "torch.fx"), redirect_stderr(io.StringIO()):
        yield


def _attempts(
    model: nn.Module, args: tuple[Nested, ...], kwargs: dict[str, Nested], axes: FreeAxes
) -> Iterator[tuple[str, Attempt]]:
    batch = _batch(args, kwargs)
    if batch is not None:
        more, named = _widen((args, kwargs), batch)
        yield (
            "dynamic batch",
            lambda: _export(model, more, named, axes, batch=max(batch, _LEAST_BATCH)),
        )
    yield "static batch", lambda: _export(model, args, kwargs, axes)
    if axes:
        return  # torch.export alone knows symbols
    yield "strict mode", lambda: _export(model, args, kwargs, axes, strict=True)
    yield "make_fx", lambda: _make_fx(model, args, kwargs)


def _export(
    model: nn.Module,
    args: tuple[Nested, ...],
    kwargs: dict[str, Nested],
    axes: FreeAxes,
    *,
    batch: int | None = None,
    strict: bool = False,
) -> Program:
    dynamic = dynamic_shapes(model.forward, args, kwargs, batch, axes)
    exported = torch.export.export(model, args, kwargs, dynamic_shapes=dynamic, strict=strict)
    module = exported.module()
    assert isinstance(module, GraphModule)
    clean(module)
    inputs = [node.meta.get("val") for node in module.graph.nodes if node.op == "placeholder"]
    symbolic = batch is not None and any(
        isinstance(val, Tensor) and val.dim() > 0 and _is_symbol(val.shape[0]) for val in inputs
    )
    name = "strict mode" if strict else "dynamic batch" if symbolic else "static batch"
    program = Program(
        module, args, kwargs, f"torch.export, {name}", batch if symbolic else None, axes
    )
    if free := " and ".join(program.free):
        program = replace(program, engine=f"{program.engine}, free {free}")
    return _checked(program, model, args, kwargs)


def _is_symbol(size: Any) -> bool:
    return isinstance(size, torch.SymInt) and size.node.maybe_as_int() is None


def _make_fx(model: nn.Module, args: tuple[Nested, ...], kwargs: dict[str, Nested]) -> Program:
    leaves, spec = pytree.tree_flatten((args, kwargs))
    weights = {**dict(model.named_parameters()), **dict(model.named_buffers())}

    def call(tensors: dict[str, Tensor], *inputs: Any) -> Any:
        args, kwargs = pytree.tree_unflatten(list(inputs), spec)
        return torch.func.functional_call(model, tensors, args, kwargs)

    traced = make_fx(call, tracing_mode="fake", _allow_non_fake_inputs=True)(weights, *leaves)
    read_inside(traced, weights)
    if kwargs or any(not isinstance(leaf, Tensor) for leaf in leaves):
        raise UsageError("make_fx captures only models that take plain tensors")
    program = Program(traced, tuple(leaves), {}, "make_fx, static shapes", None)
    real = all(map(has_values, weights.values()))
    if real and not all(map(has_values, program.tensors().values())):
        raise UsageError("a part of the model ran unseen, in another thread perhaps")
    return _checked(program, model, args, kwargs)


def read_inside(module: GraphModule, weights: Mapping[str, Tensor]) -> None:
    """The first inputs of a traced graph, which are its weights, become tensors of its own."""
    graph = module.graph
    state = [node for node in graph.nodes if node.op == "placeholder"][: len(weights)]
    for node, (name, tensor) in zip(state, weights.items(), strict=True):
        attach(module, name, tensor)
        with graph.inserting_before(node):
            read = graph.get_attr(name)
        read.meta = dict(node.meta)
        node.replace_all_uses_with(read)
        graph.erase_node(node)
    graph.set_codegen(torch.fx.graph.CodeGen())
    clean(module)


def clean(module: GraphModule) -> None:
    """Drop what only guards the capture: shape guards, metadata assertions, dead reads.

    The guards would refuse the float64 twin that the proof runs, and say nothing of the network.
    Parts of the graph that were traced in another mode become parts of the graph again.
    """
    for node in list(module.graph.nodes):
        if _only_sets_a_mode(node):
            _inline(module, node)
    for node in module.graph.find_nodes(op="call_function", target=aten.rsub.Scalar):
        _cast_openly(node)
    for node in reversed(list(module.graph.nodes)):
        guard = node.op == "call_module" and node.target == "_guards_fn"
        check = node.op == "call_function" and str(node.target).startswith(
            ("aten._assert", "aten.sym_constrain", "aten._check")
        )
        unread = node.op == "get_attr" and not node.users
        if guard or check or unread:
            module.graph.erase_node(node)
    if hasattr(module, "_guards_fn"):
        del module._guards_fn
    module.recompile()


def _cast_openly(node: Node) -> None:
    """``1.0 - whole``: a cast of its own before the call, since torch.onnx fails on hidden ones."""
    x = node.args[0]
    assert isinstance(x, Node)
    before, after = x.meta["val"], node.meta["val"]
    if before.dtype == after.dtype:
        return
    with node.graph.inserting_before(node):
        cast = node.graph.call_function(aten.to.dtype, (x, after.dtype))
    cast.meta = {**node.meta, "val": before.to(after.dtype)}
    node.update_arg(0, cast)


def _only_sets_a_mode(node: Node) -> bool:
    """`torch.enable_grad()` and `torch.autocast(..., enabled=False)` around a part of the model."""
    name = getattr(node.target, "__name__", "")
    return name == "wrap_with_set_grad_enabled" or (
        name == "wrap_with_autocast" and node.args[2] is False
    )


def _inline(module: GraphModule, node: Node) -> None:
    """Put the graph that a call runs in the place of the call."""
    place = next(i for i, arg in enumerate(node.args) if getattr(arg, "op", "") == "get_attr")
    part = node.args[place]
    assert isinstance(part, Node)
    inner = fetch(module, str(part.target)).graph
    inputs = [one for one in inner.nodes if one.op == "placeholder"]
    twins = dict(zip(inputs, node.args[place + 1 :], strict=True))
    with module.graph.inserting_before(node):
        results: Any = module.graph.graph_copy(inner, twins)
    for user in list(node.users):
        assert user.target is operator.getitem
        index: Any = user.args[1]
        user.replace_all_uses_with(results[index])
        module.graph.erase_node(user)
    module.graph.erase_node(node)


def _batch(args: Nested, kwargs: Nested) -> int | None:
    sizes = [leaf.shape[0] for leaf in tensors((args, kwargs)) if leaf.dim() > 0]
    return sizes[0] if sizes else None


def _widen(inputs: Nested, batch: int) -> Nested:
    """The inputs with at least two samples: dimension 0 is repeated where it is the batch."""
    if batch >= _LEAST_BATCH:
        return inputs

    def widened(leaf: Any) -> Any:
        return torch.cat([leaf] * _LEAST_BATCH) if shares_batch(leaf, batch) else leaf

    return pytree.tree_map(widened, inputs)
