"""`@formula`: an elementwise op from a Python function of scalars."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import sympy as sp

from nncompile.dims import broadcast, same_shape
from nncompile.errors import FormulaError
from nncompile.graph import Value
from nncompile.map import mapped
from nncompile.scalars import (
    FUNCTIONS,
    LIMIT,
    Program,
    Scalar,
    compact,
    declared,
    evaluate,
    placeholder,
    trace,
)
from nncompile.types import DType, boolean, dtype_of, f64, i64
from nncompile.values import operation, register


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
        primitive: bool = False,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.slope = slope
        self.primitive = primitive
        self.name = name or function.__name__
        self.signature = inspect.signature(function)
        self._traced: dict[Any, _Traced] = {}

    def __repr__(self) -> str:
        return f"formula {self.name}{self.signature}"

    def __call__(self, *args: Any, **options: Any) -> Any:
        given = (*args, *options.values())
        if any(isinstance(x, Scalar) for x in given):
            return self._on_scalars(args, options)
        slots: list[Any] = []  # what becomes an argument of the Map, in order
        beside_values = any(isinstance(x, Value) for x in given)
        all_numbers = not any(isinstance(x, (*_TENSORS, sp.Expr)) for x in given)

        def slot(x: Any) -> Any:
            if isinstance(x, sp.Expr):
                x = operation("size_value")(x)
            elif isinstance(x, np.generic) and beside_values:
                x = x.item()
            elif all_numbers and isinstance(x, (int, float)):
                x = np.asarray(x, _number_type(given).numpy)
            if isinstance(x, _TENSORS):
                slots.append(x)
                return _Slot(len(slots) - 1)
            return x

        filled = tuple(map(slot, args)), {name: slot(x) for name, x in options.items()}
        if not slots:
            raise FormulaError(
                f"{self.name} needs a value, an array or a number, "
                f"got {', '.join(map(repr, given))}"
            )
        traced = self._trace(filled, tuple(dtype_of(x.dtype) for x in slots))
        if any(isinstance(x, Value) for x in slots):
            as_value = operation("as_value")
            return self._on_values(traced, [as_value(x) for x in slots])
        result = self._on_arrays(traced.program, slots)
        return result[()].item() if all_numbers else result

    def _on_scalars(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not self.primitive:  # its body may use an argument several times
            args = tuple(map(compact, args))
            options = {name: compact(x) for name, x in options.items()}
        result = self.function(*args, **options)
        if self.slope is None:
            return result
        arguments = [x for x in (*args, *options.values()) if isinstance(x, Scalar)]
        return declared(result, arguments, self._declared(args, options, len(arguments)))

    def _declared(
        self, args: Sequence[Any], options: Mapping[str, Any], count: int
    ) -> tuple[Any, ...]:
        """The declared derivatives at scalars, one for each of `count` arguments."""
        assert self.slope is not None  # asked for only where it is declared
        slopes = self.slope(*args, **options)
        slopes = slopes if isinstance(slopes, tuple) else (slopes,)
        if len(slopes) != count:
            raise FormulaError(
                f"the slope of {self.name} gives {len(slopes)} derivatives, "
                f"it has {count} arguments",
                hint="return a tuple with one derivative for each argument",
            )
        return slopes

    def _trace(
        self, call: tuple[tuple[Any, ...], dict[str, Any]], dtypes: tuple[DType, ...]
    ) -> _Traced:
        args, options = call
        for x in (*args, *options.values()):
            if not isinstance(x, Hashable):
                raise FormulaError(
                    f"{self.name} takes values, arrays and numbers, not {type(x).__name__}",
                    hint="np.asarray makes an array of a list",
                )
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
        count = len(dtypes)
        all_slopes = self._closed(
            lambda *args, **options: self._declared(args, options, count), call
        )

        def derivative(i: int) -> sp.Expr:
            return trace(lambda *scalars_: all_slopes(*scalars_)[i], dtypes, None).result

        return tuple(map(derivative, range(count)))

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


@overload
def formula(
    function: Callable[..., Any], *, slope: Callable[..., Any] | None = None
) -> Formula: ...
@overload
def formula(
    *, slope: Callable[..., Any] | None = None
) -> Callable[[Callable[..., Any]], Formula]: ...
def formula(
    function: Callable[..., Any] | None = None, *, slope: Callable[..., Any] | None = None
) -> Any:
    """Makes an elementwise op of a Python function of scalars.

    `slope` declares the derivative where it is not that of the formula (straight-through
    estimators): a function of the same arguments that returns it, as a tuple for several.

    >>> from nncompile.elementwise import exp
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
    made = Formula(primitive, name=name, primitive=True)
    register(name, made)
    return made


PRIMITIVES: dict[str, Formula] = {name: _define(name) for name in FUNCTIONS}


def __getattr__(name: str) -> Formula:
    """`from nncompile.formula import exp`: every scalar primitive is a formula here."""
    if name in PRIMITIVES:
        return PRIMITIVES[name]
    raise AttributeError(f"module {__name__} has no attribute {name}")
