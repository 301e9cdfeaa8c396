"""Ops that take values of any rank, applied to a value as it is."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import sympy as sp

from nncompile import ops
from nncompile.autodiff.checkpointing import recompute
from nncompile.elementwise import exp, relu, sigmoid, sin, tanh
from nncompile.elementwise.map import Map, mapped
from nncompile.ir.barriers import Barrier
from nncompile.ir.basic import Cast, Constant, SizeOf
from nncompile.ir.broadcasting import Expand
from nncompile.ir.dims import Dim, Shape, dim
from nncompile.ir.graph import items
from nncompile.ir.op import Op, Sample, Value, apply, made_size
from nncompile.ir.types import DTYPES, INTEGERS, bf16, boolean, f16, f32, f64, i64
from nncompile.ops import broadcast_to, cast, expand_dims, eye, mean, scan, size_value
from nncompile.ops.contraction.einsum import Einsum
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.core.checkpoint import Recompute
from nncompile.ops.core.counting import Counted, Iota
from nncompile.ops.core.modes import Training
from nncompile.ops.images.resize import Enlarge
from nncompile.ops.linear_algebra.determinants import Cofactors, Determinant, SignedLogDeterminant
from nncompile.ops.linear_algebra.systems import Inverse, Solve
from nncompile.ops.linear_algebra.triangular import Cholesky, SolveTriangular
from nncompile.ops.loops.scan import Scan
from nncompile.ops.normalization.layer import LayerNorm
from nncompile.ops.pooling.places import MaxPlaces
from nncompile.ops.shape.joining import Concat, Split
from nncompile.ops.shape.reshape import Reshape
from nncompile.ops.shape.selecting import NonZero
from nncompile.ops.shape.slicing import Pad, Slice
from tests.fuzzing.program import Builder, Rejected
from tests.op_types import typed

Step = Callable[[Builder, type[Op]], Value]


@cache
def samples_of(op_type: type[Op]) -> tuple[Sample, ...]:
    return tuple(op_type.samples())


def noted(b: Builder, sample: Sample) -> Sample:
    """The sample, now and then in other element types; its limits are those of the program from now
    on."""
    sample = _retyped(b, sample)
    b.order = min(b.order, sample.order)
    if not type(sample.op).differentiable:
        b.smooth = False
    return sample


def _retyped(b: Builder, sample: Sample) -> Sample:
    kind = b.choose((f32, i64))
    if b.chance(80) or all(t.dtype is not kind for t in sample.types):
        return sample
    others = (f16, bf16) if kind is f32 else tuple(d for d in INTEGERS if d is not i64)
    return typed(sample, {kind: b.choose(others)}) or sample


def by_axes(b: Builder, op_type: type[Op]) -> Value:
    """A op that says which of its fields takes any axis."""
    sample = noted(b, b.choose(samples_of(op_type)))
    dtype = sample.types[0].dtype
    x = b.any_of([dtype], 1, sample)
    order = list(range(x.rank))
    for i in range(x.rank - 1):
        j = b.integer(i, x.rank - 1)
        order[i], order[j] = order[j], order[i]
    some = tuple(sorted(order[: b.integer(1, x.rank)]))
    chosen = {"axis": {"axis": order[0]}, "axes": {"axes": some}, "order": {"axes": tuple(order)}}
    flags = {name: b.chance(50) for name, v in sample.op.attributes.items() if isinstance(v, bool)}
    op = dataclasses.replace(sample.op, **flags, **chosen[op_type.varies])  # type: ignore[type-var]
    args = [x, *(b.argument(x.type, sample) for _ in sample.types[1:])]
    return apply(op, *args)


def elementwise(b: Builder, op_type: type[Op]) -> Value:
    """A formula of values that broadcast."""
    sample = noted(b, b.choose(samples_of(Map)))
    body = sample.op.body  # type: ignore[attr-defined]
    x = b.any_of([sample.types[0].dtype], 0, sample)
    args = [x]
    for type_ in sample.types[1:]:
        args.append(b.argument(type_.dtype[_broadcasting(b, x.shape)], sample))
    return mapped(body, args)


def _broadcasting(b: Builder, shape: Shape) -> Shape:
    kind = b.integer(0, 3)
    if kind == 0:
        return shape
    if kind == 1:
        return shape[b.integer(0, len(shape)) :]
    return tuple(1 if b.chance(40) else d for d in shape)


def by_product(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of([f32, f64], 1, _RANGE)
    rows, columns = x.shape[-1], b.dim()
    batch = x.shape[:-2] if b.chance(30) else ()
    if b.chance(20):
        return (
            apply(MatMul(), b.argument(x.dtype[(*batch, columns, x.shape[0])], _RANGE), x)
            if (x.rank == 1)
            else apply(MatMul(), b.argument(x.dtype[columns, x.shape[-2]], _RANGE), x)
        )
    return apply(MatMul(), x, b.argument(x.dtype[(*batch, rows, columns)], _RANGE))


def by_einsum(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of([f32, f64], 0, _RANGE)
    letters = "abcdef"[: x.rank]
    common = "".join(c for c in letters if b.chance(60))
    other = common + ("z" if b.chance(60) else "")
    right = "".join(sorted(other, key=lambda _: b.integer(0, 9)))
    sizes = dict(zip(letters, x.shape, strict=True)) | {"z": b.dim()}
    y = b.argument(x.dtype[tuple(sizes[c] for c in right)], _RANGE)
    # An axis that is in neither the other argument nor the result is not allowed.
    kept = [c for c in letters if c not in common or b.chance(40)] + ["z"] * ("z" in right)
    output = "".join(sorted(kept, key=lambda _: b.integer(0, 9)))
    return apply(Einsum(letters, right, output), x, y)


def by_reshape(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of(DTYPES, 0, _ANY)
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
    x = b.any_of(DTYPES, 1, _ANY)
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
    x = b.any_of([f32, f64], 1, _RANGE)
    before, after = [], []
    for d in x.shape:
        least = -1 if isinstance(d, int) and d > 2 else 0
        before.append(b.integer(0, 2) if b.chance(30) else b.choose((0, least, 1)))
        after.append(b.choose((0, 1, least)))
    return apply(Pad(tuple(before), tuple(after), b.choose((0, 1.5))), x)


def by_expand(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of(DTYPES, 0, _ANY)
    shape = tuple(b.dim() if d == 1 and b.chance(60) else d for d in x.shape)
    return apply(Expand((*(b.dim() for _ in range(b.integer(0, 2))), *shape)), x)


def by_cast(b: Builder, op_type: type[Op]) -> Value:
    sample = noted(b, b.choose(samples_of(Cast)))
    x = b.any_of([sample.types[0].dtype], 0, sample)
    target = sample.op.dtype  # type: ignore[attr-defined]
    if x.dtype.is_float and target.is_bool:
        if any(((a != 0) & (np.abs(a) < 1e-3)).any() for a in b.arrays(x)):
            raise Rejected  # a difference that is nearly zero may be zero
    elif x.dtype.is_float and target.is_integer:
        limits = np.iinfo(target.numpy)
        if any((a < limits.min).any() or (a > limits.max).any() for a in b.arrays(x)):
            raise Rejected  # what a number becomes that the type does not have is not said
    return apply(sample.op, x)


def by_joining(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of(DTYPES, 1, _ANY)
    axis = b.integer(0, x.rank - 1)
    args = [x]
    for _ in range(b.integer(1, 2)):
        shape = list(x.shape)
        shape[axis] = b.dim() if b.chance(50) else shape[axis]
        args.append(b.argument(x.dtype[tuple(shape)], _ANY))
    return apply(Concat(axis), *args)


def by_split(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of(DTYPES, 1, _ANY)
    axis = b.choose([i for i, d in enumerate(x.shape) if isinstance(d, int) and d > 0])
    first = b.integer(0, x.shape[axis])
    return apply(Split(axis, (first, x.shape[axis] - first)), x)


def by_normalization(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of([f32, f64], 1, _RANGE)
    if any(a.shape[-1] == 0 for a in b.arrays(x)):
        raise Rejected  # onnxruntime normalizes no rows of nothing
    weights = [b.argument(x.dtype[x.shape[-1:]], _RANGE) for _ in range(b.integer(0, 2))]
    return apply(LayerNorm(b.choose((1e-5, 1e-3, 0.01))), x, *weights)


def by_training(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of(DTYPES, 0, _ANY)
    return apply(Training(), x, b.argument(x.type, _ANY))


def by_barrier(b: Builder, op_type: type[Op]) -> Value:
    return apply(Barrier(), *(b.any_of(DTYPES, 0, _ANY) for _ in range(b.integer(1, 2))))


def by_mask(b: Builder, op_type: type[Op]) -> Value:
    """Elements that data select: no rounding changes how many there are."""
    x = b.any_of([boolean, f32, f64, i64], 1, _ANY)
    mask = b.leaf(boolean[x.shape], _ANY)
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
    x = b.any_of([f32], 0, _RANGE)
    return x * cast(value, x.dtype)  # type: ignore[no-any-return]


def by_recompute(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of([f32, f64], 1, _RANGE)
    w = b.argument(x.dtype[x.shape[-1], b.dim()], _RANGE)
    first, second = b.choose(_ACTIVATIONS), b.choose(_ACTIVATIONS)
    return recompute(lambda v: second(first(v) @ w))(x)  # type: ignore[no-any-return]


def by_scan(b: Builder, op_type: type[Op]) -> Value:
    """A loop whose body is made of a few operations on its carry, its row and what is outside."""
    xs = b.any_of([f32, f64], 1, _RANGE)
    row = xs.shape[1:]
    h = b.argument(xs.dtype[row], _RANGE)
    outside = b.argument(xs.dtype[_broadcasting(b, row)], _RANGE)
    f, g = b.choose(_ACTIVATIONS), b.choose(_ACTIVATIONS)
    kind = b.integer(0, 4)

    def body(c: Value, x: Value) -> Any:
        if kind == 0:
            return f(c * 0.5 + x), g(c * x)
        if kind == 1:
            return f(c) * outside + x, c
        if kind == 2:
            return f(x * outside + g(c)), x
        if kind == 3:
            return broadcast_to(f(c) * mean(x), row), outside + c
        return f(c + x), mean(g(c))

    last, stacked = scan(body, h, xs, reverse=b.chance(40))
    if not any(isinstance(a.op, Scan) for v in (last, stacked) for a in (v, *v.args)):
        raise Rejected
    return last if b.chance(40) else stacked


# What a program has made may be singular, where a gradient is NaN by definition or by rounding.
MATRICES = (Solve, SolveTriangular, Inverse, Determinant, SignedLogDeterminant, Cofactors, Cholesky)


def by_matrix(b: Builder, op_type: type[Op]) -> Value:
    """Square matrices whose diagonal outweighs the rest: the product of a column and a row that
    are below 1, and more than the size of it on the diagonal."""
    sample = noted(b, b.choose(samples_of(op_type)))
    x = b.any_of([f32, f64], 1, _RANGE)
    y = x if op_type is Cholesky else b.argument(x.type, _RANGE)
    size = x.shape[-1]
    heavy = eye(size, dtype=x.dtype) * size_value(dim(size + 1), x.dtype)
    a = expand_dims(tanh(x), -1) * expand_dims(tanh(y), -2) + heavy
    if op_type in (Solve, SolveTriangular):
        return apply(sample.op, a, b.argument(x.dtype[(*x.shape, b.dim())], _RANGE))
    made = apply(sample.op, a)
    return items(made)[1] if op_type is SignedLogDeterminant else made


def by_images(b: Builder, op_type: type[Op]) -> Value:
    """One of the functions of [batch, channels, *space] that are no ops."""
    x = b.any_of([f32, f64], 3, _APART if op_type is MaxPlaces else _RANGE)
    rank = x.rank - 2
    if any(0 in a.shape[2:] for a in b.arrays(x)):
        raise Rejected  # there is nothing to take
    if op_type is MaxPlaces:
        given = 2, b.integer(1, 2), b.choose((0, 1, ((1, 0),) * rank))
        values, places = ops.max_pool_with_indices(x, *given)
        return ops.max_unpool(values, places, 3, 2, 1, x.shape[2:]) + mean(values)
    kind = b.integer(0, 7)
    if kind == 0:
        widths = [(0, 0)] * (x.rank - 1) + [(b.integer(0, 2), b.integer(0, 3))]
        return ops.pad(x, widths, b.choose(("wrap", "reflect", "symmetric", "edge")))
    if kind in (1, 2):
        how = {"align_corners": b.chance(50), "antialias": b.chance(50)}
        return ops.resize(x, b.integer(1, 4), mode=b.choose(("linear", "cubic")), **how)
    if kind == 3:
        columns = ops.unfold(x, 2, padding=1, stride=b.integer(1, 2))
        return columns if b.chance(50) else mean(columns, 2)
    if kind == 4:
        step = b.integer(1, 2)
        columns = ops.unfold(x, 2, 2, 1, step)
        return ops.fold(columns * columns, x.shape[2:], 2, 2, 1, step)
    if kind == 5:
        grid = b.argument(x.dtype[x.shape[0], b.dim(), rank], _RANGE)
        beyond = b.choose(("zeros", "border", "reflection"))
        return ops.grid_sample(x, grid, "bicubic", beyond, b.chance(50))
    if kind == 6:
        return ops.average_pool(x, 2, b.integer(1, 2), 1, count_include_pad=False, dilation=2)
    return ops.local_response_norm(x, b.integer(1, 3), 0.5)


_ACTIVATIONS = (tanh, sigmoid, sin, relu, lambda v: v * 0.5, lambda v: exp(-v * v))
_RANGE = Sample(Barrier(), ())
_APART = Sample(Barrier(), (), distinct=True)
_ANY = Sample(Barrier(), (), integers=(-(2**40), 2**40))

FITTING: dict[type[Op], Step] = {
    Map: elementwise,
    MatMul: by_product,
    Einsum: by_einsum,
    Reshape: by_reshape,
    Slice: by_slice,
    Pad: by_pad,
    Expand: by_expand,
    Cast: by_cast,
    Concat: by_joining,
    Split: by_split,
    LayerNorm: by_normalization,
    Training: by_training,
    Barrier: by_barrier,
    NonZero: by_mask,
    Counted: by_count,
    SizeOf: by_size,
    Iota: by_size,
    Constant: by_constant,
    Recompute: by_recompute,
    Scan: by_scan,
    MaxPlaces: by_images,
    Enlarge: by_images,
    **dict.fromkeys(MATRICES, by_matrix),
}
# Of these the samples are not what a graph is made of: `recompute` computes its arguments from what
# it is given, formulas have a canonical form, and sizes that depend on data names of their own.
ALONE = (Recompute, Map, NonZero, Counted)
