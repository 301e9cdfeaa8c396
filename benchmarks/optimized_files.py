"""`nncompile optimize` on ONNX files, beside onnxsim and onnxslim: nodes, times and numbers."""

from __future__ import annotations

import importlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
from rich.table import Table

from benchmarks.tables import table_with
from nncompile.backends.onnx.protos import all_nodes
from nncompile.diagnostics.errors import CompileError
from nncompile.frontends.onnx.simplify.simplifying import simplified
from nncompile.frontends.onnx.writing import write_model
from nncompile.runtime import Session
from nncompile.runtime.child import in_child
from nncompile.verify.onnx_files import Comparison, Drawn, compare

PEERS = ("onnxsim", "onnxslim")
LOADS, ROUNDS, ROUND_SECONDS = 5, 13, 0.008
PEER_SECONDS = 300.0
WIDTH = 130  # of the table
ORIGINAL, AGAIN, OURS = "original", "original again", "optimize"


@dataclass(frozen=True)
class OptimizedFile:
    """One file. `times` are the medians of the time of a call relative to the original's, with
    their quartiles, by the form of the file; that of the original loaded again is the noise."""

    file: str
    nodes: dict[str, int]
    times: dict[str, tuple[float, float, float]] = field(default_factory=dict)
    comparison: Comparison | None = None
    problems: dict[str, str] = field(default_factory=dict)

    @property
    def is_behind(self) -> bool:
        """Whether a peer has fewer nodes, the original is faster, or the numbers differ."""
        ours = self.nodes.get(OURS)
        fewest = min(self.nodes.values())
        slower = self.times.get(OURS, (0.0, 0.0, 0.0))[1] > 1
        return ours is None or ours > fewest or slower or OURS in self.problems


def absent_peers() -> list[str]:
    """The peers that are not installed."""
    return [peer for peer in PEERS if find_spec(peer) is None]


def peer_versions() -> dict[str, str]:
    """The peers that are, with their versions."""
    return {peer: version(peer) for peer in PEERS if find_spec(peer)}


def light_files() -> list[Path]:
    """The networks that onnx itself brings, of random weights made by nodes."""
    data = Path(onnx.__file__).parent / "backend" / "test" / "data"
    return sorted(data.glob("light/*.onnx"))


def files_in(paths: Sequence[Path]) -> list[Path]:
    """These files, and those in these folders."""
    return [
        f for path in paths for f in (sorted(path.rglob("*.onnx")) if path.is_dir() else [path])
    ]


def measure_files(files: Sequence[Path]) -> Iterator[OptimizedFile]:
    """Each file in its forms: as it is, of `nncompile optimize`, and of the peers installed."""
    for file in files:
        with tempfile.TemporaryDirectory() as directory:
            yield _measured(file, Path(directory))


def _measured(file: Path, directory: Path) -> OptimizedFile:
    name = file.parent.name if file.stem == "model" else file.stem
    forms, problems = {ORIGINAL: file, AGAIN: file}, {}
    makers: dict[str, Callable[[Path, Path], Any]] = {OURS: _ours}
    makers |= {peer: MAKERS[peer] for peer in peer_versions()}
    for form, make in makers.items():
        target = directory / f"{form}.onnx"
        try:
            in_child(make, file, target, what=form, timeout=PEER_SECONDS)
            forms[form] = target
        except Exception as error:  # a peer may raise anything
            problems[form] = str(error).partition("\n")[0]
    nodes = {form: node_count(path) for form, path in forms.items() if form != AGAIN}
    comparison = None
    try:
        if OURS in forms:
            comparison = compare(file, forms[OURS])
            if comparison.problem is not None:
                problems[OURS] = comparison.problem
        times, failed = relative_times(file, forms)
    except CompileError as error:
        return OptimizedFile(name, nodes, {}, None, {**problems, ORIGINAL: error.problem})
    return OptimizedFile(name, nodes, times, comparison, {**problems, **failed})


def node_count(file: Path) -> int:
    """All nodes of a file, those of graphs within nodes among them."""
    return sum(1 for _ in all_nodes(onnx.load(file, load_external_data=False).graph.node))


