"""Determinants of square matrices and their logarithms, with gradients at singular matrices.

As in systems.py, matrices are the last two axes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import abs as absolute
from nncompile.elementwise import equal, isfinite, log, sign, where
from nncompile.ir.basic import as_value, const, in_single
from nncompile.ir.broadcasting import broadcast_to, zeros_like
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.graph import items
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, TupleType, Type, boolean, f32, f64
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.core.composition import composed_onnx
from nncompile.ops.linear_algebra.elimination import (
    all_hold,
    eliminated,
    permutation_sign,
    substituted,
)
from nncompile.ops.linear_algebra.systems import (
    NAN,
    Inverse,
    OfMatrices,
    check_square,
    each,
    eye,
    guarded,
    matrix_by_matrix,
    transposed,
)
from nncompile.ops.reduction.products import prod
from nncompile.ops.reduction.sums import sum
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.reshape import expand_dims, moveaxis, swapaxes


class Determinant(Op):
    """The determinant of each matrix x[…, n, n]; 1 of none."""

    label = "det"

    def infer(self, x: Type) -> Type:
        check_square(x)
        return x.with_shape(x.shape[:-2])

    rowwise = matrix_by_matrix

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        return (expand_dims(g, (-2, -1)) * Cofactors()(x),)

    def composed(self, x: Value) -> tuple[Value]:
        """The product of the pivots, of the sign of the permutation."""
        pivots, permutation = eliminated(x)
        product = prod(pivots, 0) * permutation_sign(permutation, x.dtype)
        return (where(all_hold(isfinite(x), (-2, -1)), product, NAN),)

    def numpy(self, x: Array) -> Array:
        return each(np.linalg.det, np.empty(x.shape[:-2], x.dtype), x)

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        if o.types[0].shape[-1] == 0:
            return o.Expand(o.scalar(1, o.type.dtype), o.shape(o.type.shape))
        return composed_onnx(o, self.composed, x)[0]

    def torch(self, t: TorchEmitter, x: str) -> str:
        return guarded(t, t.call("torch.linalg.det", x), x, axes=0)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", "n"],), dominant=True)
        yield Sample(cls(), (f64["b", 3, 3],))
        yield Sample(cls(), (f32["b", 2, 2],))


class Cofactors(OfMatrices, Op):
    """The derivatives of the determinant of each matrix x[…, n, n] by its elements, singular
    matrices among them."""

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        """Of the minors where the matrix is small; else of det(x)·x⁻ᵀ, NaN where x is singular."""
        if isinstance(x.shape[-1], int) and x.shape[-1] <= FEW_ROWS:
            return (_by_minors(x, g),)
        inverse = transposed(Inverse()(x))
        scale = sum(g * inverse, (-2, -1), keepdims=True)
        return (y * scale - matmul(matmul(inverse, transposed(g)), y),)

    def composed(self, x: Value) -> tuple[Value]:
        """The determinant times the inverse, where a pivot that is 0 is so small that it makes no
        difference: it is a factor of the one and a divisor of the other."""
        identity = broadcast_to(eye(x.shape[-1], dtype=x.dtype), x.shape)
        pivots, permutation, rows, right = eliminated(x, identity)
        pivots = where(equal(pivots, 0), _SMALL, pivots)
        columns = swapaxes(rows, 0, -1)
        inverse = substituted(columns, pivots, moveaxis(right, 0, -2), reverse=True)
        determinant = prod(pivots, 0) * permutation_sign(permutation, x.dtype)
        holds = expand_dims(all_hold(isfinite(x), (-2, -1)), (-2, -1))
        return (where(holds, expand_dims(determinant, (-2, -1)) * transposed(inverse), NAN),)

    def numpy(self, x: Array) -> Array:
        return each(_cofactors, np.empty_like(x), x)

    def torch(self, t: TorchEmitter, x: str) -> str:
        finite = t.where(t.isfinite(x), x, 0.0)  # torch refuses others
        parts = t.call("torch.linalg.svd", finite)
        u, sizes, v = (t.item(parts, i) for i in range(3))
        rows = t.method(t.method(sizes, "unsqueeze", -2), "expand_as", x)
        diagonal = t.eye(t.dim(t.type.shape[-1]), dtype=boolean)
        products = t.prod(t.where(diagonal, 1.0, rows), -1)
        sign = t.mul(t.call("torch.linalg.det", u), t.call("torch.linalg.det", v))
        diagonal = t.mul(products, t.method(sign, "unsqueeze", -1))
        scaled = t.mul(u, t.method(diagonal, "unsqueeze", -2))
        return guarded(t, t.matmul(scaled, v), x)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", "n"],), dominant=True)
        yield Sample(cls(), (f64["b", 3, 3],))
        yield Sample(cls(), (f64[1, 1],))
        yield Sample(cls(), (f32["b", 2, 2],))
        yield Sample(cls(), (f64[4, 4],))


# Of so many rows there are 36 minors without two rows and two columns; of six, 225 take ten times
# as long as the inverse.
FEW_ROWS = 4


def _by_minors(x: Value, g: Value) -> Value:
    """Σ g times the cofactors of x, differentiated by x: of rows i < k and columns j < l the minor
    without them, with the sign of i + k + j + l, is the derivative of the determinant by x[i, j]
    and x[k, l], and minus that by x[i, l] and x[k, j]. No minor is divided by."""
    n = int(x.shape[-1])
    pairs = [*itertools.combinations(range(n), 2)]
    if not pairs:
        return zeros_like(x)
    remaining = np.array([[i for i in range(n) if i not in pair] for pair in pairs], np.int64)
    parts = take(take(x, remaining.reshape(len(pairs), n - 2), -2), remaining, -1)
    minors = Determinant()(swapaxes(parts, -3, -2))
    signs = np.array([(-1.0) ** (i + k) for i, k in pairs])
    minors = minors * const(np.multiply.outer(signs, signs), x.dtype)
    # The rows that come first in the pairs, and those that come second.
    first, second = (const(np.eye(n)[[pair[i] for pair in pairs]], x.dtype) for i in (0, 1))
    total: Value | None = None
    for above, left in itertools.product((first, second), repeat=2):
        below, right = (second if v is first else first for v in (above, left))
        selected = matmul(matmul(above, g), transposed(left))
        part = matmul(matmul(transposed(below), minors * selected), right)
        part = part if (above is first) == (left is first) else -part
        total = part if total is None else total + part
    assert total is not None
    return total


# To be multiplied and divided by: a power of two, far below the last place of float64.
_SMALL = 2.0**-60


def _cofactors(x: Array) -> Array:
    """By singular values: of each, the product of the others."""
    u, sizes, v = np.linalg.svd(x)
    products = np.where(np.eye(len(x), dtype=bool), 1, sizes).prod(-1)
    sign = np.linalg.det(u) * np.linalg.det(v)
    return np.asarray(u * (products * sign) @ v)


class SignedLogDeterminant(Op):
    """The sign of the determinant of each matrix x[…, n, n], 0 of a singular one, and the
    logarithm of its size."""

    label = "slogdet"

    def infer(self, x: Type) -> TupleType:
        check_square(x)
        result = x.with_shape(x.shape[:-2])
        return TupleType((result, result))

    rowwise = matrix_by_matrix

    def pullback(self, g: Any, y: Value, x: Value) -> Sequence[Value | None]:
        if g[1] is None:
            return (None,)
        return (expand_dims(g[1], (-2, -1)) * transposed(Inverse()(x)),)

    def composed(self, x: Value) -> tuple[Value, Value]:
        """The sum of the logarithms of the pivots, and the product of their signs."""
        pivots, permutation = eliminated(x)
        finite = all_hold(isfinite(x), (-2, -1))
        total_sign = prod(sign(pivots), 0) * permutation_sign(permutation, x.dtype)
        return where(finite, total_sign, NAN), where(finite, sum(log(absolute(pivots)), 0), NAN)

    def numpy(self, x: Array) -> tuple[Array, Array]:
        def part(i: int) -> Array:
            return each(lambda m: np.linalg.slogdet(m)[i], np.empty(x.shape[:-2], x.dtype), x)

        return part(0), part(1)

    def onnx(self, o: OnnxEmitter, x: str) -> tuple[str, ...]:
        if o.types[0].shape[-1] == 0:
            shape = o.shape(o.type.items[0].shape)
            return tuple(o.Expand(o.scalar(i, o.types[0].dtype), shape) for i in (1, 0))
        return composed_onnx(o, self.composed, x)

    def torch(self, t: TorchEmitter, x: str) -> tuple[str, ...]:
        results = t.call("torch.linalg.slogdet", x)
        return tuple(guarded(t, t.item(results, i), x, axes=0) for i in range(2))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", "n"],), dominant=True)
        yield Sample(cls(), (f64["b", 3, 3],))


@suggests_names
@in_single
def det(x: Any) -> Value:
    """The determinant of each matrix of the last two axes. Its gradient is right where the matrix
    is singular, too; so are those of higher order for up to 4 rows, a number that is known. For
    more, the gradient of the gradient divides by the determinant, and is NaN there."""
    return Determinant()(as_value(x))


@suggests_names
@in_single
def slogdet(x: Any) -> tuple[Value, Value]:
    """The sign of the determinant of each matrix of the last two axes, and the logarithm of its
    size: finite where the determinant itself would overflow."""
    determinant_sign, logarithm = items(SignedLogDeterminant()(as_value(x)))
    return determinant_sign, logarithm


@suggests_names
@in_single
def logdet(x: Any) -> Value:
    """The logarithm of the determinant, NaN where that is negative."""
    determinant_sign, logarithm = slogdet(x)
    return where(determinant_sign < 0, NAN, logarithm)
