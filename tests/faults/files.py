"""Wrong files: each is read, or refused by a message of ours, within its time and its directory.

A file is made of a valid one by the seed of its case, and read in a worker process.
"""

from __future__ import annotations

import os
import random
import shutil
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from nncompile.diagnostics.errors import CompileError
from tests.faults import workers
from tests.faults.loaders import LOADERS, Loader, make_files
from tests.faults.mutations import mutated
from tests.faults.workers import Cases, Outcome, files_outside, fresh

_MEMORY = 24 * 2**30  # bytes of addresses, of which torch takes some for nothing
_SECONDS = 60


def main(count: int, seed: int) -> int:
    """Makes `count` wrong files, and reports. The exit code is 1 if one was not taken as it should
    be."""
    seeds = range(seed, seed + count)
    names = [x.name for x in LOADERS]
    return workers.reported(lambda directory: outcomes_of(seeds, directory), count, names)


def outcomes_of(
    seeds: Sequence[int], directory: Path, loaders: Sequence[Loader] = LOADERS
) -> Iterator[Outcome]:
    """What became of the case of each seed, in a worker process with limits."""
    valid = directory / "valid"
    valid.mkdir()
    make_files(valid, with_torch=any(x.slow for x in loaders))
    cases = Cases(
        lambda seed: _loader(seed, loaders).name,
        partial(run_case, loaders=loaders),
        _SECONDS,
        _MEMORY,
    )
    yield from workers.outcomes_of(seeds, directory, cases)


def run_case(seed: int, directory: Path, loaders: Sequence[Loader] = LOADERS) -> Outcome:
    """Makes the file of that seed in `directory/case/inner`, and has it read there."""
    loader = _loader(seed, loaders)
    inner = fresh(directory)
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
    outside = files_outside(directory)
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
