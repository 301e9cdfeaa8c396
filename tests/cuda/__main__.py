"""`python -m tests.cuda [PART ...]`: every op and gradient, all examples, `verify` and the speed of
training steps on a GPU, in a few minutes."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

from nncompile.verify.doctor import examine
from tests.cuda import examples, ops, placement, precision, transfers
from tests.cuda.device import card
from tests.cuda.kernel_table import load_libraries

PARTS = ("ops", "examples", "verify", "precision", "transfers", "speed")
WITHOUT_GPU = ("placement",)  # see kernel_table.py


def main(words: Sequence[str] | None = None) -> int:
    """The report, line by line as it is made."""
    parser = argparse.ArgumentParser(prog="python -m tests.cuda", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*PARTS, *WITHOUT_GPU, []], default=list(PARTS))
    parser.add_argument("--provider", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--workers", type=int, default=8)
    parser.add_argument("--only", default="", help="part of the name of a case")
    parser.add_argument("--eager", action="store_true", help="leave torch.compile out")
    given = parser.parse_args(words)
    for name, value in card().items():
        print(f"{name}: {value}")
    if given.provider == "cuda" and not {*given.parts} <= {*WITHOUT_GPU}:
        found = next(x for x in examine("cuda") if x.what == "provider cuda")
        if found.holds is not True:
            print(": ".join((found.what, *found.details)))
            return 2
    failed = 0
    for part in given.parts:
        start = time.perf_counter()
        print(f"== {part}", flush=True)
        failed += globals()[f"_{part}"](given)
        print(f"== {part}: {time.perf_counter() - start:.0f} s", flush=True)
    return failed > 0


def _ops(given: argparse.Namespace) -> int:
    outcomes = ops.check_all(given.provider, given.workers, given.only)
    print("\n".join(ops.summary(outcomes)))
    return sum(bool(o.problem) for o in outcomes)


def _placement(given: argparse.Namespace) -> int:
    load_libraries()
    for line in placement.lines(given.only):
        print(line, flush=True)
    return 0


def _examples(given: argparse.Namespace) -> int:
    chosen = [name for name in examples.names() if given.only in name]
    with ProcessPoolExecutor(given.workers, mp_context=get_context("spawn")) as pool:
        rows = list(pool.map(partial(examples.check, provider=given.provider), chosen))
    print("\n".join(map(examples.line, rows)))
    return sum(bool(r.problem) for r in rows)


def _verify(given: argparse.Namespace) -> int:
    file = Path(examples.EXAMPLES) / "digits_cnn.py"
    command = [sys.executable, "-m", "nncompile", "verify", str(file)]
    return subprocess.run(command, check=False).returncode


def _precision(given: argparse.Namespace) -> int:
    return _told(precision.lines(given.provider))


def _transfers(given: argparse.Namespace) -> int:
    return _told(transfers.lines(given.provider))


def _told(lines: Iterable[tuple[str, bool]]) -> int:
    """Prints the lines as they are made, with what does not hold marked; how many do not."""
    failed = 0
    for text, holds in lines:
        failed += not holds
        print(text if holds else f"FAIL {text}", flush=True)
    return failed


def _speed(given: argparse.Namespace) -> int:
    from tests.cuda import speed

    speed.rows(given.only, not given.eager)
    return 0


if __name__ == "__main__":
    sys.exit(main())
