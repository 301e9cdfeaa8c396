"""`python -m benchmarks`: training steps and inference against torch and jax, what `fit` adds to a
step, steps of ONNX files beside those of the same networks, compile times, and `nncompile optimize`
beside other tools."""

from __future__ import annotations

import dataclasses
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks import comparison, document, markdown, scaling, tables
from benchmarks import compile_peers as compiling
from benchmarks import process as memory
from benchmarks.compile_time import DEPTHS, depth, import_seconds, ready_seconds
from benchmarks.figures import Figure
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
from benchmarks.peers.base import OUTSIDE, Absent, Peer
from benchmarks.peers.known import PEERS
from benchmarks.rows import INFERENCE, TRAINING, Bench, Row
from benchmarks.workloads import WORKLOADS, Workload

_OTHERS = ("memory", "compile", "fit", "imported", "optimize", "scaling")
console = Console(width=None if sys.stdout.isatty() else 240)


def main(
    only: Annotated[
        str,
        typer.Option(
            help="Part of a row's name (training gpt, adamw B32, inference, compile lstm), "
            f"or {', '.join(_OTHERS)}."
        ),
    ] = "",
    peers: Annotated[
        str, typer.Option(help="Parts of the peers' names, with commas between them.")
    ] = "",
    rounds: Annotated[int, typer.Option(min=2, help="Rounds of a row, at most.")] = 41,
    seconds: Annotated[float, typer.Option(min=0, help="Seconds of a row, about.")] = 6.0,
    threads: Annotated[int, typer.Option(min=1, help="Threads that all sides use.")] = 1,
    file: Annotated[Path | None, typer.Option("--json", help="Write the rows here.")] = None,
    append: Annotated[
        bool, typer.Option("--append", help="Keep the other rows that the --json file has.")
    ] = False,
    measured: Annotated[
        Path | None,
        typer.Option("--read", help="Measure nothing: take the rows of this --json file."),
    ] = None,
    page: Annotated[
        Path | None, typer.Option("--markdown", help="Write the tables here, for a page.")
    ] = None,
    older: Annotated[
        Path | None, typer.Option("--compare", help="Compare with the rows of this --json file.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 where a row is below its target.")
    ] = False,
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="ONNX files, or folders of them, for `optimize` (those that onnx has); or "
            "`scaling`, for that part alone."
        ),
    ] = None,
) -> None:
    """Training steps and inference against torch and jax, memory and compile times, and optimized
    ONNX files.

    Run it pinned to idle cores, one a thread: `taskset -c 0 python -m benchmarks`.
    """
    if files == [Path("scaling")]:
        only, files = "scaling", None
    then = document.read(older) if older is not None else None
    if measured is not None:
        now = document.read(measured)
        show(now)
    else:
        before = document.read(file) if append and file is not None and file.exists() else {}
        now = measure(only, chosen_peers(peers), threads, Effort(rounds, seconds), files)
        if file is not None:
            now = document.joined(before, now)
            document.write(file, now)
    rows, figures = document.rows_of(now), document.figures_of(now)
    if page is not None:
        text = markdown.page(rows, figures, now.get("environment", {}))
        text += f"{scaling.markdown(scaled)}\n" if (scaled := _scaled(now)) else ""
        page.write_text(text, "utf-8")
    if then is not None:
        compare([*rows, *figures], [*document.rows_of(then), *document.figures_of(then)])
    short = below_target(now)
    if check and short:
        console.print("below target:", *(f"  {name}" for name in short), sep="\n")
        raise typer.Exit(1)


def measure(
    only: str,
    peers: Sequence[Peer],
    threads: int,
    effort: Effort,
    files: Sequence[Path] | None = None,
) -> document.Document:
    """All rows whose name has `only` in it; tables of them are printed as they come."""
    chosen = [(kind, w) for name, kind, w in named_rows() if only in name]
    if not chosen and not any(only in name for name in (*_OTHERS, *memory.NAMES, *compiling.NAMES)):
        names = ", ".join(dict.fromkeys(w.key for w in WORKLOADS))
        raise typer.BadParameter(f"no row has {only!r}; there are {', '.join(_OTHERS)}, {names}")
    found: document.Document = {}
    bench = Bench.of(peers, threads, effort)
    for name, reason in bench.absent.items():
        console.print(f"{name} is left out: {reason}", highlight=False)
    if chosen:
        rows, wrong = stepped(bench, chosen)
        found["environment"] = environment(threads, tuple(bench.peers))
        found["rows"] = [document.as_json(row) for row in rows]
        found["wrong"] = wrong
    return found | _others(only, bench, files)


