"""`Map`: every elementwise op is this one, with a sympy expression as payload; and `@formula`,
which makes one from a Python function of scalars.

The gradient of a Map is the derivative of its expression, its numpy meaning and its lowerings
are walks over it, and its print-out is mathematics.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sympy as sp

from nncompile.dims import broadcast, same_shape
from nncompile.errors import FormulaError
from nncompile.graph import Op, Value, apply
from nncompile.scalars import (
    FUNCTIONS,
    LIMIT,
    Program,
    Scalar,
    differentiate,
    dtype_of_expression,
    evaluate,
    placeholder,
    trace,
)
from nncompile.types import DType, Type, boolean, dtype_of, f64, i64
from nncompile.values import operation, register


class Map(Op):
    """`body` of `count` arguments, elementwise with broadcasting.

    `slopes` declares derivatives (one an argument) in place of those of `body`.
    """

    body: sp.Expr
    count: int
    slopes: tuple[sp.Expr, ...] | None = None

    label = "elementwise"

    def infer(self, *arguments: Type) -> Type:
        dtypes = {placeholder(i): t.dtype for i, t in enumerate(arguments)}
        return Type(
            dtype_of_expression(self.body, dtypes),
            broadcast(*(t.shape for t in arguments)),
        )

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        if not y.dtype.is_float:
            return [None] * len(args)
        return [self._slope(i, g, args) for i in range(self.count)]

    def _slope(self, i: int, g: Value, args: tuple[Value, ...]) -> Value | None:
        x = args[i]
        if not x.dtype.is_float:
            return None
        slope = self.slopes[i] if self.slopes else _derivative(self.body, i)
        if slope == 0:
            return None
        above = placeholder(self.count)
        whole = mapped(above * slope if slope != 1 else above, (*args, g))
        if whole.dtype is not x.dtype:
            whole = operation("cast")(whole, x.dtype)
        return operation("unbroadcast")(whole, x)  # type: ignore[no-any-return]

    def numpy(self, *arrays: np.ndarray) -> np.ndarray:
        values = {placeholder(i): a for i, a in enumerate(arrays)}
        return evaluate(self.body, values)

    def onnx(self, o: Any, *args: str) -> str:
        return o.formula(self.body, args)  # type: ignore[no-any-return]

    def torch(self, t: Any, *args: str) -> str:
        return t.formula(self.body, args)  # type: ignore[no-any-return]


@functools.lru_cache(maxsize=4096)
def _derivative(body: sp.Expr, i: int) -> sp.Expr:
    return differentiate(body, placeholder(i))


@functools.lru_cache(maxsize=4096)
def _canonical(
    body: sp.Expr, slopes: tuple[sp.Expr, ...] | None, order: tuple[int, ...]
) -> Map:
    """The Map of `body` with argument `i` renamed to `order[i]`."""
    renamed = {placeholder(i): placeholder(j) for i, j in enumerate(order) if i != j}
    count = max(order, default=-1) + 1
    if not renamed:
        return Map(body, count, slopes)
    if slopes is not None:
        by_place: dict[int, sp.Expr] = {}
        for i, j in enumerate(order):
            by_place[j] = by_place.get(j, sp.Integer(0)) + slopes[i].xreplace(renamed)
        slopes = tuple(by_place[j] for j in range(count))
    return Map(body.xreplace(renamed), count, slopes)


def mapped(
    body: sp.Expr, args: Sequence[Value], slopes: tuple[sp.Expr, ...] | None = None
) -> Value:
    """The Map of `body` over `args`, in canonical form: no argument twice or unused, and all in
    one order, so that `b + a` is `a + b`."""
    used = body.free_symbols.union(*(s.free_symbols for s in slopes or ()))
    distinct = {a: None for i, a in enumerate(args) if placeholder(i) in used}
    ordered = sorted(distinct, key=lambda a: a.digest)
    if len(ordered) == 1 and not slopes and body == placeholder(_index(args, ordered[0])):
        return ordered[0]
    place = {a: j for j, a in enumerate(ordered)}
    spare = len(ordered)
    order = tuple(place.get(a, spare) for a in args)
    op = _canonical(body, slopes, order)
    if op.count != len(ordered):
        op = Map(op.body, len(ordered), op.slopes)
    return apply(op, *ordered)


def _index(args: Sequence[Value], value: Value) -> int:
    return next(i for i, a in enumerate(args) if a is value)


@dataclass(frozen=True)
class _Slot:
    """Stands in a call for its argument number `index`: a value or an array."""

    index: int


@dataclass(frozen=True)
class _Traced:
    program: Program
    slopes: tuple[sp.Expr, ...] | None


class Formula:
    """A real function of scalars, applied elementwise to values, arrays and numbers.

    Python numbers in a call are literals; values and arrays broadcast by numpy's rule. Within
    another formula it is applied to that formula's scalars.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        slope: Callable[..., Any] | None = None,
        name: str | None = None,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.slope = slope
        self.name = name or function.__name__
        self.signature = inspect.signature(function)
        self._traced: dict[Any, _Traced] = {}

    def __repr__(self) -> str:
        return f"formula {self.name}{self.signature}"

    def __call__(self, *args: Any, **options: Any) -> Any:
        given = (*args, *options.values())
        if any(isinstance(x, Scalar) for x in given):
            return self.function(*args, **options)
        slots: list[Any] = []  # what becomes an argument of the Map, in order
        all_numbers = not any(isinstance(x, (*_TENSORS, sp.Expr)) for x in given)

        def slot(x: Any) -> Any:
            if isinstance(x, sp.Expr):
                x = operation("size_value")(x)
            elif all_numbers and isinstance(x, (int, float)):
                x = np.asarray(x, _number_type(given).numpy)
            if isinstance(x, _TENSORS):
                slots.append(x)
                return _Slot(len(slots) - 1)
            return x

        filled = tuple(map(slot, args)), {name: slot(x) for name, x in options.items()}
        if not slots:
            raise FormulaError(
                f"{self.name} needs a value, an array or a number, got {', '.join(map(repr, given))}"
            )
        traced = self._trace(filled, tuple(dtype_of(x.dtype) for x in slots))
        if any(isinstance(x, Value) for x in slots):
            as_value = operation("as_value")
            return self._on_values(traced, [as_value(x) for x in slots])
        result = self._on_arrays(traced.program, slots)
        return result[()].item() if all_numbers else result

    def _trace(
        self, call: tuple[tuple[Any, ...], dict[str, Any]], dtypes: tuple[DType, ...]
    ) -> _Traced:
        args, options = call
        key = (
            dtypes,
            tuple((type(x), x) for x in args),
            tuple((name, type(x), x) for name, x in options.items()),
        )
        if key not in self._traced:
            limit = None if self.slope else LIMIT
            program = trace(self._closed(self.function, call), dtypes, limit)
            self._traced[key] = _Traced(program, self._slopes(call, dtypes))
        return self._traced[key]

    def _closed(
        self, function: Callable[..., Any], call: tuple[tuple[Any, ...], dict[str, Any]]
    ) -> Callable[..., Any]:
        """The function of the slots alone, everything else of the call filled in."""
        args, options = call

        def closed(*scalars_: Any) -> Any:
            def fill(x: Any) -> Any:
                return scalars_[x.index] if isinstance(x, _Slot) else x

            return function(*map(fill, args), **{n: fill(x) for n, x in options.items()})

        return closed

    def _slopes(
        self, call: tuple[tuple[Any, ...], dict[str, Any]], dtypes: tuple[DType, ...]
    ) -> tuple[sp.Expr, ...] | None:
        """The declared derivatives as expressions, one an argument."""
        if self.slope is None:
            return None
        declared = self._closed(self.slope, call)

        def derivative(i: int) -> Callable[..., Any]:
            def function(*scalars_: Any) -> Any:
                result = declared(*scalars_)
                results = result if isinstance(result, tuple) else (result,)
                if len(results) != len(dtypes):
                    raise FormulaError(
                        f"the slope of {self.name} gives {len(results)} derivatives, "
                        f"it has {len(dtypes)} arguments",
                        hint="return a tuple with one derivative for each argument",
                    )
                return results[i]

            return function

        return tuple(trace(derivative(i), dtypes, None).result for i in range(len(dtypes)))

    def _on_values(self, traced: _Traced, values: list[Value]) -> Value:
        environment = {placeholder(i): v for i, v in enumerate(values)}

        def build(body: sp.Expr, dtype: DType) -> Value:
            slopes = traced.slopes
            free = list(environment) if slopes else sorted(body.free_symbols, key=str)
            args = [environment[s] for s in free]
            names = {s: placeholder(i) for i, s in enumerate(free) if s != placeholder(i)}
            body = body.xreplace(names)
            if not args:  # the arguments cancelled out: the number, at the common shape
                number = evaluate(body, {}, dtype)
                shape = broadcast(*(v.shape for v in values))
                return operation("full")(shape, number, dtype)  # type: ignore[no-any-return]
            return mapped(body, args, slopes)

        for symbol, body, dtype in traced.program.bindings:
            environment[symbol] = build(body, dtype)
        result = build(traced.program.result, traced.program.dtype)
        shape = broadcast(*(v.shape for v in values))
        if same_shape(result.shape, shape) is not True:  # an argument cancelled out
            result = operation("broadcast_to")(result, shape)
        return result

    def _on_arrays(self, program: Program, arrays: list[Any]) -> Any:
        environment = {placeholder(i): np.asarray(a) for i, a in enumerate(arrays)}
        for symbol, body, dtype in program.bindings:
            environment[symbol] = evaluate(body, environment, dtype)
        return evaluate(program.result, environment, program.dtype)


