"""Reshape and transpose, and what follows from them: squeeze, flatten, tile, repeat and the like.

All the functions have numpy's names and argument order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.basic import as_value
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import (
    Dim,
    Shape,
    dim,
    floordiv,
    is_one,
    is_same,
    product,
    same,
    same_shape,
    same_where_enough,
    symbol,
    with_axis,
)
from nncompile.ir.dispatch import register
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value, described
from nncompile.ir.types import Array, Type, boolean, f32, i64, u32
from nncompile.ops.core.axes import axes_of, axis_of


class Reshape(Op):
    """The elements of `x`, in row-major order, in another shape."""

    shape: Shape
    moves = True
    copies = 1

    def infer(self, x: Type) -> Type:
        before, after = product(x.shape), product(self.shape)
        target = Type(x.dtype, self.shape)
        is_same = same(before, after)
        if is_same is False:
            raise ShapeError(f"{x} has {before} elements, {target} has {after}")
        if is_same is None and not same_where_enough(before, after):
            error = ShapeError(
                f"cannot tell whether the {before} elements of {x} are the {after} of {target}",
                hint="write the sizes in terms of each other, or give equal dimensions the same "
                "name",
            )
            error.undecided = before, after
            raise error
        return target

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (reshape(g, x.shape),)

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        (source,) = row_axes
        if source is None:
            return None
        before, size = product(types[0].shape[:source]), types[0].shape[source]
        for axis, target in enumerate(self.shape):
            if same(target, size) is True and same(product(self.shape[:axis]), before) is True:
                return axis
        return None

    def batched(self, length: Dim) -> Reshape:
        return Reshape((length, *self.shape))

    def numpy(self, x: Array) -> Array:
        return x.reshape(self.shape)

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        source = o.types[0].shape
        pattern = _pattern(source, self.shape)
        if pattern is not None:
            return o.Reshape(x, o.ints(pattern))
        if _without_ones(source) == self.shape:
            return o.Squeeze(x, o.ints(_ones(source)))
        if _without_ones(self.shape) == source:
            return o.Unsqueeze(x, o.ints(_ones(self.shape)))
        return o.Reshape(x, o.shape(self.shape), allowzero=1)

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.method(x, "reshape", t.shape(self.shape))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        n, m = symbol("n"), symbol("m")
        yield Sample(cls((3, 2)), (f32[2, 3],))
        yield Sample(cls((n, 12)), (f32["n", 3, 4],))
        yield Sample(cls((n, 3, m)), (f32["n", "3*m"],))
        yield Sample(cls((dim(n * m),)), (f32["n", "m"],))
        yield Sample(cls((n, 1, m)), (i64["n", "m"],))
        yield Sample(cls((n, m)), (boolean["n", 1, "m", 1],))
        yield Sample(cls(()), (f32[1, 1],))
        yield Sample(cls((1,)), (u32[()],))
        yield Sample(cls((0, 5)), (f32[3, 0],))


class Transpose(Op):
    """`x` with its axes in another order: axis `i` of the result is `axes[i]` of `x`."""

    axes: tuple[int, ...]
    varies: ClassVar[str] = "order"
    moves = True
    copies = 1

    def infer(self, x: Type) -> Type:
        if sorted(self.axes) != list(range(x.rank)):
            raise ShapeError(f"axes {self.axes} are not a permutation of the {x.rank} axes of {x}")
        return Type(x.dtype, tuple(x.shape[axis] for axis in self.axes))

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (transpose(g, [self.axes.index(i) for i in range(x.rank)]),)

    def numpy(self, x: Array) -> Array:
        return x.transpose(self.axes)

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        return o.Transpose(x, perm=list(self.axes))

    def torch(self, t: TorchEmitter, x: str) -> str:
        return t.method(x, "permute", list(self.axes))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls((1, 0)), (f32["n", 3],))
        yield Sample(cls((2, 0, 1)), (f32["n", "m", 4],))
        yield Sample(cls((0, 2, 1)), (boolean[2, "n", 3],))
        yield Sample(cls((1, 0)), (u32["n", 2],))


def _pattern(source: Shape, target: Shape) -> list[int] | None:
    """The target as a constant of ONNX (0 copies the size of that axis, -1 is inferred), or None
    where the sizes are needed. Inferring is left out where another size might be zero."""
    pattern: list[int] = []
    for i, size in enumerate(target):
        if isinstance(size, int) and size:
            pattern.append(size)
        else:
            copied = i < len(source) and is_same(size, source[i])
            pattern.append(0 if copied else -1)
    unknown = pattern.count(-1)
    known = all(pattern) and not any(_is_zero(d) for d in target)
    return pattern if unknown == 0 or (unknown == 1 and known) else None


def _is_zero(size: Dim) -> bool:
    return isinstance(size, int) and size == 0


def _ones(shape: Shape) -> list[int]:
    return [i for i, size in enumerate(shape) if is_one(size)]


def _without_ones(shape: Shape) -> Shape:
    return tuple(size for size in shape if not is_one(size))


@suggests_names
def reshape(x: Any, shape: Any, *more: Any) -> Value:
    """The elements of `x`, in row-major order, in another shape.

    Sizes are numbers, names or arithmetic of them; one may be -1 and is found from the others.
    Raises `ShapeError` where the numbers of elements differ or are not known to be equal.

    >>> from nncompile.ir.graph import Input
    >>> from nncompile.ir.op import apply
    >>> reshape(apply(Input("x", f32["n", 4, 6])), (-1, 24))
    <reshape : f32[n, 24]>
    """
    x = as_value(x)
    sizes = tuple(shape) if isinstance(shape, tuple | list) else (shape,)
    target = _inferred(x, tuple(dim(size) for size in (*sizes, *more)))
    return x if same_shape(x.shape, target) is True else Reshape(target)(x)


def _inferred(x: Value, target: Shape) -> Shape:
    """The target with the size that is -1 found from the others."""
    negative = [i for i, size in enumerate(target) if isinstance(size, int) and size < 0]
    if not negative:
        return target
    text = f"[{', '.join(map(str, target))}]"
    if len(negative) > 1 or target[negative[0]] != -1:
        raise ShapeError(
            f"reshape: at most one size of {text} may be -1, the others must not be negative"
        )
    index = negative[0]
    total = product(x.shape)
    rest = product(size for i, size in enumerate(target) if i != index)
    size = 0 if _is_zero(rest) else floordiv(total, rest)
    if _is_zero(rest) or same(product((size, rest)), total) is not True:
        known = isinstance(total, int) and isinstance(rest, int)
        divides = "does not divide" if known else "is not known to divide"
        raise ShapeError(
            f"reshape: -1 in {text} has no size: {rest} {divides} the {total} elements",
            rows=[("x", *described(x))],
            hint=None if known else 'name the size as a multiple, such as "4*n"',
        )
    return with_axis(target, index, size)


@suggests_names
def transpose(x: Any, axes: int | Sequence[int] | None = None, *more: int) -> Value:
    """`x` with its axes in another order, reversed by default: `transpose(x, (2, 0, 1))` or, as a
    method, `x.transpose(2, 0, 1)`."""
    x = as_value(x)
    axes = (axes, *more) if isinstance(axes, int) else axes
    order = range(x.rank)[::-1] if axes is None else [axis_of(a, x.rank, "axes") for a in axes]
    return x if list(order) == list(range(x.rank)) else Transpose(tuple(order))(x)


@suggests_names
def swapaxes(x: Any, axis1: int, axis2: int) -> Value:
    """`x` with two axes in each other's place."""
    x = as_value(x)
    order = list(range(x.rank))
    first, second = axis_of(axis1, x.rank, "axis1"), axis_of(axis2, x.rank, "axis2")
    order[first], order[second] = second, first
    return transpose(x, order)


