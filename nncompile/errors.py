"""Errors that teach: what went wrong, with which things, at which of the user's lines, and a way
out."""

from __future__ import annotations

from collections.abc import Sequence

from nncompile.sites import Site, user_site

Row = tuple[str, ...]


class CompileError(Exception):
    """A mistake in the user's model, data or call.

    `message` says what was expected and what came; `rows` are aligned columns with the things
    involved; `hint` is a way out; `site` is the user's line (found by itself where it is None).
    """

    def __init__(
        self,
        message: str,
        *,
        rows: Sequence[Row] = (),
        hint: str | None = None,
        site: Site | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.rows = tuple(rows)
        self.hint = hint
        self.site = site if site is not None else user_site()

    def render(self) -> str:
        """The whole message, without the name of the error."""
        lines = [self.message]
        columns = max((len(row) for row in self.rows), default=0)
        filled = [row + ("",) * (columns - len(row)) for row in self.rows]
        widths = [max(len(row[i]) for row in filled) for i in range(columns)]
        for row in filled:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            lines.append("  " + "  ".join(cells).rstrip())
        if self.site is not None:
            lines.append(f"  at {self.site}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.render()


class ShapeError(CompileError, ValueError):
    """Sizes, ranks or axes that do not fit."""


class DTypeError(CompileError, TypeError):
    """Element types that do not fit."""


class FormulaError(CompileError, TypeError):
    """A formula that is not a real-valued scalar function, or a value used as a truth value."""


class GradientError(CompileError, TypeError):
    """A gradient that does not exist."""


class ModelError(CompileError, ValueError):
    """A declaration (model, recipe, parameter, layer) that cannot be met."""


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
