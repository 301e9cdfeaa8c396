"""Functions written once for every target: arithmetic on its operands in double precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nncompile.ir.types import DType, f64

Operand = Any
Function = Callable[..., Operand]


class Terms:
    """Arithmetic on a target's operands of float64 and Python numbers."""

    def __init__(self, target: Any) -> None:
        self.target = target

    def __call__(self, name: str, *args: Operand) -> Operand:
        """The result of a primitive call."""
        return self.target.call(name, f64, *map(self._operand, args))

    def _operand(self, x: Operand) -> Operand:
        return self.target.literal(x, f64) if isinstance(x, int | float) else x

    def where(self, condition: Operand, a: Operand, b: Operand) -> Operand:
        """`a` where the condition holds, else `b`."""
        return self("where", condition, a, b)

    def sum(self, *terms: Operand) -> Operand:
        """The sum of one or more terms, from left to right."""
        total, *rest = terms
        for term in rest:
            total = self("add", total, term)
        return total

    def product(self, *factors: Operand) -> Operand:
        """The product of one or more factors, from left to right."""
        total, *rest = factors
        for factor in rest:
            total = self("multiply", total, factor)
        return total

    def polynomial(self, x: Operand, coefficients: Sequence[float]) -> Operand:
        """By Horner's rule, highest power first."""
        total: Operand = coefficients[0]
        for coefficient in coefficients[1:]:
            total = self("add", self("multiply", x, total), coefficient)
        return total

    def ratio(self, x: Operand, above: Sequence[float], below: Sequence[float]) -> Operand:
        """The quotient of two polynomials."""
        return self("divide", self.polynomial(x, above), self.polynomial(x, below))

    def signed(self, x: Operand, size: Operand) -> Operand:
        """An odd function from its value at |x|; keeps NaN."""
        return self.where(self("less", x, 0.0), self("negative", size), size)


def in_double(target: Any, function: Function, dtype: DType, *args: Operand) -> Operand:
    """The function of operands of `dtype`, computed in float64: nothing is lost to cancellation
    that float32 could show."""
    if dtype is f64:
        return function(Terms(target), *args)
    wide = function(Terms(target), *(target.cast(x, dtype, f64) for x in args))
    return target.cast(wide, f64, dtype)