@suggests_names
def moveaxis(x: Any, source: int | Sequence[int], destination: int | Sequence[int]) -> Value:
    """`x` with the axes `source` at the places `destination`, the others in their order."""
    x = as_value(x)
    sources = _axes_in_order(source, x.rank, "source")
    destinations = _axes_in_order(destination, x.rank, "destination")
    if len(sources) != len(destinations):
        raise ShapeError(
            f"moveaxis: {len(sources)} source axes do not match {len(destinations)} destinations"
        )
    order = [i for i in range(x.rank) if i not in sources]
    for index, axis in sorted(zip(destinations, sources, strict=True)):
        order.insert(index, axis)
    return transpose(x, order)


def _axes_in_order(axes: int | Sequence[int], rank: int, name: str) -> list[int]:
    axes_of(axes, rank, name)  # none twice
    requested = axes if isinstance(axes, Sequence) else (axes,)
    return [axis_of(axis, rank, name) for axis in requested]


@suggests_names
def expand_dims(x: Any, axis: int | Sequence[int]) -> Value:
    """`x` with axes of size one, which are at the places `axis` of the result."""
    x = as_value(x)
    count = len(axis) if isinstance(axis, tuple | list) else 1
    shape = list(x.shape)
    for index in axes_of(axis, x.rank + count):
        shape.insert(index, 1)
    return reshape(x, shape)


