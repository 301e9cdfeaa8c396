"""Maximum pooling of integers, exact at any size: the runtimes have it for few of their types."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompile.dims import Dim, Shape
from nncompile.elementwise import maximum
from nncompile.errors import DTypeError
from nncompile.graph import Value
from nncompile.ops.basic import as_value
from nncompile.ops.pooling_windows import Slid
from nncompile.ops.slicing import padded, part
from nncompile.ops.space import LEAD


def numbers(what: str, x: Any) -> Value:
    """`x` as a value of numbers. Raises `DTypeError`, which begins with `what`, for others."""
    value = as_value(x)
    if value.dtype.is_bool:
        raise DTypeError(f"{what} needs numbers, x is {value.type}", hint="x.astype(i32) converts")
    return value


def integer_max_pool(x: Value, windows: Sequence[Slid]) -> Value:
    """The greatest of each window over the axes of space: of each axis in turn, the maximum of the
    slices that hold the first, the second, … element of all windows."""
    least = int(np.iinfo(x.dtype.numpy).min)
    for axis, window in enumerate(windows, LEAD):
        before, after = (_at(axis, x.rank, w) for w in (window.before, window.after))
        wide = padded(x, before, after, least)
        shape = (*x.shape[:axis], window.count, *x.shape[axis + 1 :])
        steps = [window.stride if i == axis else 1 for i in range(x.rank)]
        taps = [
            part(wide, _at(axis, x.rank, i * window.dilation), shape, steps)
            for i in range(window.kernel)
        ]
        x = functools.reduce(maximum, taps)
    return x


def _at(axis: int, rank: int, number: Dim) -> Shape:
    """The number for that axis, 0 for others."""
    return tuple(number if i == axis else 0 for i in range(rank))
