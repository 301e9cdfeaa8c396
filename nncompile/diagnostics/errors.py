"""Errors that teach: what went wrong, with which things, at which of the user's lines, and a way
out."""

from __future__ import annotations

import difflib
import operator
import re
import reprlib
import warnings
from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from nncompile.diagnostics.locations import Location, call_label, user_location
from nncompile.diagnostics.printable import printable

Row = tuple[str, ...]
_LISTED = 12  # known names that a hint lists where none is close
_BEGINNING = 3  # letters that say which name is meant, where only one begins so


def closest(name: object, candidates: Iterable[object]) -> str | None:
    """The only candidate that begins with `name`, or else the one that is most like it; None where
    none is close.

    >>> closest("val_acc", ["val_auc", "val_accuracy"]), closest("widht", ["width"])
    ('val_accuracy', 'width')
    """
    text, names = str(name), [str(k) for k in candidates]
    longer = [k for k in names if k.startswith(text)] if len(text) >= _BEGINNING else []
    if len(longer) == 1:
        return longer[0]
    close = difflib.get_close_matches(text, names, n=1)
    return close[0] if close else None


def did_you_mean(
    name: object, candidates: Iterable[object], otherwise: str | None = None
) -> str | None:
    """A hint with the candidate that is closest; where none is, `otherwise`, or all of them where
    they are few."""
    names = [str(k) for k in candidates]
    close = closest(name, names)
    if close is not None:
        return f"did you mean {close!r}?"
    if otherwise is not None:
        return otherwise
    return f"choose one of {', '.join(names)}" if 0 < len(names) <= _LISTED else None


class CompileError(Exception):
    """A mistake in the user's model, data or call.

    `message` says what was expected and what was given; `rows` are aligned columns with the things
    involved; `hint` says how to fix it; `location` is the user's line (by default that which runs).
    `problem` is the message without the name of the function that was called.
    """

    # Whether it is about the arguments of a call: the message begins with what was called.
    of_a_call: ClassVar[bool] = False
    # The rows that a message shows, and says how many more there are; None for all.
    most_rows: ClassVar[int | None] = 40

    def __init__(
        self,
        message: str,
        *,
        rows: Sequence[Row] = (),
        hint: str | None = None,
        location: Location | None = None,
    ) -> None:
        self.location = location if location is not None else user_location()
        self.problem = message
        self.message = self._with_call(message) if self.of_a_call and location is None else message
        super().__init__(self.message)
        self.rows = tuple(rows)
        self.hint = hint

    def _with_call(self, message: str) -> str:
        """The message with what was called, beside the op that it begins with, if any."""
        call = self.location.call if self.location else ""
        if not call or re.search(rf"(?<!\w){re.escape(call)}(?!\w)", message, re.IGNORECASE):
            return message
        label, colon, remainder = message.partition(": ")
        op = label if colon and label.isidentifier() else ""
        return f"{call_label(self.location, op)}: {remainder if op else message}"

    def render(self) -> str:
        """The whole message, without the name of the error."""
        lines = [printable(self.message, kept="\n")]
        most = self.most_rows if self.most_rows is not None else len(self.rows)
        rows = [tuple(printable(cell, kept="\n") for cell in row) for row in self.rows[:most]]
        columns = max(map(len, rows), default=0)
        filled = [row + ("",) * (columns - len(row)) for row in rows]
        widths = [max(len(row[i]) for row in filled) for i in range(columns)]
        for row in filled:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(cells).rstrip())
        if len(self.rows) > most:
            lines.append(f"  and {len(self.rows) - most} more")
        if self.location is not None:
            lines.append(f"  at {printable(str(self.location))}")
        if self.hint:
            lines.append(f"  hint: {printable(self.hint, kept=chr(10))}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class ModelWarning(UserWarning):
    """A model that can be computed, but is probably a mistake."""


class TrainingWarning(UserWarning):
    """Something that keeps a training from learning or from what it was asked, but is not an
    error."""


_TOLD: dict[Any, Any] = {}  # so that Python shows a warning once


def warn(
    message: str, category: type[Warning] = ModelWarning, location: Location | None = None
) -> None:
    """Warns at `location`, or else at the user's line, where there is one."""
    location = user_location() if location is None else location
    if location is None:
        warnings.warn(message, category, stacklevel=2)
    else:
        warnings.warn_explicit(message, category, location.file, location.line, registry=_TOLD)


def whole_number(name: str, x: object, least: int | None = None) -> int:
    """`x` as an int, also where it is one of numpy's. Raises `ModelError` where it is not a
    whole number, or below `least`."""
    try:
        number = operator.index(x)  # type: ignore[arg-type]  # what has none raises TypeError
    except TypeError:
        raise ModelError(f"{name} must be a whole number, got {reprlib.repr(x)}") from None
    if least is not None and number < least:
        raise ModelError(f"{name} must be at least {least}, got {number}")
    return number


def seed_number(x: object) -> int:
    """A seed as an int. Raises `ModelError` where it is not a whole number from 0 to 2⁶³ − 1."""
    number = whole_number("seed", x, 0)
    if number >= 2**63:
        raise ModelError(f"seed must be less than 2**63, got {number}")
    return number


class ShapeError(CompileError, ValueError):
    """Sizes, ranks or axes that do not fit."""

    of_a_call = True
    undecided: tuple[Any, Any] | None = None
    """Two sizes that must be equal, where that cannot be told."""
    repeats: bool = False
    """Whether one of them may be 1 instead."""


class DTypeError(CompileError, TypeError):
    """Element types that do not fit."""

    of_a_call = True


class FormulaError(CompileError, TypeError):
    """A formula that is not a real-valued scalar function, or a value used as a truth value."""

    of_a_call = True


class UnknownNameError(CompileError, AttributeError):
    """A method or attribute that a value does not have."""


class ForeignNameError(CompileError, ImportError):
    """A name of another library. It is an `ImportError`, as `from ... import` puts a text of its
    own in the place of an `AttributeError`'s."""


class GradientError(CompileError, TypeError):
    """A gradient that does not exist."""

    of_a_call = True


class ModelError(CompileError, ValueError):
    """A declaration (model, recipe, parameter, layer) that cannot be met."""

    of_a_call = True


class FeedError(CompileError, ValueError):
    """Data that do not fit the inputs: missing, unknown, of another type or shape."""


class TrainingError(CompileError, ArithmeticError):
    """A training that diverged: a loss that is not finite."""


class ProviderError(CompileError, ValueError):
    """An execution provider that this onnxruntime does not have."""


class CheckpointError(CompileError, ValueError):
    """A checkpoint that is truncated, foreign, or of another model."""


class BackendError(CompileError, ValueError):
    """A graph that a backend cannot express, or a file that it cannot write or read."""


class FileError(CompileError, OSError):
    """A file or directory that cannot be read or written."""


class ProcessError(CompileError, RuntimeError):
    """A child process that crashed, or that ran out of memory or of time; `exit_code` is what the
    command line ends with."""

    def __init__(self, message: str, *, exit_code: int = 1, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_code = exit_code


class LostProcessError(ProcessError):
    """One of the processes that train together has ended; the others can go on without it."""
