"""A Python function of scalars becomes a program: one body, or several where it is long."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import FormulaError
from nncompile.elementwise.expressions import constant, placeholder
from nncompile.elementwise.idioms import canonical
from nncompile.elementwise.lowering import dtype_of_expression, operation_count
from nncompile.elementwise.printing import text
from nncompile.elementwise.splitting import cut, guarded
from nncompile.elementwise.stable_forms import stabilise
from nncompile.elementwise.sympy_functions import cast
from nncompile.elementwise.tracer import Scalar, lift, observer
from nncompile.ir.types import DType

# Operations that are looked at together, in search of naive spellings and native functions.
LIMIT = 48
# What is used several times has a name from this length on.
_SHARED_LIMIT = 8
# Bodies up to that length stay whole. Longer ones are cut into short pieces: derivatives of
# derivatives grow with the cube of the length.
_WHOLE = 16
_PIECE = 3


@dataclass(frozen=True)
class Program:
    """`bindings` name bodies, in order, for later ones and for `result`."""

    bindings: tuple[tuple[sp.Symbol, sp.Expr, DType], ...]
    result: sp.Expr
    dtype: DType


def trace(
    function: Callable[..., Any],
    dtypes: Sequence[DType],
    limit: int | None = LIMIT,
    names: Sequence[str] = (),
) -> Program:
    """The program of a function of one scalar for each of `dtypes`; errors call them `names`.

    `limit` is the most operations that are held together; with None the program has one body,
    however long. Raises `FormulaError` where the function does not give a number.
    """
    arguments = {placeholder(i): d for i, d in enumerate(dtypes)}
    tracer = _Tracer(limit, arguments, dict(zip(arguments, names, strict=False)))
    token = observer.set(tracer)
    try:
        result = function(*(Scalar(placeholder(i), d) for i, d in enumerate(dtypes)))
        if result is None or isinstance(result, (tuple, list, dict)):
            raise FormulaError(
                f"a formula must return one number, got {type(result).__name__}",
                hint="write one formula for each result",
            )
        scalar = lift(result)
    finally:
        observer.reset(token)
    return tracer.program(scalar)


class _Tracer:
    """The names that are given while a function runs."""

    def __init__(
        self,
        limit: int | None,
        dtypes: Mapping[sp.Symbol, DType],
        arguments: Mapping[sp.Symbol, str],
    ) -> None:
        self.limit = limit
        self.arguments = arguments
        self.dtypes = dict(dtypes)
        self.bodies: dict[sp.Symbol, sp.Expr] = {}
        self.names: dict[tuple[sp.Expr, DType], sp.Symbol] = {}

    def observe(self, scalar: Scalar) -> Scalar:
        return self._shortened(scalar, self.limit)

    def compact(self, scalar: Scalar) -> Scalar:
        return scalar if self.limit is None else self._shortened(scalar, _SHARED_LIMIT)

    def text(self, body: sp.Expr) -> str:
        return text(body, {**dict.fromkeys(self.bodies, "…"), **self.arguments})

    def _shortened(self, scalar: Scalar, limit: int | None) -> Scalar:
        if limit is None or scalar.weak or scalar.size <= limit:
            return scalar
        scalar.size = operation_count(scalar.expr)
        if scalar.size <= limit:
            return scalar
        return Scalar(self._name(self._finished(scalar), scalar.dtype), scalar.dtype)

    def _name(self, body: sp.Expr, dtype: DType) -> sp.Symbol:
        key = (body, dtype)
        if key not in self.names:
            symbol = sp.Symbol(f"t{len(self.bodies)}", real=True)
            self.names[key] = symbol
            self.bodies[symbol] = body
            self.dtypes[symbol] = dtype
        return self.names[key]

    def _piece(self, body: sp.Expr) -> sp.Symbol:
        return self._name(body, dtype_of_expression(body, self.dtypes))

    def _finished(self, scalar: Scalar) -> sp.Expr:
        """The expression of a scalar, of the scalar's dtype by its own parts."""
        expr = canonical(stabilise(scalar.expr))
        if self.limit is not None:
            expr = cut(expr, _PIECE if self.bodies else _WHOLE, _PIECE, self._piece)
        if constant(expr) is not None or dtype_of_expression(expr, self.dtypes) is scalar.dtype:
            return expr
        return cast(expr, scalar.dtype)

    def program(self, scalar: Scalar) -> Program:
        """The program of a result, with the names that it needs."""
        result = self._finished(scalar)
        bodies = guarded(self.bodies, result)
        bindings = tuple((s, body, self.dtypes[s]) for s, body in bodies.items())
        return Program(bindings, result, scalar.dtype)
