"""`python -m tests.onnx_cases [--kind node] [--only TEXT] [--each N]`: a table of all cases;
with `--page`, the page of operators is written."""

from __future__ import annotations

import argparse
import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

from tests.onnx_cases.light import LIGHT, distance
from tests.onnx_cases.page import PAGE, write
from tests.onnx_cases.running import Outcome, cases, outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.onnx_cases")
    parser.add_argument("--kind", default="node")
    parser.add_argument("--only", default="")
    parser.add_argument("--each", type=int, default=1, help="every so many of them")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--page", action="store_true", help="write docs/onnx-ops.md")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.page:
        wrong = write()
        print(f"wrote {PAGE}", *wrong, sep="\n")
        return int(bool(wrong))
    outcomes = []
    chosen = [c for c in cases(options.kind) if options.only in c.name][:: options.each]
    for case in chosen:
        try:
            result = outcome(case)
        except Exception as error:  # of the importer itself, which the table shows
            frame = traceback.extract_tb(error.__traceback__)[-1]
            place = f"{frame.filename.rpartition('/')[2]}:{frame.lineno}"
            result = Outcome(case.name, "raised", f"{type(error).__name__} {place}: {error}"[:150])
        outcomes.append(result)
        if (options.verbose and result.result != "passed") or result.result in ("wrong", "raised"):
            print(result.result, result.name, result.reason, result.bound or "", flush=True)
    report(outcomes)
    if options.kind == "light":
        with_weights(options.only)
    return int(any(o.result in ("wrong", "raised") for o in outcomes))


def report(outcomes: list[Outcome]) -> None:
    """Prints how many there are of each."""
    counts = Counter(o.result for o in outcomes)
    bound = sum(o.result == "passed" and bool(o.bound) for o in outcomes)
    print(f"\n{len(outcomes)} cases: {counts['passed']} passed ({bound} with inputs bound)", end="")
    kinds = ("close", "drawn", "refused", "wrong", "raised")
    print(", " + ", ".join(f"{counts[k]} {k}" for k in kinds) + "\n")
    for o in outcomes:
        if o.result == "close":
            print(f"close  {o.name}: {o.reason}")
    reasons = Counter(o.reason for o in outcomes if o.result == "refused")
    for reason, count in reasons.most_common():
        print(f"{count:>5}  {reason}")


def with_weights(only: str) -> None:
    """Prints how far the networks with random weights are from their files in onnxruntime."""
    for file in sorted(LIGHT.glob("*.onnx")):
        if only in file.stem:
            with tempfile.TemporaryDirectory() as directory:
                apart, count = distance(file, Path(directory))
            print(f"{file.stem}: {count:,} random weights, {apart:.1e} of the largest output apart")


if __name__ == "__main__":
    sys.exit(main())