_TENSORS = (Value, np.ndarray, np.generic)


def _number_type(numbers: Sequence[Any]) -> DType:
    """What plain numbers are computed in: float64 where one of them is real."""
    kinds = {type(x) for x in numbers}
    return f64 if float in kinds else i64 if int in kinds else boolean


def formula(
    function: Callable[..., Any] | None = None, *, slope: Callable[..., Any] | None = None
) -> Any:
    """Makes an elementwise op of a Python function of scalars.

    `slope` declares the derivative where it is not that of the formula (straight-through
    estimators): a function of the same arguments that returns it, as a tuple for several.

    >>> @formula
    ... def swish(x, beta=1):
    ...     return x / (1 + exp(-beta * x))
    >>> round(swish(2.0), 6)
    1.761594
    """
    if function is None:
        return functools.partial(formula, slope=slope)
    return Formula(function, slope)


def _define(name: str) -> Formula:
    """The scalar primitive of that name as a formula."""
    primitive = FUNCTIONS[name]
    made = Formula(primitive, name=name)
    register(name, made)
    return made


PRIMITIVES: dict[str, Formula] = {name: _define(name) for name in FUNCTIONS}


def __getattr__(name: str) -> Formula:
    """`from nncompile.formula import exp`: every scalar primitive is a formula here."""
    if name in PRIMITIVES:
        return PRIMITIVES[name]
    raise AttributeError(f"module {__name__} has no attribute {name}")