@suggests_names
def squeeze(x: Any, axis: int | Sequence[int] | None = None) -> Value:
    """`x` without the given axes of size one; by default without all whose size is the number
    one. Raises `ShapeError` where a given axis has, or may have, another size."""
    x = as_value(x)
    axes = _ones(x.shape) if axis is None else axes_of(axis, x.rank)
    for index in axes:
        if not is_one(x.shape[index]):
            raise ShapeError(f"squeeze: axis {index} of {x.type} has size {x.shape[index]}, not 1")
    return reshape(x, [size for i, size in enumerate(x.shape) if i not in axes])


def flatten(x: Any, start_dim: int = 0, end_dim: int = -1) -> Value:
    """`x` with the axes from `start_dim` to `end_dim` (included) as one; all of them by default."""
    x = as_value(x)
    if x.rank == 0:
        return reshape(x, (1,))
    first, last = axis_of(start_dim, x.rank, "start_dim"), axis_of(end_dim, x.rank, "end_dim")
    if first > last:
        raise ShapeError(f"flatten: axis {first} does not precede axis {last}")
    middle = product(x.shape[first : last + 1])
    return reshape(x, (*x.shape[:first], middle, *x.shape[last + 1 :]))


@suggests_names
def ravel(x: Any) -> Value:
    """All elements as a vector."""
    return flatten(x)


@suggests_names
def tile(x: Any, reps: Any) -> Value:
    """`x` repeated as a whole, `reps` times along each axis (the last ones where it has fewer
    than there are axes)."""
    x = as_value(x)
    counts = [dim(r) for r in (reps if isinstance(reps, tuple | list) else (reps,))]
    rank = max(x.rank, len(counts))
    counts = [1] * (rank - len(counts)) + counts
    sizes = (1,) * (rank - x.rank) + x.shape
    return _repeated(x, [((1, n), (count, n)) for count, n in zip(counts, sizes, strict=True)])


@suggests_names
def repeat(x: Any, repeats: Any, axis: int | None = None) -> Value:
    """Each element `repeats` times in a row along the axis; of all in a row by default."""
    x = as_value(x)
    if axis is None:
        x, axis = ravel(x), 0
    axis, count = axis_of(axis, x.rank), dim(repeats)
    counts = [count if i == axis else 1 for i in range(x.rank)]
    return _repeated(x, [((n, 1), (n, count)) for count, n in zip(counts, x.shape, strict=True)])


def _repeated(x: Value, axes: Sequence[tuple[Shape, Shape]]) -> Value:
    """Each axis split in two, of which one has size one, spread over both sizes and joined."""
    pairs = [(a, b) if a != b else ((product(a),), (product(b),)) for a, b in axes]
    split = reshape(x, [size for before, _ in pairs for size in before])
    copies = broadcast_to(split, [size for _, after in pairs for size in after])
    return reshape(copies, [product(after) for _, after in pairs])


for _function in (
    reshape,
    transpose,
    squeeze,
    flatten,
    ravel,
    expand_dims,
    swapaxes,
    moveaxis,
):
    register(_function.__name__, _function)
