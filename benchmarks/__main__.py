"""`python -m benchmarks`: training steps and inference against torch and jax, what `fit` adds to a
step, steps of ONNX files beside those of the same networks, compile times, and `nncompile optimize`
beside other tools."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks import document, tables
from benchmarks.compile_time import DEPTHS, depth, import_seconds, ready_seconds
from benchmarks.fit_overhead import measure_fit
from benchmarks.imported import measure_imported
from benchmarks.machine import environment
from benchmarks.measure import Effort
from benchmarks.optimized_files import (
    WIDTH,
    OptimizedFile,
    absent_peers,
    files_in,
    light_files,
    measure_files,
    table_of,
)
from benchmarks.peers import PEERS, Peer
from benchmarks.rows import INFERENCE, TRAINING, Bench, Row
from benchmarks.workloads import WORKLOADS, Workload

_OTHERS = ("fit", "imported", "compile", "optimize")
console = Console(width=None if sys.stdout.isatty() else 160)


def main(
    only: Annotated[
        str,
        typer.Option(
            help="Part of a row's name (training gpt, adamw B32, inference), "
            f"or {', '.join(_OTHERS)}."
        ),
    ] = "",
    peers: Annotated[
        str, typer.Option(help="Parts of the peers' names, with commas between them.")
    ] = "",
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of a row, at most.")] = 41,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds of a row, about.")] = 6.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads that all sides use.")] = 1,
    file: Annotated[Path | None, typer.Option("--json", help="Also write the rows here.")] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Keep the other rows that the --json file has.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 where a row is below its target.")
    ] = False,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="ONNX files, or folders of them, for `optimize`; those that onnx has."),
    ] = None,
) -> None:
    """Training steps and inference against torch and jax, compile times, and optimized ONNX files.

    Run it pinned to idle cores, one a thread: `taskset -c 0 python -m benchmarks`.
    """
    named = named_rows()
    chosen = [(kind, w) for name, kind, w in named if only in name]
    if not chosen and not any(only in kind for kind in _OTHERS):
        names = ", ".join(dict.fromkeys(w.key for w in WORKLOADS))
        raise typer.BadParameter(f"no row has {only!r}; there are {', '.join(_OTHERS)}, {names}")
    known = chosen_peers(peers)
    before = document.read(file) if append and file is not None and file.exists() else {}
    found: document.Document = {}
    rows: list[Row] = []
    if chosen:
        bench = Bench.of(known, threads, Effort(rounds, seconds))
        for name, reason in bench.absent.items():
            console.print(f"{name} is left out: {reason}")
        found["environment"] = environment(threads, tuple(bench.peers))
        rows = measured(bench, chosen)
        found["rows"] = [document.as_json(row) for row in rows]
    found |= _others(only, threads, files)
    if file is not None:
        document.write(file, document.joined(before, found))
    short = [row.key for row in rows if row.is_short]
    if check and short:
        console.print(f"below target: {', '.join(short)}")
        raise typer.Exit(1)


def named_rows() -> list[tuple[str, str, Workload]]:
    """All rows of training and inference, by the names that `--only` finds parts of. Inference has
    no optimizer: it is measured once for each network and batch size."""
    trained = [(f"{TRAINING} {w.key}", TRAINING, w) for w in WORKLOADS]
    once = {(w.name, w.batch): w for w in reversed(WORKLOADS)}
    ran = [(f"{INFERENCE} {w.key}", INFERENCE, w) for w in WORKLOADS if w in once.values()]
    return trained + ran


def chosen_peers(parts: str) -> list[Peer]:
    """The peers whose names have one of the parts. Raises `typer.BadParameter` for others."""
    chosen = [p for p in PEERS if any(part.strip() in p.name for part in parts.split(","))]
    if not chosen:
        names = ", ".join(p.name for p in PEERS)
        raise typer.BadParameter(f"no peer is called {parts!r}; there are {names}")
    return chosen


def measured(bench: Bench, chosen: Sequence[tuple[str, Workload]]) -> list[Row]:
    """The rows, each of which is told as soon as it is there, and tables of them."""
    rows: list[Row] = []
    for kind, workload in chosen:
        measure: Callable[[Workload], Row] = getattr(bench, kind)
        rows.append(row := measure(workload))
        ratio = "no peer" if row.ratio is None else f"{row.ratio:.2f} of {row.best}"
        console.print(f"{kind} {row.name}: {ratio}", style="dim", highlight=False)
        for name, reason in row.lacking.items():
            console.print(f"  without {name}: {reason}", style="dim", highlight=False)
    for kind in (TRAINING, INFERENCE):
        some = [row for row in rows if row.kind == kind]
        if some:
            console.print(tables.steps(some, kind))
    return rows


def _others(only: str, threads: int, files: Sequence[Path] | None) -> document.Document:
    found: document.Document = {}
    if only in "fit":
        fits = measure_fit(threads)
        console.print(tables.fits(fits))
        found["fit"] = [dataclasses.asdict(row) | {"added": row.added} for row in fits]
    if only in "imported":
        imported = measure_imported(threads)
        console.print(tables.imported(imported))
        found["imported"] = document.plain(imported)
    if only in "compile":
        found["compile"] = _compile_times()
    if only in "optimize":
        found["optimize"] = document.plain(_optimized(files or light_files()))
    return found


def _optimized(paths: Sequence[Path]) -> list[OptimizedFile]:
    for peer in absent_peers():
        console.print(f"{peer} is not installed, and left out")
    rows = []
    for row in measure_files(files_in(paths)):
        for form, problem in row.problems.items():
            console.print(f"{row.file}, {form}: {problem[:200]}", style="dim")
        rows.append(row)
    Console(width=max(console.width, WIDTH)).print(table_of(rows))
    behind = sum(row.is_behind for row in rows)
    console.print(f"{behind} of {len(rows)} have more nodes, are slower, or differ")
    return rows


def _compile_times() -> list[dict[str, Any]]:
    title = "Compile time, seconds: the training step of a residual perceptron"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for name in ("layers", "ONNX nodes", "build", "differentiate", "optimize", "lower", "total"):
        table.add_column(name, justify="right")
    results = [depth(layers) for layers in DEPTHS]
    for d in results:
        stages = (d.build, d.differentiate, d.optimize, d.lower, d.total)
        table.add_row(str(d.layers), str(d.nodes), *(f"{s:.2f}" for s in stages))
    console.print(table)
    file = str(Path(__file__).parent / "perceptron.py")
    console.print(f"import nncompile: {import_seconds():.2f} s")
    console.print(f"{Path(file).name} to a session ready to train: {ready_seconds(file):.2f} s")
    return [dataclasses.asdict(d) | {"total": d.total} for d in results]


if __name__ == "__main__":
    typer.run(main)
