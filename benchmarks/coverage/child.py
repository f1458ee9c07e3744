"""One model in a process of its own: what came of it goes to a file as a row.

Where a limit stops the process, the last line of the log names the stage that it was in.
"""

import os
import resource
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from compressor.passes.base.errors import CompressError, GateError

from benchmarks.apart import TooSlow, within
from benchmarks.coverage import onnxsim_peer, torch_pruning_peer, zoo
from benchmarks.coverage.outcome import LEAST_GONE, OURS, Outcome
from compressor import Budget, Built, compress
from compressor.process.progress import Watch
from models.zoo.cases import Case

SECONDS = 240
"""From the live module to the proof, in CPU seconds: 120 s on two cores."""
EXPORT_SECONDS = 600
"""For the exporter, onnxsim and ONNX Runtime."""


class Stages(Watch):
    """CPU seconds a stage, each named on standard error when it begins."""

    def __init__(self) -> None:
        super().__init__(time.process_time)

    def _begin(self, name: str) -> None:
        print(f"stage: {name}", file=sys.stderr, flush=True)


def judge(case: Case, export: bool) -> Outcome:
    """Shrink one model to half of its channels, and say what came of it."""
    watch = Stages()
    row: Callable[..., Outcome] = lambda outcome, **found: Outcome(  # noqa: E731
        case.name, case.family, outcome,
        seconds={name: round(one, 3) for name, one in watch.seconds.items()},
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024, **found,
    )  # fmt: skip
    found: dict[str, Any] = {}
    try:
        with watch.stage("build"):
            model, inputs = case.make()
        with within(SECONDS):
            built = compress(
                model, inputs, budget=Budget(channels=0.5), uniform=True, name=case.name,
                watch=watch,
            )  # fmt: skip
        found = shape(built, watch.seconds)
        if export:
            with within(EXPORT_SECONDS):
                found["parity"] = max((one.max_rel for one in built.onnx.parity), default=0.0)
            found["exported"] = True
    except GateError as error:
        return row("wrong", **found | {"why": _words(error), "trace": traceback.format_exc()})
    except CompressError as error:
        return row("frozen", **found | {"why": _words(error)})
    except MemoryError:
        return row("crash", **found | {"why": f"out of memory in {watch.current}"})
    except TooSlow as error:
        return row("crash", **found | {"why": f"{error} in {watch.current}"})
    except Exception as error:  # the scoreboard shows every model, the broken ones too
        why = f"{type(error).__name__}: {error}".splitlines()[0][:300]
        return row("crash", **found | {"why": why, "trace": traceback.format_exc()})
    if found["params_gone"] < LEAST_GONE:
        gone = f"{found['params_gone']:.0%} of the parameters could go"
        return row("frozen", **found | {"why": "; ".join((gone, *_reasons(built)))})
    return row("equal", **found)


def judge_peer(case: Case, engine: str) -> Outcome:
    """Another tool on the same model under the same limits; the best of its settings counts."""
    start, found = time.process_time(), list[dict[str, Any]]()
    try:
        model, inputs = case.make()
        with within(SECONDS if engine == "torch-pruning" else EXPORT_SECONDS):
            if engine == "torch-pruning":
                found.extend(torch_pruning_peer.attempts(model, inputs))
            else:
                found.append(onnxsim_peer.attempt(model, inputs))
    except TooSlow as error:
        took = time.process_time() - start
        found.append({"setting": "all", "raised": str(error), "seconds": took})
    except CompressError as error:  # of the exporter, which the peer needs
        took = time.process_time() - start
        found.append({"setting": "all", "raised": _words(error), "seconds": took})
    rows = [_attempt(case, engine, one) for one in found]
    best = ("equal", "frozen", "wrong", "crash")
    return min(rows, key=lambda row: (best.index(row.outcome), -row.params_gone))


def _attempt(case: Case, engine: str, found: dict[str, Any]) -> Outcome:
    gone = found.get("params_gone", 0.0)
    enough = "equal" if gone >= LEAST_GONE else "frozen"
    outcome = "crash" if "raised" in found else "wrong" if "unequal" in found else enough
    return Outcome(
        case.name,
        case.family,
        outcome,
        engine,
        f"{found['setting']}: {found.get('raised') or found.get('unequal') or ''}".strip(": "),
        params_gone=gone,
        proof=found.get("proof"),
        seconds={"prune": round(found["seconds"], 3)},
        memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
    )


def shape(built: Built, seconds: dict[str, float]) -> dict[str, Any]:
    """What a built result says of itself: the share that is gone, the proof, what analysis took."""
    params = built.report["cost"]["params"]
    return {
        "params_gone": 1 - params["small"] / max(params["original"], 1),
        "proof": built.proof.max_rel,
        "overhead": (seconds["couple"] + seconds["shrink"]) / seconds["capture"],
    }


def _reasons(built: Built) -> list[str]:
    """Why most of the frozen channels are."""
    weights = Counter[str]()
    for one in built.plan.coupling.frozen:
        weights[one.why] += one.size
    return [why for why, _ in weights.most_common(3)]


def _words(error: CompressError) -> str:
    return " ".join(str(error).split())[:600]


def main(zoo_name: str, name: str, engine: str, export: bool, gigabytes: int, folder: str) -> None:
    """Write the row of one model to `folder`/row.json, and what it says to `folder`/log.txt."""
    log = (Path(folder) / "log.txt").open("w")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    case = next(one for one in zoo.cases(zoo_name) if one.name == name)
    ours = engine == OURS
    row = judge(case, export) if ours else judge_peer(case, engine)
    (Path(folder) / "row.json").write_text(row.line() + "\n")
