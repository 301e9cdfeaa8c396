"""What holds one number or more for each example: arrays of numpy, of torch, of a file; columns of
tables; lists. Nothing here imports what they are of."""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FeedError
from nncompile.ir.types import Array, as_bfloat16, check_unmasked


class StoredArray:
    """An array that lies in a file (of h5py, zarr or the like) and is read in slices: `source` has
    a shape, an element type and `[...]`."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.shape: tuple[int, ...] = tuple(source.shape)
        self.dtype = np.dtype(source.dtype)
        self.ndim = len(self.shape)
        self.size = int(np.prod(self.shape, dtype=np.int64))

    def __getitem__(self, rows: slice | Array) -> Array:
        if isinstance(rows, slice):
            return np.asarray(self.source[rows])
        # Such files want rising indices.
        order = np.argsort(rows, kind="stable")
        array = np.asarray(self.source[rows[order]])
        result = np.empty_like(array)
        result[order] = array
        return result


Rows = Array | StoredArray
"""What rows can be taken of, by a slice or by their indices."""


def is_stored(x: Any) -> bool:
    """Whether rows of `x` are read from somewhere when they are asked for. Arrays in memory have a
    protocol to share it; `np.memmap` is one of them, too."""
    needed = ("shape", "dtype", "__getitem__", "__len__")
    return all(hasattr(x, name) for name in needed) and not any(
        hasattr(x, name) for name in ("__array_interface__", "__dlpack__", "to_numpy")
    )


def is_array(x: Any) -> bool:
    """Whether `x` holds the numbers of one input: an array, a tensor, or a column of a table."""
    return hasattr(x, "__array__") and not hasattr(x, "columns") and not hasattr(x, "column_names")


def rows_of(name: str, x: Any) -> Rows:
    """`x` as an array, without a copy where there is one already. Raises `FeedError` for what is
    no array, with `name` in the message, and for masked elements."""
    if type(x) is np.ndarray:
        return as_bfloat16(_numbers(name, x) if x.dtype.kind == "O" else x)
    if isinstance(x, StoredArray) or is_stored(x):
        return x if isinstance(x, StoredArray) else StoredArray(x)
    if type(x).__module__.partition(".")[0] == "torch":
        x = x.detach().cpu()
    check_unmasked(x, f"input {name!r}", FeedError)
    try:
        array = np.asarray(x)
    except (ValueError, TypeError, RuntimeError) as error:
        ragged = isinstance(x, list | tuple) and "inhomogeneous" in str(error)
        raise FeedError(
            f"the data of input {name!r} cannot be converted to an array: {error}",
            hint="nncompile.train.padded(lists) makes an array and lengths of lists of different "
            "lengths"
            if ragged
            else None,
        ) from None
    if array.dtype.kind == "O":
        array = _numbers(name, array)
    return as_bfloat16(array)


def _numbers(name: str, array: Array) -> Array:
    """Objects as numbers: a column with missing ones (None, or `NA` of pandas), which are NaN then,
    or one of arrays of equal shapes. What holds others stays as it is, and is refused by its
    element type."""
    flat = array.ravel()
    if len(flat) and all(hasattr(x, "shape") or isinstance(x, list) for x in flat):
        parts = [np.asarray(x) for x in flat]
        if len({x.shape for x in parts}) > 1:
            raise FeedError(
                f"the rows of input {name!r} have different lengths",
                rows=[("row", str(i), str(list(x.shape))) for i, x in enumerate(parts[:2])],
                hint="nncompile.train.padded(lists) makes an array and lengths of them",
            )
        return np.stack(parts).reshape(*array.shape, *parts[0].shape)
    missing = np.array([x is None or type(x).__name__ == "NAType" for x in flat], bool)
    values = flat[~missing]
    if not all(isinstance(x, bool | int | float | np.number | np.bool_) for x in values):
        return array
    known = np.array(values.tolist()) if len(values) else np.empty(0)
    if not missing.any():
        return known.reshape(array.shape) if known.dtype.kind in "biuf" else array
    result = np.full(len(flat), np.nan)
    result[~missing] = known
    return result.reshape(array.shape)
