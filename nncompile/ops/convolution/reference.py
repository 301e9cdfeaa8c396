"""What windows see, in numpy: the meaning of convolutions, along any number of axes."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from nncompile.ir.dims import Shape
from nncompile.ir.types import Array
from nncompile.ops.windows.convolution import Window


def columns(x: Array, window: Window, groups: int) -> Array:
    """x[N, C, *sizes] as `[N, groups, C/groups·taps, results]`: what each window sees of it."""
    results = window.results(x.shape[2:])
    pairs = list(zip(window.before, window.after, strict=True))
    patches = sliding_window_view(
        np.pad(x, [(0, 0), (0, 0), *pairs]), window.extents, tuple(range(2, x.ndim))
    )
    steps: list[Any] = [slice(None, None, step) for step in (*window.strides, *window.dilations)]
    patches = patches[:, :, *steps]  # [N, C, *results, *kernel]
    count, taps = math.prod(results), math.prod(window.kernel)
    channels = x.shape[1] // groups
    split = patches.reshape(x.shape[0], groups, channels, count, taps).swapaxes(3, 4)
    return split.reshape(x.shape[0], groups, channels * taps, count)


def scattered(patches: Array, window: Window, sizes: Shape) -> Array:
    """The transpose of `columns`: each window's elements added to where they were seen."""
    results = window.results(sizes)
    batch, groups = patches.shape[:2]
    channels = groups * patches.shape[2] // math.prod(window.kernel)
    taps = patches.reshape(batch, channels, *window.kernel, *results)
    x = np.zeros((batch, channels, *window.padded(sizes)), patches.dtype)
    for index in itertools.product(*map(range, window.kernel)):
        reach: list[Any] = [
            slice(i * d, i * d + (n - 1) * s + 1, s)
            for i, d, n, s in zip(index, window.dilations, results, window.strides, strict=True)
        ]
        tap: list[Any] = [slice(None), slice(None), *index]
        x[:, :, *reach] += taps[tuple(tap)]
    inner: list[Any] = [slice(b, b + n) for b, n in zip(window.before, sizes, strict=True)]
    return x[:, :, *inner]
