"""The tables as a terminal shows them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.table import Table

from benchmarks.figures import Figure
from benchmarks.fit_overhead import FitRow
from benchmarks.imported import ImportedRow
from benchmarks.rows import TRAINING, Row
from benchmarks.sides import NATIVE, OURS, SCRIPT

TITLES = {
    TRAINING: "Milliseconds of a training step",
    "inference": "Milliseconds of inference",
    "memory": "Time to the first step, and memory, each side in a process of its own",
    "compile": "Seconds from a network to its first training step",
}


def table_with(title: str, left: Iterable[str], right: Iterable[str], **options: Any) -> Table:
    """An empty table: columns of words, then those of numbers, which have the options."""
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for name in left:
        table.add_column(name, no_wrap=True)
    for name in right:
        table.add_column(name, justify="right", **options)
    return table


def steps(rows: Sequence[Row], kind: str) -> Table:
    """Rows of one kind, with a column for each side that any has."""
    title = (
        f"{TITLES[kind]}, threads: {rows[0].threads}; a ratio is the best peer's time by ours, "
        "* below its target, ~ on a busy core"
    )
    peers = list(dict.fromkeys(name for row in rows for name in row.peers))
    own = [name for name in (NATIVE, SCRIPT) if any(name in row.sides for row in rows)]
    has_native = NATIVE in own
    names = ["ours", "CPU", *map(_short, own), *map(_short, peers), "best", "ratio"]
    names += ["(native)"] if has_native else []
    names += ["quartiles", "by CPU", "target", "A/A"]
    table = table_with(title, ["workload"], names, no_wrap=True)
    for row in rows:
        cells = [row.name, f"{row.ours.milliseconds:.3f}", f"{row.ours.processor_milliseconds:.3f}"]
        cells += [_milliseconds(row, name) for name in (*own, *peers)]
        portable, native = row.is_below
        cells += [_short(row.best or "none"), _ratio(row.ratio, portable)]
        cells += [_ratio(row.native_ratio, native)] if has_native else []
        low, high = row.sides[row.best].quartiles if row.best else (0.0, 0.0)
        cells += [f"{low:.2f}–{high:.2f}" if row.best else "–", _by_processor(row)]
        targets = f"≥ {row.targets.portable:g}"
        cells.append(f"{targets}; {row.targets.native:g}" if has_native else targets)
        table.add_row(*cells, f"{row.again:.2f}")
    return table


def _short(name: str) -> str:
    """The name of a side without what its framework's others have, too."""
    return name.removeprefix("nncompile ").removeprefix("torch").strip(". ")


def _milliseconds(row: Row, name: str) -> str:
    side = row.sides.get(name)
    return f"{side.milliseconds:.3f}" if side else "–"


def _ratio(ratio: float | None, is_below: bool) -> str:
    if ratio is None:
        return "–"
    return f"{ratio:.2f}{'*' if is_below else ''}"


def _by_processor(row: Row) -> str:
    if row.processor_ratio is None:
        return "–"
    native = row.native_processor_ratio
    shown = (
        f"{row.processor_ratio:.2f}"
        if native is None
        else f"{row.processor_ratio:.2f}; {native:.2f}"
    )
    return f"{shown}{'~' if row.is_busy else ''}"


def figures(rows: Sequence[Figure]) -> Table:
    """Rows of one part, with a column for each side that any has."""
    peers = list(dict.fromkeys(name for row in rows for name in row.sides if name != OURS))
    right = ("ours", *peers, "best peer", "ratio", "target")
    table = table_with(TITLES[rows[0].part], ("", ""), right)
    for row in rows:
        values = (row.sides.get(name) for name in (OURS, *peers))
        ratio = "–" if row.ratio is None else f"{row.ratio:.2f}{' short' if row.is_short else ''}"
        table.add_row(
            *(row.subject, f"{row.what}, {row.unit}"),
            *("–" if value is None else f"{value:.2f}" for value in values),
            *(row.best or "none", ratio, "–" if row.target is None else f"≥ {row.target:g}"),
        )
    return table


def imported(rows: Sequence[ImportedRow]) -> Table:
    """Steps of files beside those of the networks that they were made of."""
    title = f"Milliseconds of a step of a file, threads: {rows[0].threads}; beside the network's"
    names = ("batch", "network", "file", "file/network", "quartiles", "target", "nodes", "nodes")
    table = table_with(title, ("network", "file by"), names)
    for r in rows:
        table.add_row(
            *(r.workload, r.source, str(r.batch), f"{r.native_ms:.2f}", f"{r.imported_ms:.2f}"),
            *(f"{r.ratio:.3f}", f"{r.quartiles[0]:.3f}–{r.quartiles[1]:.3f}", f"≤ {r.target:g}"),
            *(str(r.native_nodes), str(r.imported_nodes)),
        )
    return table


def fits(rows: Sequence[FitRow]) -> Table:
    """What `fit` adds to a step."""
    names = ("bare step", "fit", "added", "target", "torch's data")
    table = table_with("Microseconds of a step of `fit`", ["data"], names)
    for r in rows:
        shown = (f"{x:.1f}" for x in (r.bare, r.fit, r.added))
        torch = "–" if r.torch is None else f"{r.torch:.1f}"
        table.add_row(r.data, *shown, f"≤ {r.target:g}", torch)
    return table
