"""What is known so far, as tables."""

import statistics
from collections import Counter
from collections.abc import Mapping

import numpy as np
from rich.table import Table

from benchmarks.recording import Known


def _said(found: Mapping[str, float]) -> str:
    return f"{found['ratio']:.3f} ({found['low']:.3f}-{found['high']:.3f})"


def tables(known: Known) -> list[Table]:
    """What is known so far."""
    makers = (_met, _macs, _align, _written, _cells, _prediction, _contest, _graphs, _alarms)
    return [table for table in (make(known) for make in makers) if table.row_count]


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column == "model" else "right")
    return table


def _met(known: Known) -> Table:
    columns = ("measured", "itself", "over budget", "rounds", "MACs", "turned", "plan s (CPU)")
    table = _table("half the latency", "model", "threads", "seed", *columns, "profile s")
    for name, row in known.items():
        kind, model, seed = (*name.split("/"), "", "")[:3]
        if not kind.startswith("met"):
            continue
        table.add_row(
            model,
            kind[4:5] or "1",
            seed,
            _said(row),
            f"{row['noise']:.3f}",
            f"{row['over_budget']:.3f}",
            str(row["rounds"]),
            f"{row['macs']:.3f}",
            f"{row['macs'] / row['ratio']:.2f}",
            f"{row['plan_seconds']:.1f} ({row['plan_cpu_seconds']:.1f})",
            f"{row['profile_seconds']:.0f}",
        )
    return table


def _macs(known: Known) -> Table:
    table = _table("at the MACs of Torch-Pruning's default", "model", "which", "MACs",
                   "of the original's time", "of ours", "itself")  # fmt: skip
    for name, row in known.items():
        if not name.startswith("macs/"):
            continue
        for which, found in row["models"].items():
            against = row["against"].get(which)
            table.add_row(
                name.split("/")[1], which, f"{row['macs'][which]:.3f}", _said(found),
                "" if against is None else _said(against), _said(row["noise"]),
            )  # fmt: skip
    return table


def _align(known: Known) -> Table:
    table = _table("Torch-Pruning's default, padded", "model", "to", "of its time", "speed-up",
                   "differs by", "itself")  # fmt: skip
    for name, row in known.items():
        if name.startswith("align/"):
            for which, found in row["models"].items():
                table.add_row(
                    name.split("/")[1], which, _said(found), f"{1 / found['ratio']:.2f}",
                    f"{row['max_rel']:.1g}", _said(row["noise"]),
                )  # fmt: skip
    return table


def _prediction(known: Known) -> Table:
    table = _table("random plans", "model", "plans", "median error", "largest", "rank correlation")
    names = sorted({name.split("/")[1] for name in known if name.startswith("prediction/")})
    for model in names:
        own = [row for name, row in known.items() if name.startswith(f"prediction/{model}/")]
        errors = [abs(row["predicted"] / row["ratio"] - 1) for row in own]
        pairs = np.array([(row["predicted"], row["ratio"]) for row in own])
        ranks = pairs.argsort(0).argsort(0)  # equal ones hardly occur
        rank = float(np.corrcoef(ranks.T)[0, 1]) if len(own) > 2 else float("nan")
        table.add_row(model, str(len(own)), f"{statistics.median(errors):.1%}",
                      f"{max(errors):.1%}", f"{rank:.3f}")  # fmt: skip
    return table


def _written(known: Known) -> Table:
    table = _table("beside a dense model written with its widths", "model", "MACs",
                   "of its time", "itself")  # fmt: skip
    for name, row in known.items():
        if name.startswith("written/"):
            table.add_row(name.split("/")[1], f"{row['macs']:.3f}", _said(row), _said(row["noise"]))
    return table


def _cells(known: Known) -> Table:
    table = _table("never slower than the original", "model", "asked", "MACs", "measured",
                   "itself", "form", "refused")  # fmt: skip
    for name, row in known.items():
        if name.startswith("cell/"):
            _, model, share = name.split("/")
            form = row["form"]["name"] if row["form"] else ""
            table.add_row(model, share, f"{row['macs']:.3f}", _said(row), _said(row["noise"]),
                          form, "yes" if row["refused"] else "")  # fmt: skip
    return table


def _alarms(known: Known) -> Table:
    table = _table("the gate at a margin of 5 % under random load", "new model", "checks",
                   "passed", "regressed", "inconclusive", "s a check", "longest")  # fmt: skip
    for kind in ("same", "wider"):
        own = [row for name, row in known.items() if name.startswith(f"{kind}/")]
        answers = sum((Counter(row["answers"]) for row in own), Counter[str]())
        took = [one for row in own for one in row["seconds"]]
        if took:
            table.add_row(kind, str(len(took)), *(str(answers[one]) for one in
                          ("passed", "regressed", "inconclusive")),
                          f"{statistics.median(took):.1f}", f"{max(took):.1f}")  # fmt: skip
    return table


def _contest(known: Known) -> Table:
    table = _table("accuracy at half the latency, no training", "model", "dense", "which",
                   "of its time", "accuracy")  # fmt: skip
    for name, row in known.items():
        if name.startswith("contest/"):
            peers = {
                f"Torch-Pruning {one['criterion']}, {one['unit']}": one for one in row["peers"]
            }
            for which, one in {"ours": row["ours"], **peers}.items():
                table.add_row(name.split("/")[1], f"{row['dense']:.2%}", which, _said(one),
                              f"{one['accuracy']:.2%}")  # fmt: skip
    return table


def _graphs(known: Known) -> Table:
    table = _table("the same network, written differently", "model", "graph", "operators",
                   "of its time", "differs by", "why not")  # fmt: skip
    for name, row in known.items():
        if name.startswith("graphs/"):
            for which, one in row["graphs"].items():
                raced = "ratio" in one
                table.add_row(name.split("/")[1], which, str(one.get("nodes", "")),
                              _said(one) if raced else "", f"{one['max_rel']:.1g}" if raced else "",
                              one.get("why", ""))  # fmt: skip
    return table
