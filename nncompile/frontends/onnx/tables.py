"""Tensors that no training made, by their numbers: masks, positions, frequencies.

Of a buffer that its exporter folded nothing is left but the numbers and the operator that takes it,
as of a parameter that is only added or multiplied.
"""

from __future__ import annotations

import numpy as np

from nncompile.ir.types import Array

_FEW = 3  # elements of which any are evenly spaced, or a power of each other
_MOST = 1 << 20  # elements that are looked at: of a longer table, its first rows
_CLOSE = 1e-4  # of float32, after some operations


def table_of(array: Array) -> str:
    """What a tensor of floats is that is no weight; empty where it may be one. Tensors of one
    number again and again may be: so weights begin."""
    while array.size > _MOST and len(array) > 1:
        array = array[: max(1, len(array) // 2)]
    x = np.asarray(array, np.float64)
    flat = x.reshape(-1)
    if not np.isfinite(flat).all():
        return "a mask: not all of it is finite"
    values = np.unique(flat)
    if flat.size <= _FEW or values.size == 1:
        return ""
    if values.size == 2 and 0 in values:
        return f"a mask of 0 and {values[values != 0][0]:g}"
    if (flat == np.rint(flat)).all():
        return "whole numbers"
    wide = [n for n in x.shape if n > 1]
    if len(wide) == 1:
        return _sequence(flat)
    rows = x.reshape(wide)
    return "sines and cosines of positions" if len(wide) == 2 and _are_waves(rows) else ""


def _sequence(x: Array) -> str:
    steps = np.diff(x)
    if np.abs(steps - steps[0]).max() <= _CLOSE * np.abs(steps).max():
        return "evenly spaced numbers"
    if (x[1:] * x[:-1] > 0).all():
        ratios = x[1:] / x[:-1]
        if np.abs(ratios - ratios[0]).max() <= _CLOSE * abs(ratios[0]):
            return "a geometric sequence, as of frequencies"
    return ""


def _are_waves(rows: Array) -> bool:
    """Whether rows are sines and cosines of their numbers, which begin with 0 and 1."""
    first = rows[0]
    begins = np.isin(first, (0.0, 1.0)).all() and 0 < first.sum() < first.size
    return bool(begins and np.abs(rows).max() <= 1 + _CLOSE and len(rows) > _FEW)
