"""One model's operators, or two models' beside each other, for a terminal."""

from rich.table import Table

from compressor.base.terminal_text import words
from compressor.explain.judge import Judged


def render(found: dict[str, Judged], most: int = 20) -> list[Table]:
    """The dearest operators of each model, then all by what bounds them and by kind."""
    tables = [_operators(name, one, most) for name, one in found.items()]
    tables.append(_shares("bound by", {name: one.by_bound() for name, one in found.items()}))
    tables.append(_shares("operator", {name: one.by_kind() for name, one in found.items()}))
    return tables


def _operators(name: str, found: Judged, most: int) -> Table:
    peak = f"{found.roofline.macs / 1e9:.0f} GMAC/s, {found.roofline.bytes / 1e9:.1f} GB/s"
    table = Table(
        title=words(f"{name}: {found.seconds * 1e3:.3g} ms in {len(found.rows)} operators"),
        caption=f"this machine at best: {peak}; least: the time at that rate",
    )
    for column in ("operator", "kind", "output"):
        table.add_column(column, overflow="fold")
    for column in ("ms", "share", "MMAC", "least ms"):
        table.add_column(column, justify="right")
    table.add_column("bound by")
    for one, bound in sorted(found.rows, key=lambda row: -row[0].seconds)[:most]:
        table.add_row(
            words(one.name),
            words(one.kind),
            "x".join(map(str, one.outputs[0])) if one.outputs else "",
            f"{one.seconds * 1e3:.3f}",
            f"{one.seconds / max(found.seconds, 1e-12):.1%}",
            f"{one.macs / 1e6:.3g}" if one.macs else "",
            f"{found.roofline.seconds(one.macs, one.bytes) * 1e3:.3f}",
            bound,
        )
    return table


def _shares(what: str, found: dict[str, dict[str, float]]) -> Table:
    table = Table()
    table.add_column(what)
    for name in found:
        table.add_column(words(f"{name}, ms"), justify="right")
    keys = dict.fromkeys(key for one in found.values() for key in one)
    for key in keys:
        table.add_row(words(key), *(f"{one.get(key, 0.0) * 1e3:.3f}" for one in found.values()))
    return table
