"""Tensors with elements around them: numbers, or copies of their own elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import ShapeError, did_you_mean
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import maximum, minimum
from nncompile.ir.basic import as_value, size_value
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import Dim, dim, with_axis
from nncompile.ir.op import Value
from nncompile.ops.core.counting import iota
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.joining import concatenate, split
from nncompile.ops.shape.slicing import along, padded

# numpy's names of what is put beside the elements, and torch's, which layers take.
MODES = ("constant", "edge", "reflect", "symmetric", "wrap")
TORCH_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


@suggests_names
def pad(
    x: Any, pad_width: Any, mode: str = "constant", constant_values: float | int | bool = 0
) -> Value:
    """`x` with elements added before and after along each axis, as `np.pad`.

    `pad_width` is one width, one pair (before, after) for all axes, or a pair for each axis; `mode`
    is "constant" (a number), "edge" (the outermost element), "reflect" (mirrored at it),
    "symmetric" (mirrored behind it) or "wrap" (from the other end). A width may be larger than the
    axis: copies are then copied in turn. Raises `ShapeError` for other widths and modes, and for a
    copy of an axis without elements.

    >>> from nncompile.ir.interpreter import evaluate
    >>> [evaluate(pad([1, 2, 3], (2, 1), mode), {}).tolist() for mode in ("reflect", "wrap")]
    [[3, 2, 1, 2, 3, 2], [2, 3, 1, 2, 3, 1]]
    """
    x = as_value(x)
    pairs = _widths(pad_width, x.rank)
    if any(isinstance(w, int) and w < 0 for pair in pairs for w in pair):
        raise ShapeError(f"pad: widths must not be negative, got {pad_width}", hint="use a slice")
    if mode not in MODES:
        equivalent = TORCH_MODES.get(mode)
        raise ShapeError(
            f"pad: mode must be one of {', '.join(MODES)}, got {mode!r}",
            hint=f'mode="{equivalent}"' if equivalent else did_you_mean(str(mode), MODES),
        )
    before, after = ([pair[i] for pair in pairs] for i in (0, 1))
    if mode == "constant":
        return padded(x, before, after, constant_values)
    return extended(x, before, after, mode)


def extended(x: Value, before: Sequence[Dim], after: Sequence[Dim], mode: str) -> Value:
    """`x` with copies of its own elements around it, by one of the modes but "constant"; a negative
    width removes elements first."""
    widths = [[sp.sympify(w) for w in side] for side in (before, after)]
    cut = [[dim(sp.Min(w, 0)) for w in side] for side in widths]
    extra = [[dim(sp.Max(w, 0)) for w in side] for side in widths]
    x = padded(x, cut[0], cut[1])
    for axis, (first, last) in enumerate(zip(*extra, strict=True)):
        if first != 0 or last != 0:
            x = _along_axis(x, axis, first, last, mode)
    return x


def _along_axis(x: Value, axis: int, before: Dim, after: Dim, mode: str) -> Value:
    size: Any = x.shape[axis]
    if size == 0:
        raise ShapeError(
            f"pad: axis {axis} of {x.type} has no elements to copy", hint='mode="constant"'
        )
    if mode == "edge":
        ends = [along(x, axis, span, 1, 1) for span in (0, dim(size - 1))]
        shapes = [with_axis(x.shape, axis, w) for w in (before, after)]
        sides = [broadcast_to(end, s) for end, s in zip(ends, shapes, strict=True)]
    elif all(_is_known(size - w - int(mode == "reflect")) for w in (before, after)):
        sides = [along(x, axis, *span) for span in _spans(size, before, after, mode)]
    else:
        sides = _copies(x, axis, before, after, mode)
    parts = zip((before, size, after), (sides[0], x, sides[1]), strict=True)
    return concatenate([p for width, p in parts if width != 0 or p is x], axis)


def _is_known(margin: Any) -> bool:
    """Whether that much is not negative for every size."""
    return bool(sp.sympify(margin).is_nonnegative)


def _spans(size: Any, before: Any, after: Any, mode: str) -> list[tuple[Dim, Dim, int]]:
    """Start, size and step of what is copied before and after, where that is one part of x."""
    if mode == "wrap":
        return [(dim(size - before), before, 1), (0, after, 1)]
    at_end = 1 if mode == "reflect" else 0
    return [(dim(before - 1 + at_end), before, -1), (dim(size - 1 - at_end), after, -1)]


def _copies(x: Value, axis: int, before: Dim, after: Dim, mode: str) -> list[Value]:
    """The copies before and after, whatever the size of the axis and the widths: the elements
    repeat with a period, in which a mirrored axis lies twice."""
    size = size_value(x.shape[axis])
    positions = concatenate([iota(before) - size_value(before), iota(after) + size])
    if mode == "wrap":
        positions = positions % maximum(size, 1)
    else:
        repeats = 1 if mode == "symmetric" else 0
        period = maximum(2 * size - 2 + 2 * repeats, 1)  # one element alone is its own mirror
        positions = positions % period
        positions = minimum(positions, maximum(period - repeats - positions, 0))
    return list(split(take(x, positions, axis), [before], axis))


def _widths(pad_width: Any, rank: int) -> list[tuple[Dim, Dim]]:
    widths = pad_width if isinstance(pad_width, tuple | list) else (pad_width, pad_width)
    pairs = widths if all(isinstance(p, tuple | list) for p in widths) else [widths] * rank
    if len(pairs) == 1:
        pairs = list(pairs) * rank
    if len(pairs) != rank or any(len(pair) != 2 for pair in pairs):
        raise ShapeError(f"pad: {pad_width} is not a pair of widths for each of {rank} axes")
    return [(dim(before), dim(after)) for before, after in pairs]
