"""Sums over time of what a loop's body computes: one op after the loop where there is one.

The gradient at a weight is Σ over t of aₜᵀ·bₜ, which is one product of the stacked a and b, over
time and rows together; that at a bias is one sum. What is neither is carried along and added up.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

from nncompile.elementwise.map import body_of, is_plain
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.basic import Cast, cast, size_value
from nncompile.ir.dims import Dim, product
from nncompile.ir.op import Value
from nncompile.ops.contraction.gemm import Gemm, gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.shape.reshape import Reshape, Transpose, reshape, transpose

# Given what the loop stacked and what it carried to the end, and a value outside as it is there.
SumState = Callable[["Results"], Value]


class Results:
    """What a loop made of the values that sums need: their stacks and their totals; and `outer`,
    which gives what is the same in every iteration as it is outside."""

    def __init__(
        self,
        stacks: Sequence[Value],
        totals: Sequence[Value],
        outer: Callable[[Value], Value],
    ) -> None:
        self.stacks = stacks
        self.totals = totals
        self.outer = outer


class Sums:
    """Sums over the iterations of a loop of `length`, in whose body `inner` are the values that
    differ between them. `stacked` and `carried` are what the loop has to stack and to add up."""

    def __init__(self, inner: Collection[Value], length: Dim) -> None:
        self.inner = inner
        self.length = length
        self.stacked: list[Value] = []
        self.carried: list[Value] = []
        self._indices: dict[Value, int] = {}

    def of(self, value: Value) -> SumState:
        """The sum over time of a value of the body."""
        terms = [self._term(v, number) for v, number in _terms(value, self.inner)]

        def total(results: Results) -> Value:
            values = [term(results) for term in terms]
            result = values[0]
            for other in values[1:]:
                result = result + other
            return result

        return total

    def _term(self, v: Value, number: float) -> SumState:
        term = self._state(v)
        return term if number == 1 else lambda results: term(results) * number

    def _state(self, v: Value) -> SumState:
        op: Any = v.op
        if v not in self.inner:
            return lambda results: results.outer(v) * size_value(self.length, v.dtype)
        if isinstance(op, Reshape):
            inner = self.of(v.args[0])
            return lambda results: reshape(inner(results), v.shape)
        if isinstance(op, Transpose):
            inner = self.of(v.args[0])
            return lambda results: transpose(inner(results), op.axes)
        if isinstance(op, Cast) and v.args[0].dtype.is_float:
            inner = self.of(v.args[0])
            return lambda results: cast(inner(results), v.dtype)
        if isinstance(op, Sum) and v.args[0] in self.inner:
            stack = self._stack(v.args[0])
            axes = (0, *(i + 1 for i in op.axes))
            return lambda results: reshape(Sum(axes)(stack(results)), v.shape)
        if isinstance(op, Gemm | MatMul) and len(v.args) == 2 and v.rank == 2:
            return self._product(v)
        self.carried.append(v)
        index = len(self.carried) - 1
        return lambda results: results.totals[index]

    def _product(self, v: Value) -> SumState:
        a, b = v.args
        op = v.op if isinstance(v.op, Gemm) else Gemm()
        if a not in self.inner:
            right = self.of(b)
            return lambda results: op(results.outer(a), right(results))
        if b not in self.inner:
            left = self.of(a)
            return lambda results: op(left(results), results.outer(b))
        stacks = self._stack(a), self._stack(b)

        def contracted(results: Results) -> Value:
            # Rows of the inner axis, of all times one below the other: [time·inner, outer].
            x = _rows(stacks[0](results), 1 if op.transpose_a else 2)
            y = _rows(stacks[1](results), 2 if op.transpose_b else 1)
            return gemm(x, y, transpose_a=True, alpha=op.alpha)

        return contracted

    def _stack(self, v: Value) -> SumState:
        if v not in self._indices:
            self._indices[v] = len(self.stacked)
            self.stacked.append(v)
        index = self._indices[v]
        return lambda results: results.stacks[index]


def _rows(stack: Value, inner: int) -> Value:
    """A stack of matrices as one matrix, whose rows go along time and the axis `inner`."""
    stack = stack if inner == 1 else transpose(stack, (0, 2, 1))
    return reshape(stack, (product(stack.shape[:2]), stack.shape[2]))


def _terms(value: Value, inner: Collection[Value]) -> list[tuple[Value, float]]:
    """A sum of values with numbers as factors, taken apart."""
    terms: list[tuple[Value, float]] = []
    pending = [(value, 1.0)]
    while pending:
        v, number = pending.pop()
        parts = _linear(v) if v in inner else None
        if parts is None:
            terms.append((v, number))
        else:
            pending += [(a, number * factor) for a, factor in parts]
    return terms


def _linear(v: Value) -> list[tuple[Value, float]] | None:
    """The arguments of an elementwise sum, with their factors; None for another op."""
    if not is_plain(v) or any(a.type != v.type for a in v.args):
        return None
    body, parts = body_of(v), []
    for i, a in enumerate(v.args):
        factor = body.coeff(placeholder(i))
        if not factor.is_Rational or factor == 0:
            return None
        body = body - factor * placeholder(i)
        parts.append((a, float(factor)))
    return parts if body == 0 else None
