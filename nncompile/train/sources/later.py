"""Rows of a batch that are taken from the data when somebody looks at them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nncompile.ir.types import Array


class LaterRows:
    """An array of that shape and type, of which `take` gives a slice of the rows: where several
    processes share a batch, each takes its own."""

    def __init__(
        self, take: Callable[[slice], Array], shape: tuple[int, ...], dtype: np.dtype[Any]
    ) -> None:
        self._take = take
        self.shape, self.dtype = shape, dtype
        self.ndim = len(shape)
        self.size = int(np.prod(shape, dtype=np.int64))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Array:
        if isinstance(rows, slice) and rows.step in (None, 1):
            return self._take(rows)
        result: Array = self._take(slice(None))[rows]
        return result

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self._take(slice(None)), dtype)
