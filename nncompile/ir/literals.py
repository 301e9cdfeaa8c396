"""What stands for a value without being one: numbers, lists of them, arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import DTypeError
from nncompile.ir.op import Value
from nncompile.ir.types import Array, check_unmasked, is_numeric


def array_of(x: Any) -> Array:
    """The array of numbers that `x` is. Raises `DTypeError` where it is none."""
    if isinstance(x, Iterator) or _holds_a_value(x):
        raise DTypeError(
            f"a {type(x).__name__} is not a value",
            hint="stack([a, b]) joins several values into one; "
            "a + b, maximum(a, b), a & b combine them elementwise",
        )
    try:
        array = np.asarray(x)
    except (TypeError, ValueError, RuntimeError) as error:  # a ragged list, a tensor of torch
        raise DTypeError(f"{type(x).__name__} cannot be converted to an array: {error}") from None
    check_unmasked(x, "a constant")
    if not is_numeric(array.dtype):
        raise DTypeError(
            f"{x!r} is not a value, an array or a number",
            hint="call it first" if callable(x) else None,
        )
    return array


def _holds_a_value(x: Any) -> bool:
    return isinstance(x, Value) or (isinstance(x, list | tuple) and any(map(_holds_a_value, x)))
