"""Cholesky's factors, and systems of equations with triangular matrices.

As in systems.py, matrices are the last two axes, and what has no result has NaN.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import isfinite, logical_and, not_equal, where
from nncompile.ir.basic import as_value, in_single
from nncompile.ir.emitters import TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, f32, f64
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.linear_algebra.elimination import all_hold, factored, substituted
from nncompile.ops.linear_algebra.matrices import diagonal, tril, triu
from nncompile.ops.linear_algebra.systems import (
    NAN,
    OfMatrices,
    OfSystems,
    check_square,
    each,
    eye,
    guarded,
    solved,
    transposed,
)
from nncompile.ops.shape.reshape import expand_dims, moveaxis


class SolveTriangular(OfSystems, Op):
    """The solutions for the lower or upper triangle of each a, with ones for its diagonal if
    `unit`."""

    lower: bool = False
    unit: bool = False

    def pullback(self, g: Value, y: Value, a: Value, b: Value) -> Sequence[Value | None]:
        gradient = SolveTriangular(not self.lower, self.unit)(transposed(a), g)
        return self._part(-matmul(gradient, transposed(y))), gradient

    def _part(self, a: Value) -> Value:
        """What is read of a matrix."""
        k = 1 if self.unit else 0
        return tril(a, -k) if self.lower else triu(a, k)

    def composed(self, a: Value, b: Value) -> tuple[Value]:
        """The result in terms of other ops."""
        part = self._part(a)
        identity = eye(a.shape[-1], dtype=a.dtype)
        matrix = part + identity if self.unit else part
        pivots = moveaxis(diagonal(matrix, axis1=-2, axis2=-1), -1, 0)
        x = substituted(moveaxis(part, -1, 0), pivots, b, reverse=not self.lower)
        holds = logical_and(all_hold(not_equal(pivots, 0), 0), all_hold(isfinite(part), (-2, -1)))
        return self.checked(x, holds, b)

    def numpy(self, a: Array, b: Array) -> Array:
        k = 1 if self.unit else 0
        part = np.tril(a, -k) if self.lower else np.triu(a, k)
        matrix = part + np.eye(a.shape[-1], dtype=a.dtype) if self.unit else part
        x = b.copy()
        indices = range(a.shape[-1])
        for i in indices if self.lower else reversed(indices):
            x[..., i, :] /= matrix[..., i, i, None]
            later = slice(i + 1, None) if self.lower else slice(0, i)
            x[..., later, :] -= part[..., later, i, None] * x[..., i, None, :]
        holds = np.isfinite(part).all((-2, -1)) & (np.diagonal(matrix, 0, -2, -1) != 0).all(-1)
        holds = holds[..., None, None] & np.isfinite(b).all(-2, keepdims=True)
        return np.where(holds, x, b.dtype.type(np.nan))

    def torch(self, t: TorchEmitter, a: str, b: str) -> str:
        k = 1 if self.unit else 0
        part = t.tril(a, -k) if self.lower else t.triu(a, k)
        options = {"upper": not self.lower, "unitriangular": self.unit}
        x = t.call("torch.linalg.solve_triangular", part, b, **options)
        zeros = None
        if not self.unit:
            diagonals = t.call("torch.diagonal", a, 0, -2, -1)
            zeros = t.method(t.eq(diagonals, 0), "sum", -1)
        return self.checked_torch(t, x, part, b, zeros)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        for lower in (False, True):
            yield Sample(cls(lower), (f32["n", "n"], f32["n", "m"]), dominant=True)
            yield Sample(cls(lower, True), (f64["b", 3, 3], f64["b", 3, 2]), floats=(-0.5, 0.5))
        yield Sample(cls(True), (f64["b", 2, "n", "n"], f64["b", 2, "n", 1]), dominant=True)


class Cholesky(OfMatrices, Op):
    """The lower triangular L with L·Lᵀ = x for symmetric positive definite matrices x[…, n, n], of
    which the lower triangle is read; NaN for others."""

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        """I. Murray, "Differentiation of the Cholesky decomposition" (2016), (9)."""
        inner = _halved(matmul(transposed(y), tril(g)))
        solve = SolveTriangular(lower=False)
        left = solve(transposed(y), inner)
        product = transposed(solve(transposed(y), transposed(left)))
        return (_halved(product + transposed(product)),)

    def composed(self, x: Value) -> tuple[Value]:
        """The result in terms of other ops."""
        lower, squares = factored(x)
        holds = logical_and(all_hold(squares > 0, 0), all_hold(isfinite(tril(x)), (-2, -1)))
        return (where(expand_dims(holds, (-2, -1)), lower, NAN),)

    def numpy(self, x: Array) -> Array:
        return each(np.linalg.cholesky, np.empty_like(x), np.tril(x))

    def torch(self, t: TorchEmitter, x: str) -> str:
        read = t.tril(x)
        results = t.call("torch.linalg.cholesky_ex", x)
        return guarded(t, t.item(results, 0), read, t.item(results, 1))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", "n"],), dominant=True)
        yield Sample(cls(), (f64["b", 2, "n", "n"],), dominant=True)
        yield Sample(cls(), (f32["b", 3, 3],), dominant=True)


def _halved(x: Value) -> Value:
    """The lower triangle with half of the diagonal."""
    half = eye(x.shape[-1], dtype=x.dtype) * 0.5
    return tril(x) * (1 - half)


@suggests_names
@in_single
def solve_triangular(a: Any, b: Any, lower: bool = False, unit_diagonal: bool = False) -> Value:
    """The x with a·x = b for the upper or lower triangle of a[…, n, n], the rest of which is not
    read: b is a matrix […, n, m] or a vector [n]. Leading axes broadcast. Arguments are scipy's.

    NaN where the diagonal holds a zero. Raises `ShapeError` where the sizes do not fit.
    """
    return solved(SolveTriangular(bool(lower), bool(unit_diagonal)), a, b)


@suggests_names
@in_single
def cholesky(x: Any, upper: bool = False) -> Value:
    """The lower triangular L with L·Lᵀ = x (or its transpose, if `upper`) for each symmetric,
    positive definite matrix of the last two axes; NaN for one that is not positive definite. Of a
    matrix that is not symmetric it is that of (x + xᵀ)/2, so that gradients are symmetric, as
    torch's.
    """
    x = as_value(x)
    check_square(x.type)
    half = x * 0.5
    lower = Cholesky()(half + transposed(half))
    return transposed(lower) if upper else lower
