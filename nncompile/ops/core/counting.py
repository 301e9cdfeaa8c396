"""0, 1, 2, … as many as a size says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import cast
from nncompile.ir.data_sizes import made_size, makers_of
from nncompile.ir.dims import Dim, dim, symbol
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import Array, DType, Type, f16, f32, i16, i64, u32


class Iota(Op):
    """0, 1, …, size − 1. Its arguments are what makes a size that depends on data."""

    size: Dim
    dtype: DType
    mixes = True

    def infer(self, *makers: Type) -> Type:
        return Type(self.dtype, (self.size,))

    def pullback(self, g: Value, y: Value, *makers: Value) -> Sequence[Value | None]:
        return [None] * len(makers)

    def numpy(self, *makers: Array) -> Array:
        return np.arange(self.size, dtype=self.dtype.numpy)

    def onnx(self, o: OnnxEmitter, *makers: str) -> str:
        zero, one = o.scalar(0, i64), o.scalar(1, i64)
        return o.cast(o.Range(zero, o.dim(self.size), one), self.dtype)

    def torch(self, t: TorchEmitter, *makers: str) -> str:
        return t.call("torch.arange", t.dim(self.size), dtype=t.dtype(self.dtype))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(5, i64), ())
        yield Sample(cls(0, i64), ())
        yield Sample(cls(4, f32), ())
        yield Sample(cls(4, u32), ())
        yield Sample(cls(4, i16), ())
        yield Sample(cls(4, f16), ())


class Counted(Op):
    """0, 1, …, x − 1 of a number that is known when the graph runs; nothing of a negative one."""

    size: Dim
    mixes = True

    @property
    def makes(self) -> tuple[sp.Symbol, ...]:
        return (self.size,) if isinstance(self.size, sp.Symbol) else ()

    def infer(self, x: Type) -> Type:
        if x.rank or x.dtype is not i64:
            raise ShapeError(f"a size must be one integer, got {x}")
        return Type(i64, (self.size,))

    def numpy(self, x: Array) -> Array:
        return np.arange(max(int(x), 0), dtype=np.int64)

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        return o.Range(o.scalar(0, i64), x, o.scalar(1, i64))

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.call("torch.arange", t.emit(f"max(int({x}), 0)", "count"))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(symbol("count")), (i64[()],), integers=(-2, 9))
        yield Sample(cls(symbol("count")), (i64[()],), integers=(3, 9))


@suggests_names
def iota(size: Any, dtype: DType = i64) -> Value:
    """0, 1, …, size − 1 as a vector; `arange` of numpy. Of an integer value, the size of the result
    is another name for each."""
    if isinstance(size, Value):
        return cast(apply(Counted(made_size("count", size)), cast(size, i64)), dtype)
    size = dim(size)
    return apply(Iota(size, dtype), *makers_of([size]))
