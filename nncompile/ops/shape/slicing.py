"""Parts of tensors, and tensors as parts of larger ones: slice and pad.

Each is the gradient of the other, so gradients of any order are made of these two.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.barriers import tied
from nncompile.ir.basic import as_value
from nncompile.ir.dims import Dim, Shape, dim, same, same_shape, symbol, with_axis
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, boolean, f32, f64, i32, i64, u32
from nncompile.ops.core.axes import axes_of
from nncompile.ops.shape.reshape import expand_dims, reshape

LIMIT = 2**63 - 1  # beyond every size


class Slice(Op):
    """Along each axis the elements `start`, `start + step`, … (`sizes` of them).

    All must lie within `x`; starts are counted from the front. On an axis of symbolic size a
    fixed number of elements is checked when it is run, a symbolic number is taken for granted.
    """

    starts: Shape
    sizes: Shape
    steps: tuple[int, ...]
    moves = True
    copies = 1

    def infer(self, x: Type) -> Type:
        if len(self.starts) != x.rank:
            raise ShapeError(f"{len(self.starts)} slices for the {x.rank} axes of {x}")
        for axis, (start, size, step) in enumerate(self._axes):
            last = start + (size - 1) * step
            if all(isinstance(d, int) for d in (start, size, x.shape[axis])):
                inside = min(start, last) >= 0 and max(start, last) < x.shape[axis]
                if size < 0 or (size and not inside):
                    raise ShapeError(
                        f"{size} elements from {start} by {step} are not on axis {axis} of {x}"
                    )
        return Type(x.dtype, self.sizes)

    @property
    def _axes(self) -> list[tuple[Any, Any, int]]:
        return list(zip(self.starts, self.sizes, self.steps, strict=True))

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        backward = [axis for axis, step in enumerate(self.steps) if step < 0]
        g = flip(g, backward)
        before: list[Dim] = []
        after: list[Dim] = []
        for axis, (start, size, step) in enumerate(self._axes):
            first = start if step > 0 else start + (size - 1) * step
            if size == 0:
                first = 0
            elif abs(step) > 1 and not isinstance(size, int):
                first = sp.Min(first, x.shape[axis])  # of no elements it may be beyond
            g = spaced(g, axis, abs(step))
            before.append(dim(first))
            after.append(dim(x.shape[axis] - first - g.shape[axis]))
        return (padded(g, before, after),)

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        (axis,) = row_axes
        if axis is None:
            return None
        start, size, step = self._axes[axis]
        is_whole = (start, step) == (0, 1) and same(size, types[0].shape[axis]) is True
        return axis if is_whole else None

    def batched(self, length: Dim) -> Slice:
        return Slice((0, *self.starts), (length, *self.sizes), (1, *self.steps))

    def numpy(self, x: Array) -> Array:
        y = x[tuple(_python_slice(*axis) for axis in self._axes)]
        if y.shape != self.sizes and min(self.sizes, default=0) >= 0:
            raise ShapeError(f"expected {self.sizes} elements, got {y.shape}")
        return y

    def _claims(self, shape: Shape) -> list[int]:
        """The axes of unknown size of which a fixed number of elements is taken: a runtime takes
        fewer where there are no more."""
        return [
            i
            for i, size in enumerate(self.sizes)
            if isinstance(size, int) and size and not isinstance(shape[i], int)
        ]

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        shape = o.types[0].shape
        axes = [i for i, a in enumerate(self._axes) if a != (0, shape[i], 1)]
        backward = []  # what starts before the last element is flipped afterwards, for ONNX
        starts, ends, steps = [], [], []  # moves a start before the front to the front
        for i in axes:
            start, size, step = self._axes[i]
            if step < 0 and not isinstance(shape[i], int) and dim(shape[i] - start) != 1:
                start, step = dim(start + (size - 1) * step), -step
                backward.append(i)
            starts.append(_from_end(start, shape[i], step))
            ends.append(_from_end(dim(start + size * step), shape[i], step))
            steps.append(step)
        y = o.Slice(x, o.shape(starts), o.shape(ends), o.ints(axes), o.ints(steps))
        if backward:
            count = len(backward)
            first, before_front = o.ints([-1] * count), o.ints([-LIMIT] * count)
            y = o.Slice(y, first, before_front, o.ints(backward), first)
        claims = self._claims(shape)
        if not claims:
            return y
        # The same shape, 0 being a size as it is; fails where there are fewer elements.
        return o.Reshape(y, o.ints([s if i in claims else 0 for i, s in enumerate(self.sizes)]))

    def torch(self, t: TorchEmitter, x: str) -> str:
        """torch has no negative steps: such an axis is sliced forwards and flipped."""
        backward = [axis for axis, step in enumerate(self.steps) if step < 0]
        texts = []
        for axis, (start, size, step) in enumerate(self._axes):
            first = dim(start if step > 0 else start + (size - 1) * step)
            end = dim(
                first + size * abs(step)
            )  # never before the first, or it counted from the end
            is_whole = (first, size, abs(step)) == (0, t.types[0].shape[axis], 1)
            texts.append(":" if is_whole else f"{t.dim(first)}:{t.dim(end)}:{abs(step)}")
        if any(text != ":" for text in texts):
            x = t.emit(f"{x}[{', '.join(texts)}]", "slice")
        claims = self._claims(t.types[0].shape)
        if claims:  # torch, too, takes fewer elements where there are no more
            sizes = (s if i in claims else f"{x}.size({i})" for i, s in enumerate(self.sizes))
            x = t.emit(f"{x}.reshape([{', '.join(map(str, sizes))}])", "slice")
        return t.call("torch.flip", x, backward) if backward else x

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        n = symbol("n")
        yield Sample(cls((1,), (3,), (1,)), (f32[5],))
        yield Sample(cls((0, 1), (n, 2), (1, 1)), (f32["n", 4],))
        yield Sample(cls((0, 1), (n, 2), (1, 3)), (f32["n", 7],))
        yield Sample(cls((dim(n - 1), 4), (n, 2), (-1, -3)), (f32["n", 5],))
        yield Sample(cls((2, n), (dim(n + 1), 3), (2, 1)), (f32["2*n + 3", "n + 3"],))
        yield Sample(cls((dim(n + 1),), (dim(n + 1),), (-1,)), (i64["n + 2"],))
        yield Sample(cls((1, 0), (1, n), (1, 1)), (boolean[3, "n"],))
        yield Sample(cls((3,), (2,), (-2,)), (u32[4],), integers=(0, 2**32))
        yield Sample(cls((1, 0), (0, 2), (1, 1)), (f32[3, "n + 2"],))
        yield Sample(cls((0, 0), (0, n), (2, 3)), (f32[3, "3*n + 1"],))


def _python_slice(start: int, size: int, step: int) -> slice:
    if size <= 0:
        return slice(0, 0)
    end = start + size * step
    return slice(start, None if end < 0 else end, step)


def _from_end(bound: Dim, size: Dim, step: int) -> Dim:
    """A bound as ONNX reads it, as a number where possible: negative ones count from the end, so
    what lies before the front must be so far out that it is before the front for every size. Those
    beyond an end are at that end, so that k is Min(k, size), and −k is size − Min(k, size)."""
    if step > 0 and isinstance(size, sp.Expr):
        for number, from_end in ((bound, False), (dim(size - bound), True)):
            if isinstance(number, sp.Min) and size in number.args:
                rest = number.func(*(a for a in number.args if a != size))
                if rest.is_Integer and rest > 0:
                    return -int(rest) if from_end else int(rest)
    if isinstance(bound, int):
        return bound if bound >= 0 else -LIMIT
    distance = dim(bound - size)
    if isinstance(distance, int):
        return LIMIT if distance >= 0 else distance
    return bound if step > 0 else distance


def spaced(x: Value, axis: int, step: int) -> Value:
    """`x` with `step - 1` zeros after each element along the axis."""
    if step == 1:
        return x
    size = x.shape[axis]
    columns = expand_dims(x, axis + 1)
    after = [step - 1 if i == axis + 1 else 0 for i in range(columns.rank)]
    columns = padded(columns, [0] * columns.rank, after)
    return reshape(columns, with_axis(x.shape, axis, dim(size * step)))


class Pad(Op):
    """`x` with `value` before and after its elements along each axis; a negative width removes
    elements instead."""

    before: Shape
    after: Shape
    value: float | int | bool = 0
    moves = True

    def infer(self, x: Type) -> Type:
        if len(self.before) != x.rank or len(self.after) != x.rank:
            raise ShapeError(f"{len(self.before)} pairs of widths for the {x.rank} axes of {x}")
        sizes: Any = zip(self.before, x.shape, self.after, strict=True)
        shape = tuple(dim(sum(widths)) for widths in sizes)
        if any(isinstance(size, int) and size < 0 for size in shape):
            raise ShapeError(f"widths {self.before} and {self.after} remove more than {x} has")
        return Type(x.dtype, shape)

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (padded(g, _negative(self.before), _negative(self.after)),)

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        (axis,) = row_axes
        if axis is None or (self.before[axis], self.after[axis]) != (0, 0):
            return None
        return axis

    def batched(self, length: Dim) -> Pad:
        return Pad((0, *self.before), (0, *self.after), self.value)

    def numpy(self, x: Array) -> Array:
        widths: list[tuple[int, int]] = list(zip(self.before, self.after, strict=True))
        inside = tuple(
            slice(max(0, -before), size - max(0, -after))
            for size, (before, after) in zip(x.shape, widths, strict=True)
        )
        outside = [(max(0, before), max(0, after)) for before, after in widths]
        return np.pad(x[inside], outside, constant_values=self.value) if x.ndim else x

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        value = o.scalar(self.value, o.type.dtype)
        before, after = map(list, (self.before, self.after))
        if any(map(_removes, (*before, *after))) and any(not _removes(w) for w in before + after):
            # onnxruntime before 1.24 writes nothing where it first removes all elements of an axis.
            sizes = o.types[0].shape
            starts = [dim(-w) if _removes(w) else 0 for w in before]
            ends = [dim(n + w) if _removes(w) else n for n, w in zip(sizes, after, strict=True)]
            x = o.Slice(x, o.shape(starts), o.shape(ends))
            before, after = ([0 if _removes(w) else w for w in ws] for ws in (before, after))
        return o.Pad(x, o.shape((*before, *after)), value, mode="constant")

    def torch(self, t: TorchEmitter, x: str) -> str:
        pairs = zip(reversed(self.before), reversed(self.after), strict=True)
        widths = t.shape([d for pair in pairs for d in pair])
        # Not by torch.nn.functional.pad, whose number is real: large integers lose digits.
        number = float(self.value) if t.type.dtype.is_float else int(self.value)
        return t.call("torch.constant_pad_nd", x, widths, number)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        n = symbol("n")
        yield Sample(cls((1, 2), (0, 3)), (f32["n", 3],))
        yield Sample(cls((0, 2), (0, 1)), (f32["n", 3],))
        yield Sample(cls((0, n), (1, dim(2 * n)), 1.5), (f32[2, "n"],))
        yield Sample(cls((-1, 0), (-1, -1)), (f32["n + 2", 3],))
        yield Sample(cls((-1, 2), (2, -1)), (f32["n + 1", 3],))
        yield Sample(cls((0, 1), (1, 0), 7), (i64["n", 2],))
        yield Sample(cls((1,), (1,), 7), (i32["n"],))
        yield Sample(cls((0,), (1,), 2**63 - 1), (i64["n"],), integers=(-(2**62), 2**62))
        yield Sample(cls((1,), (1,), 2**32 - 1), (u32["n"],))
        yield Sample(cls((1,), (2,), True), (boolean["n"],))
        yield Sample(cls((1,), (2,), float("-inf")), (f64["n"],), order=0)


def _removes(width: Any) -> bool:
    return sp.sympify(width).is_negative is True


def part(x: Value, starts: Sequence[Dim], sizes: Sequence[Dim], steps: Sequence[int]) -> Value:
    """Along each axis `sizes` elements from `starts` in steps."""
    from_start = all(s == 0 for s in starts) and all(s == 1 for s in steps)
    if from_start and same_shape(tuple(sizes), x.shape) is True:
        return x
    op = Slice(tuple(starts), tuple(sizes), tuple(steps))
    return op(tied(x, (*starts, *sizes)))


def padded(
    x: Value, before: Sequence[Dim], after: Sequence[Dim], value: float | int | bool = 0
) -> Value:
    """`x` with `value` around it; a negative width removes elements."""
    op = Pad(tuple(before), tuple(after), value)
    if all(w == 0 for w in (*before, *after)):
        return x
    if all(sp.sympify(w).is_nonpositive for w in (*before, *after)):
        return part(x, _negative(before), op.infer(x.type).shape, [1] * x.rank)
    return op(tied(x, (*before, *after)))


def _negative(widths: Sequence[Any]) -> list[Dim]:
    return [dim(-width) for width in widths]


@suggests_names
def flip(x: Any, axis: int | Sequence[int] | None = None) -> Value:
    """`x` with the order of the elements along the axes (all by default) reversed."""
    x = as_value(x)
    axes = axes_of(axis, x.rank)
    starts = [dim(n - 1) if i in axes else 0 for i, n in enumerate(x.shape)]
    return part(x, starts, x.shape, [-1 if i in axes else 1 for i in range(x.rank)])


def along(x: Value, axis: int, start: Dim, size: Dim, step: int) -> Value:
    """Along one axis `size` elements from `start` in steps."""
    axes = range(x.rank)
    return part(
        x,
        [start if i == axis else 0 for i in axes],
        [size if i == axis else n for i, n in enumerate(x.shape)],
        [step if i == axis else 1 for i in axes],
    )
