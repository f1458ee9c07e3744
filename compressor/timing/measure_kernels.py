"""What kernels take, on this machine and now: many in one session, beside a kernel that is known.

    run 1    reference k0 k1 ... k19 reference
    run 2    reference k0 k1 ... k19 reference       ratio = k / reference, of undisturbed runs

ONNX Runtime's own profile says what each node took, so
that changes of layout on the way in and out, which neighbours in a network do without, are left
out. Where the profile is not of the kernels (a device that computes while the host goes on), each
kernel runs in a session of its own, and whole runs are timed.
"""

import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from compressor.bench.denormals import denormals_flushed
from compressor.onnx.sessions import CPU, DEVICES, bound, opened, options, placed
from compressor.passes.cost.kernels import Kernel
from compressor.process.temporary_folders import Scratch
from compressor.timing.kernel_models import Graph, numbers_held

REFERENCE = Kernel(
    "conv",
    (
        ("activation", ""),
        ("dilation", (1, 1)),
        ("kernel", (3, 3)),
        ("padding", (1, 1)),
        ("pixels", (28, 28)),
        ("stride", (1, 1)),
        ("transposed", False),
    ),
    (64, 64, 1),
)
NOTHING = Kernel("elementwise", (("op", "neg"),), (1,))
"""One number: what it seems to take is what profiling takes, which is no part of a plain run."""
SHORTEST = 0.2
"""Microseconds: a profile counts whole ones."""
RUNS = 11
WARMUP = 2
LONG = 700.0
"""Microseconds: what takes longer is measured by itself."""
TOGETHER = 24
"""Kernels in one session, at most."""
NUMBERS = 1.2e6
"""Held by one session, at most, unless a single kernel has more: so they stay in the caches, and
what a network takes that does not fit is counted apart (`caches.py`)."""


@dataclass(frozen=True)
class Setting:
    """How models run: what a table of times is good for."""

    provider: str = CPU
    threads: int = 1


def batches(kernels: Sequence[Kernel]) -> Iterator[list[Kernel]]:
    """As many as fit into a session."""
    batch: list[Kernel] = []
    for kernel in kernels:
        full = len(batch) == TOGETHER or numbers_held([*batch, kernel]) > NUMBERS
        if batch and full:
            yield batch
            batch = []
        batch.append(kernel)
    if batch:
        yield batch


def measure(kernels: Sequence[Kernel], setting: Setting) -> tuple[list[float], float]:
    """What each takes, over the reference; and what the reference takes, in seconds."""
    if setting.provider != CPU:
        return _one_by_one(kernels, setting)
    found, reference = side_by_side(kernels, setting)
    for place, kernel in enumerate(kernels):
        if found[place] * reference > LONG / 1e6 and setting.threads == 1:
            with denormals_flushed():
                found[place] = _alone(kernel, setting) / 1e6 / reference
    return found, reference


def side_by_side(kernels: Sequence[Kernel], setting: Setting) -> tuple[list[float], float]:
    """The same by ONNX Runtime's profile of one session, however long they take."""
    graph = Graph()
    names = [graph.add(kernel) for kernel in (NOTHING, REFERENCE, *kernels, REFERENCE)]
    with denormals_flushed():
        times, nodes, _ = _profiled(graph, setting)
    each = _undisturbed(times[names[0]])
    found = [max(_undisturbed(times[own]) - each * nodes[own], SHORTEST) for own in names[1:]]
    reference = (found[0] + found[-1]) / 2
    return [time / reference for time in found[1:-1]], reference / 1e6


def _undisturbed(times: Sequence[float]) -> float:
    """The mean of the shortest half: another process takes the core in the others."""
    return float(np.mean(sorted(times)[: len(times) // 2 + 1]))


def _alone(kernel: Kernel, setting: Setting) -> float:
    """Microseconds by CPU time, of which others take none: a long kernel is always disturbed."""
    graph = Graph()
    name = graph.add(kernel)
    times, _, cpu = _profiled(graph, setting)
    others = sum(min(own) for prefix, own in times.items() if prefix != name)
    return max(_undisturbed(cpu) - others, 0.5)


def _profiled(
    graph: Graph, setting: Setting
) -> tuple[dict[str, list[float]], dict[str, int], list[float]]:
    """Microseconds of every kernel in every run, by what the names of its nodes begin with; how
    many nodes that are; and the CPU time of every run."""
    with Scratch() as scratch:
        session, binding = _session(graph, setting, scratch)
        cpu = []
        for _ in range(WARMUP + RUNS):
            start = time.thread_time_ns()
            session.run_with_iobinding(binding)
            cpu.append((time.thread_time_ns() - start) / 1e3)
        events = scratch.events(session.end_profiling)
    found: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            prefix = event["name"].partition("_")[0] + "_"
            node = f"{event['args'].get('node_index', '')} {event['name']}"
            found[prefix][node].append(int(event["dur"]))
    times: dict[str, list[float]] = {}
    for prefix, nodes in found.items():
        rows = [took[WARMUP : WARMUP + RUNS] for took in nodes.values()]
        times[prefix] = [max(float(sum(run)), 0.5) for run in zip(*rows, strict=True)]
    return times, {prefix: len(nodes) for prefix, nodes in found.items()}, cpu[WARMUP:]


def _session(graph: Graph, setting: Setting, scratch: Scratch | None = None) -> tuple[Any, Any]:
    wanted = options(setting.threads, steady=True)
    if scratch is not None:
        scratch.ask(wanted)
    session = opened(graph.model(), "kernels", wanted, [setting.provider])
    if scratch is not None:
        scratch.begun()
    device = DEVICES.get(setting.provider, "cpu")
    return session, bound(session, placed(graph.feeds, device), device)


def _one_by_one(kernels: Sequence[Kernel], setting: Setting) -> tuple[list[float], float]:
    reference = _whole_runs(REFERENCE, setting)
    ratios = [_whole_runs(kernel, setting) / reference for kernel in kernels]
    return ratios, reference


def _whole_runs(kernel: Kernel, setting: Setting) -> float:
    """Seconds of a run, by the wall clock, until the result is there."""
    graph = Graph()
    graph.add(kernel)
    session, binding = _session(graph, setting)
    took = []
    for _ in range(WARMUP + RUNS):
        start = time.perf_counter()
        session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        took.append(time.perf_counter() - start)
    return statistics.median(took[WARMUP:])
