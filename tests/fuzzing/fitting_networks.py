"""Normalization, loops, matrices and functions of images, applied to a value as it is."""

from __future__ import annotations

from typing import Any

from nncompile import ops
from nncompile.autodiff.checkpointing import recompute
from nncompile.elementwise import exp, relu, sigmoid, sin, tanh
from nncompile.ir.dims import dim
from nncompile.ir.graph import items
from nncompile.ir.op import Op, Value, apply
from nncompile.ir.types import DTYPES, f32, f64
from nncompile.ops import broadcast_to, expand_dims, eye, mean, scan, size_value
from nncompile.ops.core.modes import Training
from nncompile.ops.linear_algebra.determinants import Cofactors, Determinant, SignedLogDeterminant
from nncompile.ops.linear_algebra.systems import Inverse, Solve
from nncompile.ops.linear_algebra.triangular import Cholesky, SolveTriangular
from nncompile.ops.loops.scan import Scan
from nncompile.ops.normalization.layer import LayerNorm
from nncompile.ops.pooling.places import MaxPlaces
from tests.fuzzing.program import Builder, Rejected
from tests.fuzzing.samples import ANY, APART, RANGE, broadcasting, noted, samples_of


def by_normalization(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of([f32, f64], 1, RANGE)
    if any(a.shape[-1] == 0 for a in b.arrays(x)):
        raise Rejected  # onnxruntime normalizes no rows of nothing
    weights = [b.argument(x.dtype[x.shape[-1:]], RANGE) for _ in range(b.integer(0, 2))]
    return apply(LayerNorm(b.choose((1e-5, 1e-3, 0.01))), x, *weights)


def by_training(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of(DTYPES, 0, ANY)
    return apply(Training(), x, b.argument(x.type, ANY))


def by_recompute(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of([f32, f64], 1, RANGE)
    w = b.argument(x.dtype[x.shape[-1], b.dim()], RANGE)
    first, second = b.choose(_ACTIVATIONS), b.choose(_ACTIVATIONS)
    return recompute(lambda v: second(first(v) @ w))(x)  # type: ignore[no-any-return]


def by_scan(b: Builder, op_type: type[Op]) -> Value:
    """A loop whose body is made of a few operations on its carry, its row and what is outside."""
    xs = b.any_of([f32, f64], 1, RANGE)
    row = xs.shape[1:]
    h = b.argument(xs.dtype[row], RANGE)
    outside = b.argument(xs.dtype[broadcasting(b, row)], RANGE)
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
    x = b.any_of([f32, f64], 1, RANGE)
    y = x if op_type is Cholesky else b.argument(x.type, RANGE)
    size = x.shape[-1]
    heavy = eye(size, dtype=x.dtype) * size_value(dim(size + 1), x.dtype)
    a = expand_dims(tanh(x), -1) * expand_dims(tanh(y), -2) + heavy
    if op_type in (Solve, SolveTriangular):
        return apply(sample.op, a, b.argument(x.dtype[(*x.shape, b.dim())], RANGE))
    made = apply(sample.op, a)
    return items(made)[1] if op_type is SignedLogDeterminant else made


def by_images(b: Builder, op_type: type[Op]) -> Value:
    """One of the functions of [batch, channels, *space] that are made of other ops."""
    x = b.any_of([f32, f64], 3, APART if op_type is MaxPlaces else RANGE)
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
        grid = b.argument(x.dtype[x.shape[0], b.dim(), rank], RANGE)
        beyond = b.choose(("zeros", "border", "reflection"))
        return ops.grid_sample(x, grid, "bicubic", beyond, b.chance(50))
    if kind == 6:
        return ops.average_pool(x, 2, b.integer(1, 2), 1, count_include_pad=False, dilation=2)
    return ops.local_response_norm(x, b.integer(1, 3), 0.5)


_ACTIVATIONS = (tanh, sigmoid, sin, relu, lambda v: v * 0.5, lambda v: exp(-v * v))
