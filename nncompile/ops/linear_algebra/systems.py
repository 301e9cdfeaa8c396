"""Systems of linear equations and inverses of square matrices.

All take the last two axes for the matrix, and leading ones for batches. A matrix of float32 is
computed in float32, as numpy and torch do. A singular matrix, whose elimination meets a pivot that
is exactly zero, has NaN for its inverse and its solutions, the determinant 0 and the logarithm −∞;
one that holds NaN or an infinity has NaN for everything.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import equal, isfinite, logical_and, not_equal, where
from nncompile.ir.basic import as_value, cast, in_single
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import broadcast, product, same, same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, DType, Type, f32, f64
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.contraction.operands import promoted
from nncompile.ops.core.composition import composed_onnx
from nncompile.ops.core.counting import iota
from nncompile.ops.linear_algebra.elimination import all_hold, eliminated, substituted
from nncompile.ops.shape.reshape import expand_dims, moveaxis, reshape, squeeze, swapaxes

NAN = float("nan")


def check_square(x: Type) -> None:
    """Raises where `x` has no square matrices of float32 or float64."""
    if x.rank < 2 or same(x.shape[-1], x.shape[-2]) is not True:
        raise ShapeError(f"the last two axes must be a square matrix, got {x}")
    if x.dtype not in (f32, f64):
        raise DTypeError(f"elements must be f32 or f64, got {x}", hint="x.astype(f32) converts")


def matrix_by_matrix(op: Op, row_axes: Sequence[int | None], *types: Type) -> int | None:
    """`Op.rowwise` of an op that computes something of each matrix."""
    (axis,) = row_axes
    return axis if axis is not None and axis < types[0].rank - 2 else None


def transposed(x: Value) -> Value:
    """The transpose of each matrix, its last two axes."""
    return swapaxes(x, -1, -2)


def each(function: Callable[..., Array], result: Array, *matrices: Array) -> Array:
    """`result` filled with the function of each matrix of a batch: NaN where numpy refuses one, or
    where one holds what is no number."""
    result[...] = np.nan
    for index in np.ndindex(matrices[0].shape[:-2]):
        arguments = [x[index] for x in matrices]
        if np.isfinite(arguments[0]).all():
            try:
                result[index] = function(*arguments)
            except np.linalg.LinAlgError:
                continue
    return result


def guarded(t: TorchEmitter, x: str, a: str, info: str | None = None, axes: int = 2) -> str:
    """A result of torch, of so many axes for each matrix of `a`: NaN where that is not finite or
    `info` is not 0."""
    holds = t.call("torch.isfinite", a)
    holds = t.method(t.method(holds, "all", -1), "all", -1)
    if info is not None:
        holds = t.logical_and(holds, t.eq(info, 0))
    for _ in range(axes):
        holds = t.method(holds, "unsqueeze", -1)
    return t.where(holds, x, NAN)


class OfMatrices:
    """What ops say alike that make a matrix of each square matrix x[…, n, n]."""

    composed: Callable[..., Sequence[Value]]

    def infer(self, x: Type) -> Type:
        """The same type."""
        check_square(x)
        return x

    rowwise = matrix_by_matrix

    def onnx(self, o: OnnxEmitter, x: str) -> str:
        """What the op is composed of."""
        return x if o.type.shape[-1] == 0 else composed_onnx(o, self.composed, x)[0]


class OfSystems:
    """What ops say alike that make the x[…, n, m] of each system a·x = b with a[…, n, n]; NaN in
    the columns of b that are not finite."""

    composed: Callable[..., Sequence[Value]]

    def infer(self, a: Type, b: Type) -> Type:
        """The type of b."""
        check_square(a)
        if a.dtype is not b.dtype:
            raise DTypeError(f"element types differ, {a.dtype} ≠ {b.dtype}")
        if same_shape(a.shape[:-1], b.shape[:-1]) is not True:
            raise ShapeError(f"{a} and {b} are not a system of equations")
        return b

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        """Each system is apart, and each column of the right side."""
        left, right = row_axes
        leading = left == right and right is not None and right < types[1].rank - 2
        return right if leading or (left, right) == (None, types[1].rank - 1) else None

    def onnx(self, o: OnnxEmitter, a: str, b: str) -> str:
        """What the op is composed of."""
        return b if o.types[0].shape[-1] == 0 else composed_onnx(o, self.composed, a, b)[0]

    @staticmethod
    def checked(x: Value, holds: Value, b: Value) -> tuple[Value]:
        """x where its matrix `holds` and its column of b is finite, and NaN elsewhere."""
        columns = expand_dims(all_hold(isfinite(b), -2), -2)
        return (where(logical_and(expand_dims(holds, (-2, -1)), columns), x, NAN),)

    @staticmethod
    def checked_torch(t: TorchEmitter, x: str, a: str, b: str, info: str | None) -> str:
        """The same of a result of torch, where `info` says what does not hold of a matrix."""
        finite = t.method(t.call("torch.isfinite", b), "all", -2, keepdim=True)
        return t.where(finite, guarded(t, x, a, info), NAN)


class Solve(OfSystems, Op):
    """The solutions for matrices a."""

    def pullback(self, g: Value, y: Value, a: Value, b: Value) -> Sequence[Value | None]:
        gradient = Solve()(transposed(a), g)
        return -matmul(gradient, transposed(y)), gradient

    def composed(self, a: Value, b: Value) -> tuple[Value]:
        """The result in terms of other ops: elimination, then substitution."""
        pivots, _, rows, right = eliminated(a, b)
        x = substituted(swapaxes(rows, 0, -1), pivots, moveaxis(right, 0, -2), reverse=True)
        holds = logical_and(all_hold(not_equal(pivots, 0), 0), all_hold(isfinite(a), (-2, -1)))
        return self.checked(x, holds, b)

    def numpy(self, a: Array, b: Array) -> Array:
        finite = np.isfinite(b).all(-2, keepdims=True)
        x = each(np.linalg.solve, np.empty_like(b), a, np.where(finite, b, 0))
        return np.where(finite, x, b.dtype.type(np.nan))

    def torch(self, t: TorchEmitter, a: str, b: str) -> str:
        results = t.call("torch.linalg.solve_ex", a, b)
        return self.checked_torch(t, t.item(results, 0), a, b, t.item(results, 1))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", "n"], f32["n", "m"]), dominant=True)
        yield Sample(cls(), (f32["b", 3, 3], f32["b", 3, 1]), dominant=True)
        yield Sample(cls(), (f64["b", 2, "n", "n"], f64["b", 2, "n", 2]), dominant=True)
        yield Sample(cls(), (f64["b", 3, 3], f64["b", 3, 2]))  # rows change places


class Inverse(OfMatrices, Op):
    """The inverse of each matrix x[…, n, n]."""

    def pullback(self, g: Value, y: Value, x: Value) -> Sequence[Value | None]:
        y = transposed(y)
        return (-matmul(matmul(y, g), y),)

    def composed(self, x: Value) -> tuple[Value]:
        """The solution for the columns of the identity."""
        return Solve().composed(x, broadcast_to(eye(x.shape[-1], dtype=x.dtype), x.shape))

    def numpy(self, x: Array) -> Array:
        return each(np.linalg.inv, np.empty_like(x), x)

    def torch(self, t: TorchEmitter, x: str) -> str:
        results = t.call("torch.linalg.inv_ex", x)
        return guarded(t, t.item(results, 0), x, t.item(results, 1))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", "n"],), dominant=True)
        yield Sample(cls(), (f64["b", 2, 3, 3],), dominant=True)
        yield Sample(cls(), (f64["b", 4, 4],))


@suggests_names
def eye(n: Any, m: Any = None, k: int = 0, dtype: DType = f32) -> Value:
    """Ones on the k-th diagonal of an [n, m] matrix (square without m), zeros elsewhere."""
    rows, columns = iota(n), iota(n if m is None else m)
    return cast(equal(expand_dims(rows, 1) + operator.index(k), columns), dtype)


@suggests_names
@in_single
def solve(a: Any, b: Any) -> Value:
    """The x with a·x = b: a[…, n, n] with b[…, n, m], or with a vector b[n]. Leading axes
    broadcast.

    NaN where the matrix is singular. Raises `ShapeError` where the sizes do not fit.

    >>> from nncompile.ir.basic import const
    >>> solve(const([[2.0, 0.0], [1.0, 1.0]]), const([2.0, 3.0]))
    <reshape : f32[2]>
    """
    return solved(Solve(), a, b)


def solved(op: Op, a: Any, b: Any) -> Value:
    """What an op on a[…, n, n] and b[…, n, m] gives for a vector b[n], and for leading axes that
    broadcast."""
    a, b = promoted(a, b)
    check_square(a.type)
    if b.rank == 1:
        return squeeze(solved(op, a, expand_dims(b, 1)), -1)
    if a.rank == 2 and b.rank > 2:  # one matrix for all: they are its columns
        rows = moveaxis(b, -2, 0)
        columns = op(a, reshape(rows, (b.shape[-2], product((*b.shape[:-2], b.shape[-1])))))
        return moveaxis(reshape(columns, rows.shape), 0, -2)
    leading = broadcast(a.shape[:-2], b.shape[:-2])
    a = broadcast_to(a, (*leading, *a.shape[-2:]))
    return op(a, broadcast_to(b, (*leading, *b.shape[-2:])))


@suggests_names
@in_single
def inv(x: Any) -> Value:
    """The inverse of each matrix of the last two axes; NaN of a singular one. To solve equations,
    `solve(a, b)` is faster than `inv(a) @ b` and nearer."""
    return Inverse()(as_value(x))


@suggests_names
@in_single
def matrix_power(x: Any, n: int) -> Value:
    """Each matrix of the last two axes to a whole power: the identity to 0, powers of the inverse
    below."""
    x = as_value(x)
    check_square(x.type)
    exponent = operator.index(n)
    if exponent == 0:
        return broadcast_to(eye(x.shape[-1], dtype=x.dtype), x.shape)
    square, left = (inv(x) if exponent < 0 else x), abs(exponent)
    result: Value | None = None
    while left:
        if left % 2:
            result = square if result is None else matmul(result, square)
        left //= 2
        square = matmul(square, square) if left else square
    assert result is not None  # the exponent is not 0
    return result