def show(now: document.Document) -> None:
    """The tables of rows that were measured before."""
    rows, figures = document.rows_of(now), document.figures_of(now)
    for kind in (TRAINING, INFERENCE):
        if some := [row for row in rows if row.kind == kind]:
            console.print(tables.steps(some, kind))
    for part in dict.fromkeys(figure.part for figure in figures):
        console.print(tables.figures([figure for figure in figures if figure.part == part]))
    if (scaled := _scaled(now)) is not None:
        _show_scaling(scaled)


def compare(now: Sequence[Row | Figure], then: Sequence[Row | Figure]) -> None:
    """What became better or worse, row by row."""
    found, alone = comparison.changes(now, then)
    console.print(comparison.table_of(found))
    counts = Counter(change.verdict for change in found)
    console.print(", ".join(f"{word}: {counts[word]}" for word in ("better", "worse", "noise")))
    if alone:
        console.print(f"in one run only: {', '.join(alone)}", highlight=False)


def below_target(now: document.Document) -> list[str]:
    """What names the rows of all parts that fall short."""
    rows = [*document.rows_of(now), *document.figures_of(now)]
    found = [row.key for row in rows if row.is_short]
    found += [f"{r['key']}: {r['what']}" for r in now.get("wrong", [])]
    found += [r["key"] for r in now.get("scaling", []) if r["is_short"]]
    found += [f"fit, {r['data']}" for r in now.get("fit", []) if r["added"] > r["target"]]
    for r in now.get("imported", []):
        if r["ratio"] > r["target"]:
            found.append(f"imported {r['workload']} by {r['source']}")
    return found + [f"optimize {r['file']}" for r in now.get("optimize", []) if r["is_behind"]]


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


def stepped(
    bench: Bench, chosen: Sequence[tuple[str, Workload]]
) -> tuple[list[Row], list[dict[str, str]]]:
    """The rows, each of which is told as soon as it is there, and tables of them; and those that
    were not timed, as the sides do not compute the same."""
    rows: list[Row] = []
    wrong: list[dict[str, str]] = []
    for kind, workload in chosen:
        try:
            row: Row = getattr(bench, kind)(workload)
        except AssertionError as error:
            console.print(f"{kind} {error}", style="bold red", highlight=False)
            wrong.append({"key": f"{kind} {workload.key}", "what": str(error)})
            continue
        rows.append(row)
        ratio = "no peer" if row.ratio is None else f"{row.ratio:.2f} of {row.best}"
        console.print(f"{kind} {row.name}: {ratio}", style="dim", highlight=False)
        for name, reason in row.lacking.items():
            if reason in OUTSIDE:
                continue
            console.print(f"  without {name}: {reason}", style="dim", highlight=False)
    for kind in (TRAINING, INFERENCE):
        some = [row for row in rows if row.kind == kind]
        if some:
            console.print(tables.steps(some, kind))
    return rows, wrong


def _others(only: str, bench: Bench, files: Sequence[Path] | None) -> document.Document:
    found: document.Document = {}
    threads = bench.threads
    figures: list[Figure] = []
    for title, measured in {
        "memory": memory.measure_processes(bench.peers, threads, only),
        "compile": compiling.measure_compiling(bench.peers, threads, only),
    }.items():
        if some := list(measured):
            console.print(tables.figures(some))
        elif only in title:
            console.print(f"{title}: nothing of it is measured on this system")
        figures += some
    if figures:
        found["figures"] = [document.figure_as_json(figure) for figure in figures]
    if only in "compile":
        found["depth"] = _depths()
    if only in "fit":
        fits = measure_fit(threads)
        console.print(tables.fits(fits))
        found["fit"] = [dataclasses.asdict(row) | {"added": row.added} for row in fits]
    if only in "imported":
        try:
            imported = measure_imported(threads)
        except Absent as reason:
            console.print(f"imported is left out: {reason}")
        else:
            console.print(tables.imported(imported))
            found["imported"] = document.plain(imported)
    if only in "scaling":
        try:
            scaled = scaling.measure_scaling(3 * bench.effort.seconds)
        except Absent as reason:
            console.print(f"scaling is left out: {reason}")
        else:
            _show_scaling(scaled)
            found |= scaled.as_json
    if only in "optimize":
        rows = _optimized(files or light_files())
        found["optimize"] = [dataclasses.asdict(r) | {"is_behind": r.is_behind} for r in rows]
    return found


def _scaled(now: document.Document) -> scaling.Result | None:
    return scaling.Result.of(now) if "scaling" in now else None


def _show_scaling(result: scaling.Result) -> None:
    console.print(scaling.table_of(result))
    console.print(scaling.links_line(result), highlight=False)
    Console(width=max(console.width, WIDTH)).print(scaling.model_table(result))


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


def _depths() -> list[dict[str, Any]]:
    title = "Compile time, seconds: the training step of a residual perceptron"
    names = ("layers", "ONNX nodes", "build", "differentiate", "optimize", "lower", "total")
    table = tables.table_with(title, (), names)
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
