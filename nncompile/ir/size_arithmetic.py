"""Arithmetic of sizes: the quotient of integers, and expressions of known numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import gcd, prod
from typing import Any

import sympy as sp
from sympy.printing.precedence import PRECEDENCE

from nncompile.diagnostics.errors import ShapeError


class FloorDiv(sp.Function):
    """`a // b` for integers, in one form for equal quotients: what `b` divides stands outside,
    so that `(2*n + 3)//2` is `n + 1`, and `(n - 1)//2` is `(n + 1)//2 - 1`."""

    nargs = 2
    is_integer = True
    precedence = PRECEDENCE["Add"]  # or 2*(n//2) would print as 2*n//2

    @classmethod
    def eval(cls, a: sp.Expr, b: sp.Expr) -> sp.Expr | None:
        if b == 0:
            raise ShapeError(f"a size is divided by zero: {a}//0")
        if not b.is_Integer:
            quotient = sp.cancel(a / b)
            is_integral = quotient.is_integer and not quotient.has(sp.floor)
            terms = quotient.as_coefficients_dict().values()
            return quotient if is_integral and all(c.is_Integer for c in terms) else None
        if b < 0:
            return cls(-a, -b)
        outside, inside = _divided(sp.expand(a), b)
        if inside.is_Integer:
            return outside + int(inside) // int(b)
        if isinstance(inside, FloorDiv) and inside.args[1].is_Integer:
            inside, factor = inside.args
            return outside + cls(inside, factor * b)
        divisor = gcd(int(b), *map(int, inside.as_coefficients_dict().values()))
        if outside != 0 or divisor > 1:
            return outside + cls(sp.expand(inside / divisor), b / divisor)
        return None if inside == a else cls(inside, b)

    def _eval_is_nonnegative(self) -> bool | None:
        a, b = self.args
        return True if a.is_nonnegative and b.is_nonnegative else None

    def _sympystr(self, printer: Any) -> str:
        a, b = (printer.parenthesize(x, PRECEDENCE["Func"]) for x in self.args)
        return f"{a}//{b}"


def _divided(a: sp.Expr, b: sp.Integer) -> tuple[sp.Expr, sp.Expr]:
    """`(q, r)` with a = b·q + r, where the number in r is in [0, b) and no other factor is as
    large as b."""
    quotient, rest = sp.Integer(0), sp.Integer(0)
    for term, factor in a.as_coefficients_dict().items():
        size = abs(int(factor)) // int(b)
        multiple = int(factor) // int(b) if term == 1 else size if factor > 0 else -size
        quotient += multiple * term
        rest += (factor - multiple * b) * term
    return quotient, rest


_COMPUTED: dict[type, Callable[[list[int]], int]] = {
    sp.Add: sum,
    sp.Mul: prod,
    sp.Pow: lambda args: int(args[0] ** args[1]),
    FloorDiv: lambda args: args[0] // args[1],
    sp.Mod: lambda args: args[0] % args[1],
    sp.Max: max,
    sp.Min: min,
}


def computed(d: sp.Expr, sizes: Mapping[sp.Symbol, Any]) -> int | None:
    """The number that arithmetic of known sizes is, which sympy takes long for; None where it is
    none, or one that sympy has something to say about."""
    if isinstance(d, sp.Integer):
        return int(d.p)
    if isinstance(d, sp.Symbol):
        size = sizes.get(d)
        return size if type(size) is int else None
    compute, args = _COMPUTED.get(type(d)), []
    if compute is None:
        return None
    for argument in d.args:
        number = computed(argument, sizes)
        if number is None:
            return None
        args.append(number)
    if isinstance(d, FloorDiv | sp.Mod | sp.Pow) and args[1] <= 0:
        return None
    number = compute(args)
    return number if abs(number) < 1 << 63 else None
