"""Pictures of a training, drawn with matplotlib: an extra, which nothing else needs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.extras import extra
from nncompile.ir.types import Array
from nncompile.runtime import write_atomically

FORMATS = ("png", "svg", "pdf")
Line = tuple[Sequence[float] | Array, Sequence[float] | Array]


def draw_lines(
    path: str | os.PathLike[str],
    lines: Mapping[str, Line],
    x_label: str = "",
    y_label: str = "",
    log_x: bool = False,
    log_y: bool = False,
    marks: Mapping[str, float] | None = None,
) -> Path:
    """Draws lines, each of its x and its y, by name, to a .png, .svg or .pdf file; `marks` are
    upright lines at an x. A logarithmic axis leaves out numbers that are not positive.

    Raises `ModelError` where matplotlib is not installed or the format is another, `FileError`
    where the file cannot be written.
    """
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise ModelError(
            f"a picture must be one of {', '.join(f'.{f}' for f in FORMATS)}, got "
            f"{os.fspath(path)!r}"
        )
    figure = new_figure()
    axes = figure.add_subplot()
    for name, (x, y) in lines.items():
        axes.plot(x, y, label=name, marker="." if len(x) <= 30 else None)
    for i, (name, position) in enumerate((marks or {}).items()):
        axes.axvline(position, label=name, color=f"C{len(lines) + i}", linestyle="--")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if lines or marks:
        axes.legend()

    def save(beside: Path) -> None:
        # Without a date or a version: the same figures give the same bytes.
        metadata = {"png": {"Software": None}, "svg": {"Date": None}}
        figure.savefig(beside, format=kind, dpi=120, metadata=metadata.get(kind))

    return write_atomically(path, save)


def new_figure(width: float = 7.0, height: float = 4.5) -> Any:
    """A figure of matplotlib of that size in inches. Raises `ModelError` where matplotlib is not
    installed."""
    # Not through pyplot, whose state and windows are the user's.
    hint = "pip install 'nncompile[plot]'; CSVLog writes the same figures as text"
    figure = extra("matplotlib.figure", "matplotlib", "drawing", hint, ModelError).Figure
    return figure(figsize=(width, height), layout="constrained")
