"""Elements that a condition selects: how many there are is known only when the graph runs, so the
size of what is selected is a name of its own for each condition."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import not_equal
from nncompile.ir.basic import as_value
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.data_sizes import made_size
from nncompile.ir.dims import Dim, broadcast, symbol
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, boolean, i64
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.reshape import ravel, reshape, transpose
from nncompile.ops.shape.slicing import along


class NonZero(Op):
    """The places of the true elements in row-major order: i64[rank, size], a column for each."""

    label = "nonzero"

    size: Dim
    differentiable: ClassVar[bool] = False
    mixes = True

    @property
    def makes(self) -> tuple[sp.Symbol, ...]:
        return (self.size,) if isinstance(self.size, sp.Symbol) else ()

    def infer(self, x: Type) -> Type:
        if not x.dtype.is_bool:
            raise DTypeError(f"needs booleans, got {x}", hint="x != 0 makes them")
        if not x.rank:
            raise ShapeError(
                "a scalar has no positions", hint="ravel(x) is a vector of one element"
            )
        return Type(i64, (x.rank, self.size))

    def numpy(self, x: Array) -> Array:
        return np.stack(np.nonzero(x)).astype(np.int64)

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        return o.NonZero(x)

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.call("torch.t", t.call("torch.nonzero", x))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(symbol("selected")), (boolean["n"],))
        yield Sample(cls(symbol("selected")), (boolean["n", 3, "m"],))


def _nonzero_indices(x: Any) -> Value:
    x = as_value(x)
    x = x if x.dtype.is_bool else not_equal(x, 0)
    return NonZero(made_size("nonzero", x))(x)


@suggests_names
def nonzero(x: Any) -> tuple[Value, ...]:
    """The places of the elements that are not zero, in row-major order: a vector (i64) for each
    axis, as `x[nonzero(x)]` takes them. Their size is a name of its own, which says nothing about
    other sizes; equal conditions have equal ones.

    Raises `ShapeError` for a scalar.
    """
    indices = _nonzero_indices(x)
    rank = indices.shape[0]
    assert isinstance(rank, int)
    return tuple(reshape(along(indices, 0, i, 1, 1), (indices.shape[1],)) for i in range(rank))


@suggests_names
def argwhere(x: Any) -> Value:
    """The places of the elements that are not zero, in row-major order: a row (i64) for each, with
    a column for each axis. The size is a name of its own, as that of `nonzero`."""
    return transpose(_nonzero_indices(x))


@suggests_names
def flatnonzero(x: Any) -> Value:
    """The places (i64) of the elements that are not zero among all in row-major order."""
    return nonzero(ravel(x))[0]


@suggests_names
def masked_select(x: Any, mask: Any) -> Value:
    """The elements of `x` where `mask` is true, in row-major order, as a vector; both broadcast.
    Its size is a name of its own, as that of `nonzero`. The gradient goes to these elements.

    Raises `DTypeError` where the mask is not of truth values.
    """
    x, mask = as_value(x), as_value(mask)
    if not mask.dtype.is_bool:
        raise DTypeError(f"masked_select: a mask must be boolean, got {mask.type}")
    shape = broadcast(x.shape, mask.shape)
    return take(ravel(broadcast_to(x, shape)), flatnonzero(broadcast_to(mask, shape)))


for _function in (nonzero, argwhere, masked_select):
    register(_function.__name__, _function)
