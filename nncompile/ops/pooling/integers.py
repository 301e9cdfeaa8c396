"""Maximum pooling of integers, exact at any size: the runtimes have it for few of their types."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import DTypeError
from nncompile.elementwise import maximum
from nncompile.ir.basic import as_value
from nncompile.ir.dims import Dim, Shape, with_axis
from nncompile.ir.op import Value
from nncompile.ops.shape.slicing import padded, part
from nncompile.ops.windows.pooling import Slid
from nncompile.ops.windows.space import LEAD


def numbers(what: str, x: Any) -> Value:
    """`x` as a value of numbers. Raises `DTypeError`, which begins with `what`, for others."""
    value = as_value(x)
    if value.dtype.is_bool:
        raise DTypeError(f"{what} needs numbers, x is {value.type}", hint="x.astype(i32) converts")
    return value


def wide_for(x: Value, windows: Sequence[Slid]) -> Value:
    """x with its padding, the least number of its type."""
    lead = (0,) * LEAD
    before, after = (*lead, *(w.before for w in windows)), (*lead, *(w.after for w in windows))
    return padded(x, before, after, int(np.iinfo(x.dtype.numpy).min))


def integer_max_pool(x: Value, windows: Sequence[Slid]) -> Value:
    """The greatest of each window over the axes of space: of each axis in turn, the maximum of the
    slices that hold the first, the second, … element of all windows."""
    x = wide_for(x, windows)
    for axis, window in enumerate(windows, LEAD):
        shape = with_axis(x.shape, axis, window.count)
        steps = [window.stride if i == axis else 1 for i in range(x.rank)]
        taps = [
            part(x, _on_axis(axis, x.rank, i * window.dilation), shape, steps)
            for i in range(window.kernel)
        ]
        x = functools.reduce(maximum, taps)
    return x


def _on_axis(axis: int, rank: int, number: Dim) -> Shape:
    """The number for that axis, 0 for others."""
    return tuple(number if i == axis else 0 for i in range(rank))
