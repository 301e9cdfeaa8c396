"""`python -m tests.onnx_models FILE...`: a row for each file of what is promised of it."""

from __future__ import annotations

import argparse
import sys
import time
import warnings
from pathlib import Path

from tests.onnx_models.checking import COLUMNS, Row, checked


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.onnx_models", description=__doc__)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = []
    for file in options.files:
        start = time.monotonic()
        rows.append(checked(file))
        state = "short" if rows[-1].short else "good"
        print(
            f"{file.name}: {state}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True
        )
    print(table(rows))
    for row in rows:
        for problem in row.short:
            print(f"{row.cells['file']}: {problem}")
    return int(any(row.short for row in rows))


def table(rows: list[Row]) -> str:
    """The rows as a table of Markdown."""
    cells = [list(COLUMNS), *([row.cells.get(c, "") for c in COLUMNS] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(x.ljust(w) for x, w in zip(row, widths, strict=True)) + " |"
        for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
