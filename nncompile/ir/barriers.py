"""What no pass and no optimizer looks through, and what waits for sizes that depend on data."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import as_value
from nncompile.ir.data_sizes import makers_of
from nncompile.ir.dims import Dim, symbols
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, TupleType, Type, boolean, f32, f64, i64, u32


class Barrier(Op):
    """`x` itself, which no pass and no optimizer of a runtime looks through: what is computed
    from it is computed again and not merged with the same work on `x`. Given other arguments, it
    waits for them: nothing that needs it runs before they are known."""

    moves = True

    def infer(self, x: Type, *after: Type) -> Type:
        return x

    def pullback(self, g: Value, y: Value, x: Value, *after: Value) -> Sequence[Value | None]:
        return (barrier(g), *(None for _ in after))

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        return row_axes[0]

    def numpy(self, x: Array, *after: Array) -> Array:
        return x

    def onnx(self, o: OnnxEmitter, x: str, *after: str) -> str:
        if after:
            # x in its own shape, to which the sizes of the others add zero: no bytes are copied,
            # and onnxruntime knows the size of a tensor no earlier than the tensor.
            sizes = functools.reduce(o.Add, map(o.Size, after))
            zero = o.Mul(sizes, o.scalar(0, i64))
            return o.Reshape(x, o.Add(o.Shape(x), zero))
        # onnxruntime removes Identity, but neither of these with one distinct input.
        return o.Or(x, x) if o.type.dtype.is_bool else o.Max(x)

    def torch(self, t: TorchEmitter, x: str, *after: str) -> str:
        return t.method(x, "clone")

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", 2],))
        yield Sample(cls(), (boolean["n"],))
        yield Sample(cls(), (i64["n"],))
        yield Sample(cls(), (u32[2],))
        yield Sample(cls(), (f32["n", 2], f32["m"]))
        yield Sample(cls(), (f64[()], i64[3], f32["n"]))
        yield Sample(cls(), (boolean["n"], f32[2]))


@suggests_names
def barrier(x: Any, *after: Value) -> Value:
    """`x`, behind which nothing is merged with work on `x` itself: used to compute again what
    would cost memory to keep, and, where `after` are given, not before these are known."""
    return Barrier()(as_value(x), *after)


def tied(x: Value, sizes: Iterable[Dim]) -> Value:
    """`x`, which waits for what makes those of the sizes that depend on data, and not on `x`: they
    are known to what is made of it."""
    makers = makers_of(sizes)
    if not makers:
        return x
    plain = [v for v in (x, *x.args) if not isinstance(v.type, TupleType)]
    known = symbols(d for v in plain for d in v.shape)
    makers = [v for v in makers if known.isdisjoint(v.op.makes)]
    return barrier(x, *makers) if makers else x
