"""Wrong files: each is read, or refused by a message of ours, within its time and its directory.

A file is made of a valid one by the seed of its case. It is read in a worker process with limits of
memory, of time and of the size of files; a worker that ends or hangs is seen, and replaced. What is
not as it should be is printed with its seed, and the file is kept.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.tables import columns
from tests.faults.loaders import LOADERS, Loader, make_files
from tests.faults.mutations import mutated

_MEMORY = 24 * 2**30  # bytes of addresses, of which torch takes some for nothing
_FILE = 2**28  # bytes of a file
_SECONDS = 60
KEPT = Path(tempfile.gettempdir()) / "nncompile-faults"


@dataclass(frozen=True)
class Outcome:
    """What became of a case: "read", "refused" or what is wrong."""

    seed: int
    loader: str
    kind: str
    text: str = ""

    @property
    def is_wrong(self) -> bool:
        return self.kind not in ("read", "refused")


def main(count: int, seed: int) -> int:
    """Makes `count` wrong files, and reports. The exit code is 1 if one was not taken as it should
    be."""
    start, outcomes, shown = time.monotonic(), [], time.monotonic()
    with tempfile.TemporaryDirectory(prefix="nncompile-faults-") as directory:
        for outcome in outcomes_of(range(seed, seed + count), Path(directory)):
            outcomes.append(outcome)
            if outcome.is_wrong:
                print(
                    f"\n--- seed {outcome.seed}, {outcome.loader}: {outcome.kind}\n{outcome.text}"
                )
                sys.stdout.flush()
            if time.monotonic() - shown > 30:
                shown = time.monotonic()
                print(f"{len(outcomes):,} of {count:,}, {shown - start:.0f} s", flush=True)
    print(_table(outcomes))
    wrong = sum(outcome.is_wrong for outcome in outcomes)
    seconds = time.monotonic() - start
    print(f"{len(outcomes):,} wrong files in {seconds:.0f} s: {wrong} not taken as they should be")
    if wrong:
        print(f"they are kept in {KEPT}")
    return 1 if wrong else 0


def outcomes_of(
    seeds: Sequence[int], directory: Path, loaders: Sequence[Loader] = LOADERS
) -> Iterator[Outcome]:
    """What became of the case of each seed, in a worker process with limits."""
    valid = directory / "valid"
    valid.mkdir()
    make_files(valid, with_torch=any(x.slow for x in loaders))
    context: Any = multiprocessing.get_context("fork")
    worker = None
    for seed in seeds:
        if worker is None:
            ours, theirs = context.Pipe()
            worker = _start(context, theirs, directory, loaders)
        ours.send(seed)
        loader = _loader(seed, loaders)
        try:
            if ours.poll(_SECONDS):
                yield ours.recv()
                continue
            yield _kept(Outcome(seed, loader.name, "hang"), directory)
        except (EOFError, ConnectionError):
            worker.join()
            yield _kept(Outcome(seed, loader.name, "crash", f"{worker.exitcode}"), directory)
        worker.kill()
        worker.join()
        worker = None
    if worker is not None:
        worker.kill()
        worker.join()


def _start(context: Any, theirs: Any, directory: Path, loaders: Sequence[Loader]) -> Any:
    worker = context.Process(target=_work, args=(theirs, directory, loaders))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads of numpy, which take it
        worker.start()
    theirs.close()
    return worker


def _work(pipe: Any, directory: Path, loaders: Sequence[Loader]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (_FILE, _FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # What libraries print of themselves is looked at, too.
    flags = os.O_CREAT | os.O_RDWR | os.O_TRUNC | os.O_APPEND
    printed = os.open(directory / "printed", flags, 0o600)
    os.dup2(printed, 2)
    warnings.simplefilter("ignore")  # of the system's own, about what is in the file
    while True:
        try:
            seed = pipe.recv()
        except EOFError:
            return
        outcome = run_case(seed, directory, loaders)
        text = (directory / "printed").read_text(errors="replace")
        os.truncate(printed, 0)
        if not outcome.is_wrong and "Traceback" in text:
            outcome = Outcome(seed, outcome.loader, "printed a traceback", text)
        pipe.send(_kept(outcome, directory) if outcome.is_wrong else outcome)


def run_case(seed: int, directory: Path, loaders: Sequence[Loader] = LOADERS) -> Outcome:
    """Makes the file of that seed in `directory/case/inner`, and has it read there."""
    loader = _loader(seed, loaders)
    inner = directory / "case" / "inner"
    shutil.rmtree(directory / "case", ignore_errors=True)
    inner.mkdir(parents=True)
    _make(seed, directory / "valid", inner, loader)
    try:
        with _within(inner):
            loader.read(inner / loader.file)
        outcome = Outcome(seed, loader.name, "read")
    except CompileError as error:
        outcome = Outcome(seed, loader.name, "refused", str(error))
        if not str(error).replace("\n", "").isprintable():
            outcome = Outcome(seed, loader.name, "control characters", repr(str(error)))
    except BaseException:  # whatever it is
        outcome = Outcome(seed, loader.name, "traceback", traceback.format_exc())
    outside = sorted(
        {*os.listdir(directory), *os.listdir(directory / "case")}
        - {"valid", "case", "inner", "printed"}
    )
    if outside:
        return Outcome(seed, loader.name, "files outside", ", ".join(outside))
    return outcome


def _make(seed: int, valid: Path, inner: Path, loader: Loader) -> None:
    """The wrong file, and the right ones beside it."""
    r = random.Random(seed)
    for name in loader.others:
        shutil.copy(valid / name, inner / name)
    path = inner / loader.file
    special = r.random()
    if special < 0.004:
        path.mkdir()
    elif special < 0.008:
        os.mkfifo(path)
    elif special < 0.012:
        path.symlink_to("/dev/zero")
    elif special < 0.016:
        path.symlink_to(inner / "nowhere")
    else:
        files = sorted(valid.iterdir())
        others = [file.read_bytes() for file in r.sample(files, 2)]
        content = (valid / loader.file).read_bytes()
        path.write_bytes(mutated(r, path.suffix, content, others))


def _loader(seed: int, loaders: Sequence[Loader]) -> Loader:
    return random.Random(f"loader {seed}").choices(loaders, [x.weight for x in loaders])[0]


@contextmanager
def _within(directory: Path) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(directory)
    try:
        yield
    finally:
        os.chdir(before)


def _kept(outcome: Outcome, directory: Path) -> Outcome:
    """The outcome, of which the files are kept."""
    target = KEPT / str(outcome.seed)
    shutil.rmtree(target, ignore_errors=True)
    KEPT.mkdir(exist_ok=True)
    shutil.copytree(directory / "case", target, symlinks=True, ignore=_no_files)
    return outcome


def _no_files(folder: str, names: list[str]) -> list[str]:
    """Pipes cannot be copied."""
    paths = ((name, Path(folder, name)) for name in names)
    return [name for name, path in paths if not (path.is_file() or path.is_dir())]


def _table(outcomes: Sequence[Outcome]) -> str:
    kinds = sorted({outcome.kind for outcome in outcomes}, key=lambda k: (k != "read", k))
    counts = Counter((outcome.loader, outcome.kind) for outcome in outcomes)
    names = [x.name for x in LOADERS if any((x.name, kind) in counts for kind in kinds)]
    rows = [["", *kinds], *([name, *(f"{counts[name, k]:,}" for k in kinds)] for name in names)]
    return columns(rows, range(1, len(kinds) + 1))
