"""The mean and the mean square distance from it, accurate where numbers are alike, too."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from nncompile.elementwise import stop_gradient
from nncompile.ir.basic import size_value
from nncompile.ir.dims import dim, product
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64
from nncompile.ops.reduction.operands import kept, reduced_type
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import reshape
from nncompile.ops.shape.slicing import padded


class First(Op):
    """The first element along `axes`, which are kept as size 1; 0 where there is none."""

    axes: tuple[int, ...]
    varies: ClassVar[str] = "axes"

    def infer(self, x: Type) -> Type:
        return reduced_type(x, self.axes, True, x.dtype)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        after = [dim(d - 1) if i in self.axes else 0 for i, d in enumerate(x.shape)]
        return (padded(g, [0] * x.rank, after),)

    def numpy(self, x: Array) -> Array:
        result: Array = x[self._slices(x.ndim)].sum(self.axes, keepdims=True, dtype=x.dtype)
        return result

    def _slices(self, rank: int) -> tuple[slice, ...]:
        return tuple(slice(0, 1) if i in self.axes else slice(None) for i in range(rank))

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        count = len(self.axes)
        first = o.Slice(x, o.ints([0] * count), o.ints([1] * count), o.ints(self.axes))
        return o.ReduceSum(first, o.ints(self.axes), keepdims=1)

    def torch(self, t: TorchEmitter, x: str) -> str:
        rank = t.types[0].rank
        slices = ", ".join(":1" if i in self.axes else ":" for i in range(rank))
        return t.call("torch.sum", t.emit(f"{x}[{slices}]", "first"), list(self.axes), keepdim=True)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls((0, 2)), (f32["n", 3, "m"],))
        yield Sample(cls((1,)), (f64[2, "n"],))


def in_numpy(x: Array, axes: tuple[int, ...]) -> tuple[Array, Array]:
    """The mean over the axes, which are kept as size 1, and how far from it the numbers are. They
    are counted as in `distances`."""
    start = First(axes).numpy(x)
    shifted = x - start
    n = x.dtype.type(max(math.prod(x.shape[i] for i in axes), 1))
    offset = shifted.sum(axes, keepdims=True) / n
    return start + offset, shifted - offset


def count_of(x: Value, axes: tuple[int, ...]) -> Any:
    """How many elements the axes have: a number, or a value where the data tell or it is 0."""
    count = product(x.shape[i] for i in axes)
    return count if isinstance(count, int) and count > 0 else size_value(count, x.dtype)


def distances(
    x: Value, axes: tuple[int, ...], n: Any, keepdims: bool
) -> tuple[Value, Value, Value]:
    """One of the `n` numbers over the axes, which are kept as size 1; how far from it their mean
    is; and how far from the mean they are.

    The rounding of large numbers that are alike would otherwise be all that their variance is made
    of. Where all are equal the distances are exactly 0. They are the same wherever one counts from,
    so the gradient need not know of it.
    """
    start = stop_gradient(First(axes)(x))
    shifted = x - start
    offset = Sum(axes, keepdims)(shifted) / n
    return start, offset, shifted - kept(offset, x, axes)


def moments(x: Value, axes: tuple[int, ...], n: Any, keepdims: bool) -> tuple[Value, Value, Value]:
    """The mean of the `n` numbers over the axes, the distances from it, and the mean of their
    squares."""
    start, offset, distance = distances(x, axes, n, keepdims)
    mean = offset + (start if keepdims else reshape(start, offset.shape))
    return mean, distance, Sum(axes, keepdims)(distance * distance) / n
