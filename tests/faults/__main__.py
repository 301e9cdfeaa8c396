"""`python -m tests.faults KIND [COUNT]`: makes that many faults of a kind, and tells which of them
the project did not take as it should."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from tests.faults import files, kill, leaks, onnx_cases

# Kind → what makes that many faults, from a seed on, and gives the exit code.
KINDS: dict[str, Callable[[int, int], int]] = {
    "files": files.main,
    "kill": kill.main,
    "leaks": leaks.main,
    "onnx": onnx_cases.main,
}


def main(words: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("count", type=int, nargs="?", default=1000)
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    arguments = parser.parse_args(words)
    return KINDS[arguments.kind](arguments.count, arguments.seed)


if __name__ == "__main__":
    sys.exit(main())
