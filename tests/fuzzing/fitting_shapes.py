"""Ops that rearrange, cut and join values, or make them of sizes, applied to a value as it is."""

from __future__ import annotations

import sympy as sp

from nncompile.ir.barriers import Barrier
from nncompile.ir.basic import Constant
from nncompile.ir.broadcasting import Expand
from nncompile.ir.data_sizes import made_size
from nncompile.ir.dims import Dim, dim
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import DTYPES, boolean, f32, f64, i64
from nncompile.ops import cast
from nncompile.ops.core.counting import Counted
from nncompile.ops.shape.joining import Concat, Split
from nncompile.ops.shape.reshape import Reshape
from nncompile.ops.shape.selecting import NonZero
from nncompile.ops.shape.slicing import Pad, Slice
from tests.fuzzing.program import Builder
from tests.fuzzing.samples import ANY, RANGE, samples_of


def by_reshape(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of(DTYPES, 0, ANY)
    shape = list(x.shape)
    kind = b.integer(0, 3)
    if kind == 0 and x.rank >= 2:
        i = b.integer(0, x.rank - 2)
        shape[i : i + 2] = [dim(shape[i] * shape[i + 1])]
    elif kind == 1 and 1 in shape:
        shape.remove(1)
    elif kind == 2:
        shape = [dim(sp.prod(shape))]
    else:
        shape.insert(b.integer(0, x.rank), 1)
    return apply(Reshape(tuple(shape)), x)


def by_slice(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of(DTYPES, 1, ANY)
    starts: list[Dim] = []
    sizes: list[Dim] = []
    steps: list[int] = []
    for d in x.shape:
        if b.chance(25):
            starts, sizes, steps = [*starts, dim(d - 1)], [*sizes, d], [*steps, -1]
        elif isinstance(d, int) and d > 1 and b.chance(60):
            step = b.integer(1, 2)
            start = b.integer(0, d - 1)
            size = b.integer(0 if b.chance(10) else 1, (d - start + step - 1) // step)
            starts, sizes, steps = [*starts, start], [*sizes, size], [*steps, step]
        else:
            starts, sizes, steps = [*starts, 0], [*sizes, d], [*steps, 1]
    return apply(Slice(tuple(starts), tuple(sizes), tuple(steps)), x)


def by_pad(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of([f32, f64], 1, RANGE)
    before, after = [], []
    for d in x.shape:
        least = -1 if isinstance(d, int) and d > 2 else 0
        before.append(b.integer(0, 2) if b.chance(30) else b.choose((0, least, 1)))
        after.append(b.choose((0, 1, least)))
    return apply(Pad(tuple(before), tuple(after), b.choose((0, 1.5))), x)


def by_expand(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of(DTYPES, 0, ANY)
    shape = tuple(b.dim() if d == 1 and b.chance(60) else d for d in x.shape)
    return apply(Expand((*(b.dim() for _ in range(b.integer(0, 2))), *shape)), x)


def by_joining(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of(DTYPES, 1, ANY)
    axis = b.integer(0, x.rank - 1)
    args = [x]
    for _ in range(b.integer(1, 2)):
        shape = list(x.shape)
        shape[axis] = b.dim() if b.chance(50) else shape[axis]
        args.append(b.argument(x.dtype[tuple(shape)], ANY))
    return apply(Concat(axis), *args)


def by_split(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of(DTYPES, 1, ANY)
    axis = b.choose([i for i, d in enumerate(x.shape) if isinstance(d, int) and d > 0])
    first = b.integer(0, x.shape[axis])
    return apply(Split(axis, (first, x.shape[axis] - first)), x)


def by_mask(b: Builder, op_type: type[Op]) -> Value:
    """Elements that data select: no rounding changes how many there are."""
    x = b.any_of([boolean, f32, f64, i64], 1, ANY)
    mask = b.leaf(boolean[x.shape], ANY)
    places = apply(NonZero(made_size("nonzero", mask)), mask)
    if b.chance(20):
        return places
    return x[tuple(places[i] for i in range(x.rank))]  # type: ignore[no-any-return]


def by_count(b: Builder, op_type: type[Op]) -> Value:
    number = b.leaf(i64[()], Sample(Barrier(), (), integers=(0, 6)))
    return apply(Counted(made_size("count", number)), number)


def by_size(b: Builder, op_type: type[Op]) -> Value:
    dtype = b.choose([s.op.dtype for s in samples_of(op_type)])  # type: ignore[attr-defined]
    return apply(op_type(b.dim(), dtype))  # type: ignore[call-arg]


def by_constant(b: Builder, op_type: type[Op]) -> Value:
    """A number beside a value: a constant alone would be a program of its own."""
    value = apply(b.choose(samples_of(Constant)).op)
    if not value.dtype.is_float or value.rank:
        return value
    x = b.any_of([f32], 0, RANGE)
    return x * cast(value, x.dtype)  # type: ignore[no-any-return]
