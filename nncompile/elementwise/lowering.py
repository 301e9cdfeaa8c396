"""One interpreter of bodies, for every target: numpy, ONNX, TorchScript.

A body is made of symbols (`placeholder(i)` is argument number i), exact rationals, `Add`, `Mul`,
`Pow` with integer exponents, and the heads of `sympy_functions.py`, which sympy never evaluates.
`walk(body, leaves, dtypes, target)` gives it every other form; a target has three methods:

- `target.call(name, dtype, *args)`: an operation of `PRIMITIVE_CALLS` (see `primitives.py`: the
  whole list, with arities). `dtype` is what it computes in, the type of its operands: the result is
  bool for `isnan isinf less less_equal equal not_equal` and of that dtype for all others; for
  `where(condition, a, b)` it is the type of `a` and `b`;
- `target.literal(number, dtype)`: a Python float, int or bool (inf and nan too) of that dtype;
- `target.cast(x, source, dtype)`: as numpy's `astype`: to integers towards zero, to bool `x != 0`.

The names of calls:
    add subtract multiply negative abs sign maximum minimum power mod floor_divide
    divide sqrt exp expm1 log log1p sin cos tan arcsin arccos arctan arctan2 sinh cosh tanh
    arcsinh arccosh arctanh erf erfc erfinv lgamma digamma sigmoid gate softplus relu floor ceil
    round trunc isnan isinf less less_equal equal not_equal logical_and logical_or logical_xor
    logical_not bitwise_and bitwise_or bitwise_xor invert left_shift right_shift where
    stop_gradient
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache, reduce
from typing import Any, NamedTuple, Protocol

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import DTypeError
from nncompile.elementwise.expressions import Head, constant
from nncompile.elementwise.sympy_functions import TARGETS
from nncompile.ir.types import DType, boolean, f32, promote


class Target(Protocol):
    """What a body is turned into: a graph, a program text, arrays."""

    def call(self, name: str, dtype: DType, /, *args: Any) -> Any: ...

    def literal(self, number: float, dtype: DType, /) -> Any: ...

    def cast(self, x: Any, source: DType, dtype: DType, /) -> Any: ...


def operation_count(body: sp.Expr) -> int:
    """The number of operations of a body, each occurrence counted."""
    if not body.args:
        return 0
    count = len(body.args) - 1 if body.is_Add or body.is_Mul else 1
    return count + sum(map(operation_count, body.args))


class _Types:
    """The dtype of every part of a body; None for parts made of literals, which take the dtype of
    what they are combined with. With `computed` it is the one that the part is computed in."""

    def __init__(self, dtypes: Mapping[sp.Symbol, DType], computed: bool = False) -> None:
        self.known: dict[sp.Expr, DType | None] = dict(dtypes)
        self.computed = computed
        if computed:
            self.known = {s: dtype.computed for s, dtype in dtypes.items()}

    def of(self, body: sp.Expr) -> DType | None:
        if body not in self.known:
            self.known[body] = self._infer(body)
        return self.known[body]

    def _infer(self, body: sp.Expr) -> DType | None:
        if isinstance(body, Head):
            meaning = body.meaning
            if meaning.result is not None:
                return meaning.result.computed if self.computed else meaning.result
            return self.common(body.args[meaning.conditions :])
        if body.is_Pow:
            return self.of(body.base)
        if body.is_Symbol:
            raise DTypeError(f"the formula has no argument {body}")
        return self.common(body.args)

    def common(self, bodies: tuple[sp.Expr, ...]) -> DType | None:
        dtypes = [d for d in map(self.of, bodies) if d is not None]
        return reduce(promote, dtypes) if dtypes else None


def dtype_of_expression(body: sp.Expr, dtypes: Mapping[sp.Symbol, DType]) -> DType:
    """The dtype of a body for those of its symbols; float32 where all of it is literals."""
    return _inferred(body, tuple(dtypes.items()))


@lru_cache(maxsize=16384)
def _inferred(body: sp.Expr, dtypes: _Dtypes) -> DType:
    return _Types(dict(dtypes)).of(body) or f32


def walk(
    body: sp.Expr,
    leaves: Mapping[sp.Symbol, Any],
    dtypes: Mapping[sp.Symbol, DType],
    target: Target,
    dtype: DType | None = None,
) -> Any:
    """The body in the target's terms, with `leaves` in place of its symbols.

    Equal parts are visited once. The result is of `dtype` where that is given, or of the dtype of
    the body. Floats of 16 bits are computed in float32: what is rounded to them is the result, and
    what the body converts to them.
    """
    steps, place = _recorded(body, tuple(dtypes.items()), dtype)
    results: list[Any] = []
    for step in steps:
        if step.name:
            made = target.call(step.name, step.dtype, *[results[i] for i in step.operands])
        elif step.source is not None:
            made = target.cast(results[step.operands[0]], step.source, step.dtype)
        elif step.symbol is not None:
            made = leaves[step.symbol]
        else:
            made = target.literal(step.number, step.dtype)
        results.append(made)
    return results[place]


_Dtypes = tuple[tuple[sp.Symbol, DType], ...]


class _Step(NamedTuple):
    """What a target is asked for: a call by `name`, a cast of `source`, a leaf or a literal, on
    results of earlier steps."""

    dtype: DType
    operands: tuple[int, ...] = ()
    name: str = ""
    source: DType | None = None
    symbol: sp.Symbol | None = None
    number: Any = None


@lru_cache(maxsize=8192)
def _recorded(body: sp.Expr, dtypes: _Dtypes, dtype: DType | None) -> tuple[tuple[_Step, ...], int]:
    """What a walk over the body asks of any target, and which step gives its result. A program
    applies few formulas, many times."""
    declared = dict(dtypes)
    dtype = dtype or dtype_of_expression(body, declared)
    recorder = _Recorder()
    result = _Walker(declared, recorder).visit(body, dtype.computed)
    if dtype.is_half:
        result = recorder.cast(result, f32, dtype)
    return tuple(recorder.steps), result


class _Recorder:
    """The target whose results are the places of the steps that it is asked for."""

    def __init__(self) -> None:
        self.steps: list[_Step] = []

    def _add(self, step: _Step) -> int:
        self.steps.append(step)
        return len(self.steps) - 1

    def leaf(self, symbol: sp.Symbol, dtype: DType) -> int:
        return self._add(_Step(dtype, symbol=symbol))

    def call(self, name: str, dtype: DType, /, *args: int) -> int:
        return self._add(_Step(dtype, args, name))

    def literal(self, number: float, dtype: DType, /) -> int:
        return self._add(_Step(dtype, number=number))

    def cast(self, x: int, source: DType, dtype: DType, /) -> int:
        return self._add(_Step(dtype, (x,), source=source))


class _Walker:
    def __init__(self, dtypes: Mapping[sp.Symbol, DType], target: _Recorder) -> None:
        self.target = target
        self.declared = dtypes
        self.types = _Types(dtypes, computed=True)
        self.results: dict[tuple[sp.Expr, DType], Any] = {}

    def visit(self, body: sp.Expr, dtype: DType) -> Any:
        """The body, as `dtype`."""
        key = (body, dtype)
        if key not in self.results:
            source = self.types.of(body) or dtype
            if source is dtype:
                self.results[key] = self._emit(body, dtype)
            else:
                self.results[key] = self.target.cast(self.visit(body, source), source, dtype)
        return self.results[key]

    def _emit(self, body: sp.Expr, dtype: DType) -> Any:
        if body in self.declared:
            source = self.declared[body]
            leaf = self.target.leaf(body, source)
            return self.target.cast(leaf, source, f32) if source.is_half else leaf
        value = constant(body)
        if value is not None:
            return self._literal(value, dtype)
        if isinstance(body, Head):
            return self._head(body, dtype)
        if body.is_Add:
            return self._sum(body, dtype)
        return self._product(body, dtype)

    def _call(self, name: str, dtype: DType, *args: Any) -> Any:
        return self.target.call(name, dtype, *args)

    def _literal(self, value: Any, dtype: DType) -> Any:
        return self.target.literal(nearest(value, dtype), dtype)

    def _head(self, body: Head, dtype: DType) -> Any:
        meaning = body.meaning
        if meaning.expansion is not None:
            return self.visit(meaning.expansion(*body.args), dtype)
        if type(body) in TARGETS:
            return self._conversion(body.args[0], TARGETS[type(body)], dtype)
        operands = body.args[meaning.conditions :]
        inner = dtype
        if meaning.result is not None:
            inner = boolean if not operands else self.types.common(operands) or f32
        args = [self.visit(x, boolean) for x in body.args[: meaning.conditions]]
        args += [self.visit(x, inner) for x in operands]
        assert meaning.call is not None  # a head has a call or an expansion
        return self._call(meaning.call, inner, *args)

    def _conversion(self, x: sp.Expr, target: DType, dtype: DType) -> Any:
        """`x` as the dtype `target`, in the one that this is computed in."""
        source = self.types.of(x) or dtype
        result = self.visit(x, source)
        if target.is_half:
            return self.target.cast(self.target.cast(result, source, target), target, dtype)
        return result if source is dtype else self.target.cast(result, source, dtype)

    def _sum(self, body: sp.Expr, dtype: DType) -> Any:
        """Terms are added in order, those with a negative coefficient are subtracted."""
        coefficients = {abs(term.as_coeff_Mul()[0]) for term in body.args}
        if len(coefficients) == 1 and coefficients != {1}:  # sympy writes c·(x + y) as c·x + c·y
            (common,) = coefficients
            inner = sp.Add(*(term / common for term in body.args))
            return self._scaled(self.visit(inner, dtype), common, dtype)
        terms: list[sp.Expr] = []
        subtracted: list[sp.Expr] = []
        for term in body.args:
            negative = term.as_coeff_Mul()[0].is_negative
            (subtracted if negative else terms).append(-term if negative else term)
        terms.sort(key=_is_literal)  # literals last: x + 1
        first = self.visit(terms.pop(0), dtype) if terms else None
        for term in terms:
            first = self._call("add", dtype, first, self.visit(term, dtype))
        if first is None:
            subtracted.sort(key=_is_literal, reverse=True)
            first = self.visit(-subtracted.pop(0), dtype)
        for term in subtracted:
            first = self._call("subtract", dtype, first, self.visit(term, dtype))
        return first

    def _product(self, body: sp.Expr, dtype: DType) -> Any:
        coefficient, rest = body.as_coeff_Mul()
        above = below = None
        for factor in sp.Mul.make_args(rest):
            base, exponent = factor.as_base_exp() if factor.is_Pow else (factor, 1)
            part = self._power(base, abs(int(exponent)), dtype)
            if exponent > 0:
                above = part if above is None else self._call("multiply", dtype, above, part)
            else:
                below = part if below is None else self._call("multiply", dtype, below, part)
        if above is None:
            above = self._literal(coefficient, dtype)
        else:
            above = self._scaled(above, coefficient, dtype)
        return above if below is None else self._call("divide", dtype, above, below)

    def _scaled(self, x: Any, coefficient: sp.Rational, dtype: DType) -> Any:
        """`x` times the number, or divided by its inverse where only that one is exact."""
        if coefficient == 1:
            return x
        if coefficient == -1:
            return self._call("negative", dtype, x)
        inverse = dtype.is_float and not _is_exact(coefficient, dtype)
        if inverse and _is_exact(1 / coefficient, dtype):
            return self._call("divide", dtype, x, self._literal(1 / coefficient, dtype))
        return self._call("multiply", dtype, x, self._literal(coefficient, dtype))

    def _power(self, base: sp.Expr, exponent: int, dtype: DType) -> Any:
        """By squaring; halves are shared by every power of that base."""
        if exponent == 1:
            return self.visit(base, dtype)
        key = (base**exponent, dtype)
        if key not in self.results:
            half = self._power(base, exponent // 2, dtype)
            square = self._call("multiply", dtype, half, half)
            if exponent % 2:
                square = self._call("multiply", dtype, square, self.visit(base, dtype))
            self.results[key] = square
        return self.results[key]


def _is_literal(term: sp.Expr) -> bool:
    return constant(term) is not None


def nearest(value: Any, dtype: DType) -> float:
    """The number of that dtype that is nearest to a literal, as a Python number.

    Raises `DTypeError` where an integer type cannot hold it.
    """
    if dtype.is_bool:
        return bool(value)
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        if value != value or not limits.min <= value <= limits.max or value != int(value):
            raise DTypeError(f"{dtype} cannot hold {value}")
        return int(value)
    if isinstance(value, float):
        return value
    try:
        double = value.p / value.q  # correctly rounded, also where p and q overflow
    except OverflowError:
        double = math.inf if value > 0 else -math.inf
    with np.errstate(over="ignore"):
        return float(dtype.numpy.type(double))


def _is_exact(value: sp.Rational, dtype: DType) -> bool:
    rounded = nearest(value, dtype)
    return math.isfinite(rounded) and sp.Rational(rounded) == value
