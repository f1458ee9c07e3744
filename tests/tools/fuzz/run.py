"""Many networks, in one process or several; what fails is cut down and kept."""

import multiprocessing
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import torch

from tests.tools.fuzz.check import Found, check
from tests.tools.fuzz.inflate import check_pair
from tests.tools.fuzz.network import grown
from tests.tools.fuzz.reduce import like, reduced
from tests.tools.fuzz.tally import Tally


def one(task: tuple[int, bool]) -> Found:
    """The network of a seed, checked."""
    seed, onnx = task
    return check(grown(seed).genome, onnx=onnx)


def run(seed: int, count: int, onnx: int, jobs: int, keep: Callable[[Found], None]) -> Tally:
    """`count` networks from `seed` on, every so many of them in ONNX Runtime too."""
    every = max(count // onnx, 1) if onnx else 0
    tasks = [(s, bool(every) and (s - seed) % every == 0) for s in range(seed, seed + count)]
    tally = Tally([[seed, seed + count]])
    for done, found in enumerate(_results(tasks, jobs), 1):
        tally.add(found)
        if found.failed:
            print(f"seed {found.seed}: {found.outcome}: {found.why}", file=sys.stderr, flush=True)
            keep(found)
        if done % 100 == 0:
            print(f"{done} networks: {dict(tally.outcomes)}", file=sys.stderr, flush=True)
    return tally


def _results(tasks: list[tuple[int, bool]], jobs: int) -> Iterator[Found]:
    torch.set_num_threads(1)
    if jobs == 1:
        yield from map(one, tasks)
        return
    context = multiprocessing.get_context("spawn")
    with context.Pool(jobs, torch.set_num_threads, (1,), maxtasksperchild=500) as pool:
        yield from pool.imap_unordered(one, tasks, chunksize=4)


def inflated(seed: int, count: int) -> Counter[str]:
    """`count` networks that were made wider by hand: taking that out gives them back."""
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for number in range(seed, seed + count):
        try:
            why = check_pair(number, counts)
        except Exception as error:  # whatever is raised is what we are looking for
            traceback.print_exc()
            why = f"{type(error).__name__}: {error}"
        if why:
            print(f"inflated seed {number}: {why}", file=sys.stderr, flush=True)
            counts[f"FAILED seed {number}: {why}"] += 1
    return counts


def kept(folder: Path) -> Callable[[Found], None]:
    """Writes the smallest genome that fails in the same way into a folder."""

    def keep(found: Found) -> None:
        onnx = found.trace.find("_runtime") >= 0
        small = reduced(grown(found.seed).genome, like(found, onnx))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"seed-{found.seed}.txt"
        path.write_text(f"# {found.outcome}: {found.why}\n{small}")
        print(f"{path}: {len(small.steps)} steps", file=sys.stderr, flush=True)

    return keep
