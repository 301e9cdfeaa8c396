"""What products of tensors share: the element type of their operands, and sizes that must agree."""

from __future__ import annotations

import functools
from typing import Any

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.basic import as_value, cast
from nncompile.ir.dims import Dim, same
from nncompile.ir.op import Value
from nncompile.ir.types import DType, Type, promote


def element_type(a: Type, b: Type) -> DType:
    """The element type of a product. Raises `DTypeError` for different types or booleans."""
    if a.dtype is not b.dtype:
        raise DTypeError(f"element types differ, {a.dtype} ≠ {b.dtype}")
    if a.dtype.is_bool:
        raise DTypeError(
            "booleans have no products or sums", hint="x.astype(f32) turns them into 0 and 1"
        )
    return a.dtype


def check_inner(a: Dim, b: Dim) -> None:
    """The sizes that are summed over must be the same."""
    is_same = same(a, b)
    if is_same is False:
        raise ShapeError(f"inner sizes differ, {a} ≠ {b}")
    if is_same is None:
        error = ShapeError(
            f"cannot tell whether the inner sizes {a} and {b} are equal",
            hint="give both axes the same name, or write one size in terms of the other",
        )
        error.undecided = a, b
        raise error


def promoted(*operands: Any) -> list[Value]:
    """The operands as values of one element type."""
    if all(isinstance(x, Value) for x in operands) and len({x.dtype for x in operands}) == 1:
        return [*operands]  # most are
    like = next((x for x in operands if isinstance(x, Value)), None)
    values = [as_value(x, like) for x in operands]
    dtype = functools.reduce(promote, (v.dtype for v in values))
    return [cast(v, dtype) for v in values]
