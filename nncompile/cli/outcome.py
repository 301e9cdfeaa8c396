"""What a command found: its exit code, and with `--json` an object on the standard output."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import CompileError

# Exit codes: a check that fails, what the user can mend, Ctrl-C and SIGTERM (as shells have them).
FAILED, MISTAKE, INTERRUPTED, TERMINATED = 1, 2, 130, 143


@dataclass(frozen=True)
class Outcome:
    """What a command found, by name, and its exit code."""

    found: Mapping[str, Any] = field(default_factory=dict)
    exit_code: int = 0


Command = Callable[..., Outcome | None]


def of_error(error: BaseException, exit_code: int) -> Outcome:
    """The outcome of a command that an error ended."""
    told: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, CompileError):
        told |= {"message": error.message, "rows": error.rows, "hint": error.hint}
        if error.location is not None:
            told |= {"file": error.location.file, "line": error.location.line}
    return Outcome({"error": told}, exit_code)


def as_json(outcome: Outcome) -> str:
    """One JSON object: the exit code, and what was found. Arrays are lists; a number that is not
    finite is null, as JSON has none."""
    return json.dumps(plain({"exit_code": outcome.exit_code, **outcome.found}), ensure_ascii=False)


def plain(x: Any) -> Any:
    """`x` in the types of JSON."""
    if isinstance(x, Mapping):
        return {str(name): plain(value) for name, value in x.items()}
    if isinstance(x, np.ndarray | np.generic):
        x = x.tolist()
    if isinstance(x, Enum):
        return plain(x.value)
    if isinstance(x, Sequence) and not isinstance(x, str | bytes):
        return [plain(value) for value in x]
    if isinstance(x, float) and not math.isfinite(x):
        return None
    return x if x is None or isinstance(x, bool | int | float | str) else str(x)


@contextmanager
def for_people_on(console: Any, elsewhere: bool) -> Iterator[None]:
    """While the block runs, the console prints to the standard error, where it is `elsewhere`."""
    before = console.stderr
    console.stderr = elsewhere or before
    try:
        yield
    finally:
        console.stderr = before


def print_json(outcome: Outcome) -> None:
    """Prints the object on a line of the standard output."""
    sys.stdout.write(as_json(outcome) + "\n")
    sys.stdout.flush()


def described_files(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """The path and the size of each file."""
    return [{"path": str(path), "bytes": path.stat().st_size} for path in paths]