def _ours(file: Path, target: Path) -> None:
    """As the command does it, but for files that onnxruntime does not run, which it refuses."""
    for is_exact in (False, True):
        write_model(simplified(file, is_exact), target, str(file.parent))
        try:
            if compare(file, target).agrees:
                return
        except CompileError:
            return


def _onnxsim(file: Path, target: Path) -> None:
    simplify = importlib.import_module("onnxsim").simplify
    onnx.save(simplify(onnx.load(file))[0], target)


def _onnxslim(file: Path, target: Path) -> None:
    slim = importlib.import_module("onnxslim").slim
    onnx.save(slim(onnx.load(file)), target)


MAKERS: Mapping[str, Callable[[Path, Path], None]] = {"onnxsim": _onnxsim, "onnxslim": _onnxslim}


def relative_times(
    file: Path, forms: Mapping[str, Path]
) -> tuple[dict[str, tuple[float, float, float]], dict[str, str]]:
    """The time of a call of each form relative to that of the original: median and quartiles of
    rounds, in which each form has its turn, in random order, in sessions that are loaded anew now
    and then; and the forms that do not run."""
    drawn = Drawn(Session(file, threads=1, optimization="none"), 0)
    feeds = next((feeds for _, feeds, _ in drawn.cases()), None)
    if feeds is None:
        raise CompileError("it runs on no inputs that are drawn")
    failed: dict[str, str] = {}
    ratios: dict[str, list[float]] = {}
    order = random.Random(0)
    for _ in range(LOADS):
        calls = {}
        for form, path in forms.items():
            try:
                calls[form] = _call(path, feeds)
            except CompileError as error:
                failed[form] = error.problem
        count = max(1, round(ROUND_SECONDS / _seconds(calls[ORIGINAL], 3)))
        for _ in range(ROUNDS):
            turns = list(calls)
            order.shuffle(turns)
            took = {form: _seconds(calls[form], count) for form in turns}
            for form, seconds in took.items():
                ratios.setdefault(form, []).append(seconds / took[ORIGINAL])
    return {form: _quartiles(found) for form, found in ratios.items() if form != ORIGINAL}, failed


def _quartiles(ratios: Sequence[float]) -> tuple[float, float, float]:
    low, middle, high = statistics.quantiles(ratios, n=4)
    return middle, low, high


def _call(path: Path, feeds: Mapping[str, Any]) -> Callable[[], Any]:
    session = Session(path, threads=1)
    session.run(feeds)
    run = session.onnxruntime.run
    return lambda: run(None, feeds)


def _seconds(call: Callable[[], Any], count: int) -> float:
    """Of this thread, which does all the work: what others do on the machine does not count."""
    start = time.thread_time()
    for _ in range(count):
        call()
    return (time.thread_time() - start) / count


def table_of(rows: Sequence[OptimizedFile]) -> Table:
    """Nodes, times relative to the original with their quartiles, and differences."""
    peers = peer_versions()
    title = "Nodes, and the time of a call relative to that of the original, threads: 1"
    columns = [f"{peer} {number}" for peer, number in peers.items()]
    times = ["time", *(f"{peer} time" for peer in peers), "again"]
    table = table_with(title, ["file"], ("nodes", OURS, *columns, *times, "difference", ""))
    for row in rows:
        counts = (str(row.nodes.get(form, "–")) for form in (ORIGINAL, OURS, *peers))
        took = (
            _shown(row.times.get(form), form in (OURS, AGAIN)) for form in (OURS, *peers, AGAIN)
        )
        largest = "–" if row.comparison is None else f"{row.comparison.largest:.0e}"
        table.add_row(row.file, *counts, *took, largest, "!" if row.is_behind else "")
    return table


def _shown(times: tuple[float, float, float] | None, with_quartiles: bool) -> str:
    if times is None:
        return "–"
    middle, low, high = times
    return f"{middle:.2f} {low:.2f}–{high:.2f}" if with_quartiles else f"{middle:.2f}"
