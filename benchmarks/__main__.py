"""`python -m benchmarks`: training steps and inference against torch eager, what `fit` adds to a
step, steps of ONNX files beside those of the same networks, compile times, and `nncompile optimize`
beside other tools."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import onnxruntime
import torch
import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.compile_time import DEPTHS, depth, import_seconds, ready_seconds
from benchmarks.fit_overhead import FitRow, measure_fit
from benchmarks.imported import ImportedRow, measure_imported
from benchmarks.inference import Inference, inferences, measure_inference
from benchmarks.measure import Row, measure
from benchmarks.optimized_files import (
    WIDTH,
    OptimizedFile,
    absent_peers,
    files_in,
    light_files,
    measure_files,
    table_of,
)
from benchmarks.workloads import WORKLOADS

_OTHERS = ("inference", "fit", "imported", "compile", "optimize")
console = Console(width=None if sys.stdout.isatty() else 100)


def main(
    only: Annotated[
        str,
        typer.Option(help=f"Part of a workload's name, or {', '.join(_OTHERS)}."),
    ] = "",
    file: Annotated[Path | None, typer.Option("--json", help="Also write the rows here.")] = None,
    threads: Annotated[int, typer.Option(min=1, help="Threads that both sides use.")] = 1,
    files: Annotated[
        list[Path] | None,
        typer.Argument(help="ONNX files, or folders of them, for `optimize`; those that onnx has."),
    ] = None,
) -> None:
    """Training steps and inference against torch eager, compile times, and optimized ONNX files.

    Run it pinned to idle cores, one a thread: `taskset -c 0 python -m benchmarks`.
    """
    workloads = [w for w in WORKLOADS if only in w.name]
    if not workloads and not any(only in kind for kind in _OTHERS):
        names = ", ".join(dict.fromkeys(w.name for w in WORKLOADS))
        raise typer.BadParameter(
            f"no workload is called {only!r}; there are {names}, {', '.join(_OTHERS)}"
        )
    rows = [_shown(measure(w, threads)) for w in workloads]
    if rows:
        console.print(_steps(rows))
    ran = [measure_inference(w, threads) for w in inferences("" if only in "inference" else only)]
    if ran:
        console.print(_inference(ran))
    fits = measure_fit(threads) if only in "fit" else []
    if fits:
        console.print(_fits(fits))
    imported = measure_imported(threads) if only in "imported" else []
    if imported:
        console.print(_imported(imported))
    compiled = _compile_times() if only in "compile" else []
    optimized = _optimized(files or light_files()) if only in "optimize" else []
    if file is not None:
        kept = [_json(row) for row in rows]
        inference = [dataclasses.asdict(row) for row in ran]
        document = {
            "environment": environment(),
            "rows": kept,
            "inference": inference,
            "fit": [dataclasses.asdict(row) | {"added": row.added} for row in fits],
            "imported": [dataclasses.asdict(row) for row in imported],
            "compile": compiled,
            "optimize": [dataclasses.asdict(row) for row in optimized],
        }
        file.write_text(json.dumps(document, indent=2) + "\n")


def environment() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "system": platform.platform(),
        "python": platform.python_version(),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
        "torch": torch.__version__,
    }


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _json(row: Row) -> dict[str, Any]:
    return {k: v for k, v in dataclasses.asdict(row).items() if k != "target"}


def _shown(row: Row) -> Row:
    console.print(f"{row.workload} {row.optimizer}: {row.ratio:.2f}", style="dim")
    return row


def _steps(rows: list[Row]) -> Table:
    title = f"Milliseconds of one training step, threads: {rows[0].threads}; peer: {rows[0].peer}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for name in ("workload", "batch", "optimizer"):
        table.add_column(name, no_wrap=True)
    for name in ("ours", "peer", "peer/ours", "quartiles", "target"):
        table.add_column(name, justify="right", no_wrap=True)
    for r in rows:
        table.add_row(
            *(r.workload.removeprefix("mlp-"), str(r.batch), r.optimizer),
            *(f"{r.ours_ms:.3f}", f"{r.peer_ms:.3f}", f"{r.ratio:.2f}"),
            *(f"{r.quartiles[0]:.2f}–{r.quartiles[1]:.2f}", f"≥ {r.target:g}"),
        )
    return table


def _inference(rows: list[Inference]) -> Table:
    title = f"Milliseconds of inference, threads: {rows[0].threads}; peer: {rows[0].peer}"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("workload", no_wrap=True)
    names = ("batch", "peer", "TorchScript", "peer/TorchScript", "quartiles", "target")
    for name in (*names, "ONNX", "peer/ONNX"):
        table.add_column(name, justify="right")
    for r in rows:
        low, high = r.torchscript_quartiles
        table.add_row(
            *(r.workload.removeprefix("mlp-"), str(r.batch)),
            *(f"{r.peer_ms:.3f}", f"{r.torchscript_ms:.3f}", f"{r.torchscript_ratio:.2f}"),
            *(f"{low:.2f}–{high:.2f}", f"≥ {r.target:g}"),
            *(f"{r.onnx_ms:.3f}", f"{r.onnx_ratio:.2f}"),
        )
    return table


def _imported(rows: list[ImportedRow]) -> Table:
    title = f"Milliseconds of a step of a file, threads: {rows[0].threads}; beside the network's"
    table = Table(title=title, box=SIMPLE_HEAD, pad_edge=False)
    for name in ("network", "file by"):
        table.add_column(name, no_wrap=True)
    names = ("batch", "network", "file", "file/network", "quartiles", "target", "nodes", "nodes")
    for name in names:
        table.add_column(name, justify="right")
    for r in rows:
        table.add_row(
            *(r.workload, r.source, str(r.batch), f"{r.native_ms:.2f}", f"{r.imported_ms:.2f}"),
            *(f"{r.ratio:.3f}", f"{r.quartiles[0]:.3f}–{r.quartiles[1]:.3f}", f"≤ {r.target:g}"),
            *(str(r.native_nodes), str(r.imported_nodes)),
        )
    return table


def _fits(rows: list[FitRow]) -> Table:
    table = Table(title="Microseconds of a step of `fit`", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("data", no_wrap=True)
    for name in ("bare step", "fit", "added", "target"):
        table.add_column(name, justify="right")
    for r in rows:
        figures = (f"{x:.1f}" for x in (r.bare, r.fit, r.added))
        table.add_row(r.data, *figures, f"≤ {r.target:g}")
    return table


def _optimized(paths: list[Path]) -> list[OptimizedFile]:
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
