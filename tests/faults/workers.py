"""Cases in worker processes with limits of memory, of time and of the size of files.

A case is made of its seed. A worker that ends or hangs is seen, and replaced. What is not as it
should be is printed with its seed, and the files are kept.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nncompile.diagnostics.tables import columns

KEPT = Path(tempfile.gettempdir()) / "nncompile-faults"


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "read", "refused" or what is wrong. "equal" is a model that was read
    and gives the numbers that it should."""

    seed: int
    loader: str
    kind: str
    text: str = ""

    @property
    def is_wrong(self) -> bool:
        return self.kind not in ("read", "equal", "refused")


@dataclass(frozen=True)
class Cases:
    """How the case of a seed is made and run, in `directory/case`, and its limits."""

    name: Callable[[int], str]  # of the case of a seed: the row of the table it counts in
    run: Callable[[int, Path], Outcome]
    seconds: float  # that a worker may take, all it waits for included
    memory: int  # bytes of addresses
    file: int = 2**28  # bytes of a file
    processor_seconds: float | None = None  # that a case may compute


def outcomes_of(seeds: Sequence[int], directory: Path, cases: Cases) -> Iterator[Outcome]:
    """What became of the case of each seed, in a worker process with limits."""
    context: Any = multiprocessing.get_context("fork")
    worker = None
    for seed in seeds:
        if worker is None:
            ours, theirs = context.Pipe()
            worker = _start(context, theirs, directory, cases)
        ours.send(seed)
        name = cases.name(seed)
        try:
            if ours.poll(cases.seconds):
                yield ours.recv()
                continue
            yield kept(Outcome(seed, name, "hang"), directory)
        except (EOFError, ConnectionError):
            worker.join()
            printed = (directory / "printed").read_text(errors="replace")
            is_hang = worker.exitcode == -signal.SIGPROF
            text = f"exit code {worker.exitcode}\n{printed}"
            yield kept(Outcome(seed, name, "hang" if is_hang else "crash", text), directory)
        worker.kill()
        worker.join()
        worker = None
    if worker is not None:
        worker.kill()
        worker.join()


def _start(context: Any, theirs: Any, directory: Path, cases: Cases) -> Any:
    worker = context.Process(target=_work, args=(theirs, directory, cases))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads of numpy, which take it
        worker.start()
    theirs.close()
    return worker


def _work(pipe: Any, directory: Path, cases: Cases) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (cases.memory, cases.memory))
    resource.setrlimit(resource.RLIMIT_FSIZE, (cases.file, cases.file))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print of themselves is looked at, too.
    flags = os.O_CREAT | os.O_RDWR | os.O_TRUNC | os.O_APPEND
    printed = os.open(directory / "printed", flags, 0o600)
    os.dup2(printed, 2)
    faulthandler.register(signal.SIGPROF, file=2, chain=True)  # says where, and ends the worker
    warnings.simplefilter("ignore")  # of the system's own, about what is in the file
    while True:
        try:
            seed = pipe.recv()
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_PROF, cases.processor_seconds or 0)
        outcome = cases.run(seed, directory)
        signal.setitimer(signal.ITIMER_PROF, 0)
        text = (directory / "printed").read_text(errors="replace")
        os.truncate(printed, 0)
        if not outcome.is_wrong and "Traceback" in text:
            outcome = Outcome(seed, outcome.loader, "printed a traceback", text)
        pipe.send(kept(outcome, directory) if outcome.is_wrong else outcome)


def fresh(directory: Path) -> Path:
    """An empty `directory/case/inner`, for the files of a case."""
    shutil.rmtree(directory / "case", ignore_errors=True)
    inner = directory / "case" / "inner"
    inner.mkdir(parents=True)
    return inner


def files_outside(directory: Path) -> list[str]:
    """What a case wrote beside its own directory."""
    found = {*os.listdir(directory), *os.listdir(directory / "case")}
    return sorted(found - {"valid", "case", "inner", "printed"})


def kept(outcome: Outcome, directory: Path) -> Outcome:
    """The outcome, of which the files are kept."""
    target = KEPT / str(outcome.seed)
    shutil.rmtree(target, ignore_errors=True)
    KEPT.mkdir(exist_ok=True)
    shutil.copytree(directory / "case", target, symlinks=True, ignore=_no_files)
    return outcome


def _no_files(folder: str, names: list[str]) -> list[str]:
    """Pipes cannot be copied, nor files of terabytes of nothing."""
    paths = ((name, Path(folder, name)) for name in names)
    return [
        name
        for name, path in paths
        if not (path.is_file() or path.is_dir()) or path.stat().st_size > 2**30
    ]


def reported(
    outcomes: Callable[[Path], Iterator[Outcome]], count: int, names: Sequence[str]
) -> int:
    """Prints what is wrong as it comes, and a table at the end. The exit code is 1 if a case was
    not taken as it should be."""
    start, found, shown = time.monotonic(), [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nncompile-faults-") as directory:
        for outcome in outcomes(Path(directory)):
            found.append(outcome)
            if outcome.is_wrong:
                print(
                    f"\n--- seed {outcome.seed}, {outcome.loader}: {outcome.kind}\n{outcome.text}"
                )
                sys.stdout.flush()
            if time.monotonic() - shown > 30:
                shown = time.monotonic()
                print(f"{len(found):,} of {count:,}, {shown - start:.0f} s", flush=True)
    print(_table(found, names))
    wrong = sum(outcome.is_wrong for outcome in found)
    seconds = time.monotonic() - start
    print(f"{len(found):,} wrong files in {seconds:.0f} s: {wrong} not taken as they should be")
    if wrong:
        print(f"they are kept in {KEPT}")
    return 1 if wrong else 0


def _table(outcomes: Sequence[Outcome], names: Sequence[str]) -> str:
    kinds = sorted(
        {outcome.kind for outcome in outcomes}, key=lambda k: (k not in ("read", "equal"), k)
    )
    counts = Counter((outcome.loader, outcome.kind) for outcome in outcomes)
    shown = [name for name in names if any((name, kind) in counts for kind in kinds)]
    rows = [["", *kinds], *([name, *(f"{counts[name, k]:,}" for k in kinds)] for name in shown)]
    return columns(rows, range(1, len(kinds) + 1))
