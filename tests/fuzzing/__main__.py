"""`python -m tests.fuzzing --count 20000 --seed 0 --workers 2`: many programs, outside of pytest.

The work is cut into chunks of one seed and one op in focus each. With `--log FILE` every
finished chunk is written to a file of JSON lines, and those that are in it already are not run
again.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.fuzzing.chunks import CHUNK, run_chunk
from tests.fuzzing.search import SHRINKING, op_types


def main(words: Sequence[str] | None = None) -> int:
    arguments = _arguments(words)
    first, count = arguments.seed, -(-arguments.count // CHUNK)
    done = list(_logged(arguments.log, range(first, first + count)))
    known = {entry["seed"] for entry in done}
    todo = [(s, arguments.shrinking) for s in range(first, first + count) if s not in known]
    start = time.monotonic()
    last = start
    for entry in _run(todo, arguments.workers):
        done.append(entry)
        if arguments.log:
            with arguments.log.open("a") as file:
                file.write(json.dumps(entry) + "\n")
        for kind, text in entry["failures"]:
            print(f"\n--- seed {entry['seed']}: {kind}\n{text}", flush=True)
        if time.monotonic() - last > 30:
            last = time.monotonic()
            print(_progress(done, count, last - start), flush=True)
    print(_report(done), flush=True)
    return 1 if any(entry["failures"] for entry in done) else 0


def _run(todo: list[tuple[int, int]], workers: int) -> Iterator[dict[str, Any]]:
    if workers == 1:
        yield from map(run_chunk, todo)
        return
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(run_chunk, todo)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzzing", description=__doc__)
    parser.add_argument("--count", type=int, default=20000, help="programs in all")
    parser.add_argument("--seed", type=int, default=0, help="of the first chunk")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--log", type=Path, help="JSON lines of finished chunks, to go on from")
    parser.add_argument(
        "--shrinking", type=int, default=SHRINKING, help="tries to make a failure smaller"
    )
    return parser.parse_args(words)


def _logged(log: Path | None, seeds: range) -> Iterator[dict[str, Any]]:
    if log is None or not log.exists():
        return
    for line in log.read_text().splitlines():
        entry = json.loads(line)
        if entry["seed"] in seeds:
            yield entry


def _progress(done: list[dict[str, Any]], count: int, seconds: float) -> str:
    programs = sum(entry["count"] for entry in done)
    failures = sum(len(entry["failures"]) for entry in done)
    return f"{len(done)}/{count} chunks, {programs} programs, {failures} failures, {seconds:.0f} s"


def _report(done: list[dict[str, Any]]) -> str:
    """Counts, the histogram of ops, and the kinds of failures."""
    histogram: Counter[str] = Counter({op_type.__name__: 0 for op_type in op_types()})
    for entry in done:
        histogram.update(entry["ops"])
    for structural in ("Input", "Item"):
        histogram.pop(structural, None)
    kinds = Counter(kind for entry in done for kind, _ in entry["failures"])
    programs = sum(entry["count"] for entry in done)
    seconds = sum(entry["seconds"] for entry in done)
    lines = [f"{programs} programs, {seconds:.0f} s of work, {sum(kinds.values())} failures"]
    lines += [f"  {number:6d}  {kind}" for kind, number in kinds.most_common()]
    median = statistics.median(histogram.values())
    lines.append(f"ops: {len(histogram)}, median {median:.0f} programs each")
    width = max(map(len, histogram))
    lines += [
        f"  {name:{width}}  {number:6d}" for name, number in reversed(histogram.most_common())
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
