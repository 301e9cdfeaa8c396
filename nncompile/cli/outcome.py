"""What a command found: its exit code, and with `--json` an object on the standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.json_values import json_value

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
    described: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, CompileError):
        described |= {"message": error.message, "rows": error.rows, "hint": error.hint}
        if error.location is not None:
            described |= {"file": error.location.file, "line": error.location.line}
    return Outcome({"error": described}, exit_code)


def as_json(outcome: Outcome) -> str:
    """One JSON object: the exit code, and what was found, as `json_value` has it."""
    content = json_value({"exit_code": outcome.exit_code, **outcome.found})
    return json.dumps(content, ensure_ascii=False)


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
