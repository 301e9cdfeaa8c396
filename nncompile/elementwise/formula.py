"""`@formula`: an elementwise op from a Python function of scalars."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import CompileError, FormulaError, ShapeError
from nncompile.diagnostics.hints import foreign_name, suggests_names
from nncompile.diagnostics.kinds import shown
from nncompile.elementwise.expressions import symbols_of
from nncompile.elementwise.functions import declared
from nncompile.elementwise.map import mapped
from nncompile.elementwise.numpy_target import evaluate
from nncompile.elementwise.special_functions import FUNCTIONS
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.elementwise.trace_formula import LIMIT, Program, trace
from nncompile.elementwise.tracer import Scalar, compact
from nncompile.ir.basic import as_value, size_value
from nncompile.ir.broadcasting import broadcast_to, fitted, full, repeated
from nncompile.ir.dims import Shape, broadcast, is_clipped, is_one_of, same_shape
from nncompile.ir.dispatch import register
from nncompile.ir.op import Value, described
from nncompile.ir.types import DType, boolean, check_unmasked, dtype_of, f32, f64, i64


@dataclass(frozen=True, eq=False)  # each is one object
class _Slot:
    """Stands in a call for its argument number `index`: a value or an array."""

    index: int


_slot = functools.cache(_Slot)
Call = tuple[tuple[Any, ...], dict[str, Any]]  # arguments by position and by name


class Formula:
    """A real function of scalars, applied elementwise to values, arrays and numbers.

    Python numbers in a call are literals; values and arrays broadcast by numpy's rule. Within
    another formula it is applied to that formula's scalars.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        derivative: Callable[..., Any] | None = None,
        name: str | None = None,
        primitive: bool = False,
        literals: int = 0,
    ) -> None:
        functools.update_wrapper(self, function)
        self.function = function
        self.derivative = derivative
        self.primitive = primitive
        self.literals = literals  # leading arguments that are Python numbers always
        self.name = name or getattr(function, "__name__", type(function).__name__)
        self.signature = inspect.signature(function)
        self._programs: dict[Any, Program] = {}
        self._declared_derivatives: dict[Any, tuple[sp.Expr, ...]] = {}

    def __repr__(self) -> str:
        return f"formula {self.name}{self.signature}"

    @overload
    def __call__(self, x: Value, /, *args: Any, **options: Any) -> Value: ...
    @overload
    def __call__(self, x: Any, y: Value, /, *args: Any, **options: Any) -> Value: ...
    @overload
    def __call__(self, x: Any, y: Any, z: Value, /, *args: Any, **options: Any) -> Value: ...
    @overload
    def __call__(self, x: Scalar, /, *args: Any, **options: Any) -> Scalar: ...
    @overload
    def __call__(self, x: Any, y: Scalar, /, *args: Any, **options: Any) -> Scalar: ...
    @overload
    def __call__(self, *args: Any, **options: Any) -> Any: ...
    def __call__(self, *args: Any, **options: Any) -> Any:
        values = (*args, *options.values())
        kinds = {type(x) for x in values}
        if Scalar in kinds:
            return self._on_scalars(args, options)
        beside_values = Value in kinds
        if not beside_values and not any(isinstance(x, _TENSORS_OR_SIZES) for x in values):
            return self._on_numbers(args, options)
        slots: list[Any] = []  # what becomes an argument of the Map, in order

        def slot(x: Any) -> Any:
            if isinstance(x, sp.Expr):
                x = size_value(x)
            elif isinstance(x, np.generic) and beside_values:
                x = x.item()
            if isinstance(x, _TENSORS):
                slots.append(x)
                return _slot(len(slots) - 1)
            return x

        call = tuple([slot(x) for x in args]), {name: slot(x) for name, x in options.items()}
        if beside_values or any(isinstance(x, Value) for x in slots):
            return self._on_values(call, _repeated([as_value(x) for x in slots]))
        program = self._trace(call, tuple(dtype_of(x.dtype) for x in slots))
        return _computed(program, slots)

    def _on_numbers(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """The result as a Python number: reals are computed in float64. The first number that may
        be an argument of the formula is one, all others are literals (or options)."""
        values = (*args, *options.values())
        index = self.literals
        first = values[index] if len(values) > index else None
        if not isinstance(first, bool | int | float):
            raise FormulaError(
                f"{self.name} needs a value, an array or a number, "
                f"got {', '.join(map(repr, values)) or 'nothing'}"
            )
        dtype = boolean if isinstance(first, bool) else _number_type(values)
        slot = _slot(0)
        if len(args) > index:
            call = (*args[:index], slot, *args[index + 1 :]), options
        else:
            call = args, {**options, list(options)[index - len(args)]: slot}
        program = self._trace(call, (dtype,))
        if program.dtype is f32 and dtype is i64:
            dtype = f64  # integers that become real
            program = self._trace(call, (dtype,))
        result = _computed(program, [np.asarray(first, dtype.numpy)], f64)
        return result[()].item()

    def _on_scalars(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        if not self.primitive:  # its body may use an argument several times
            args = tuple(map(compact, args))
            options = {name: compact(x) for name, x in options.items()}
        result = self.function(*args, **options)
        if self.derivative is None:
            return result
        arguments = [x for x in (*args, *options.values()) if isinstance(x, Scalar)]
        return declared(result, arguments, self._declared(args, options, len(arguments)))

    def _declared(
        self, args: Sequence[Any], options: Mapping[str, Any], count: int
    ) -> tuple[Any, ...]:
        """The declared derivatives at scalars, one for each of `count` arguments."""
        assert self.derivative is not None  # asked for only where it is declared
        derivatives = self.derivative(*args, **options)
        derivatives = derivatives if isinstance(derivatives, tuple) else (derivatives,)
        values = (*args, *options.values())
        if len(derivatives) == len(values):  # those at literals are not asked for
            derivatives = tuple(
                d for d, x in zip(derivatives, values, strict=True) if isinstance(x, Scalar)
            )
        if len(derivatives) != count:
            raise FormulaError(
                f"the derivative of {self.name} returns {len(derivatives)} derivatives, "
                f"but it has {count} arguments",
                hint="return a tuple with one derivative for each argument",
            )
        return derivatives

    def _names(self, call: Call) -> list[str]:
        """What the arguments are called: as the formula's parameters, or `left` and `right`."""
        args, options = call
        kinds = self.signature.parameters.values()
        names = [p.name for p in kinds if p.kind is not p.VAR_POSITIONAL][: len(args)]
        if self.primitive and len(args) == 2 and names in ([], ["x", "y"]):
            names = ["left", "right"]
        names += [f"argument {i}" for i in range(len(names), len(args))]
        named = (*zip(names, args, strict=True), *options.items())
        return [name for name, x in named if isinstance(x, _Slot)]

    def _key(self, call: Call, dtypes: tuple[DType, ...]) -> Any:
        args, options = call
        key = (
            dtypes,
            tuple([(type(x), x) for x in args]),
            tuple([(name, type(x), x) for name, x in options.items()]),
        )
        try:
            hash(key)
        except TypeError:
            kinds = [type(x) for x in (*args, *options.values())]
            unknown = next((k for k in kinds if not issubclass(k, Hashable)), tuple)
            raise FormulaError(
                f"{self.name} takes values, arrays and numbers, not {unknown.__name__}",
                hint="np.asarray turns a list into an array",
            ) from None
        return key

    def _trace(self, call: Call, dtypes: tuple[DType, ...]) -> Program:
        """The program of the formula for arguments of those dtypes."""
        key = self._key(call, dtypes)
        program = self._programs.get(key)
        if program is None:
            self._check_arguments(call)
            limit = None if self.derivative else LIMIT
            function = self._closed(self.function, call)
            try:
                program = trace(function, dtypes, limit, self._names(call))
            except CompileError:
                raise
            except (TypeError, ValueError, AttributeError):
                self._check_kinds(call)
                raise  # of the formula itself
            self._programs[key] = program
        return program

    def _check_kinds(self, call: Call) -> None:
        """Raises `FormulaError` where an argument is nothing that a formula computes with."""
        args, options = call
        for name, x in self.signature.bind(*args, **options).arguments.items():
            plain = isinstance(x, bool | int | float | np.generic | _Slot)
            if not plain and x is not self.signature.parameters[name].default:
                problem = f"{name} must be a value, an array or a number, got {shown(x)}"
                raise FormulaError(f"{self.name}: {problem}") from None

    def _check_arguments(self, call: Call) -> None:
        args, options = call
        try:
            self.signature.bind(*args, **options)
        except TypeError as error:
            names = tuple(self.signature.parameters)
            unknown = next((name for name in options if name not in names), None)
            hint = foreign_name(unknown, names) if unknown is not None else None
            declared_as = f"it is declared as {self.name}({', '.join(names)})"
            raise FormulaError(f"{self.name}: {error}", hint=hint or declared_as) from None

    def _closed(self, function: Callable[..., Any], call: Call) -> Callable[..., Any]:
        """The function of the slots alone, everything else of the call filled in."""
        args, options = call

        def closed(*scalars_: Any) -> Any:
            def fill(x: Any) -> Any:
                return scalars_[x.index] if isinstance(x, _Slot) else x

            return function(*map(fill, args), **{n: fill(x) for n, x in options.items()})

        return closed

    def _derivatives(self, call: Call, dtypes: tuple[DType, ...]) -> tuple[sp.Expr, ...] | None:
        """The declared derivatives as expressions, one an argument."""
        if self.derivative is None:
            return None
        key = self._key(call, dtypes)
        if key not in self._declared_derivatives:
            count, names = len(dtypes), self._names(call)
            all_derivatives = self._closed(
                lambda *args, **options: self._declared(args, options, count), call
            )

            def derivative(i: int) -> sp.Expr:
                program = trace(lambda *xs: all_derivatives(*xs)[i], dtypes, None, names)
                return program.result

            self._declared_derivatives[key] = tuple(map(derivative, range(count)))
        return self._declared_derivatives[key]

    def _on_values(self, call: Call, values: list[Value]) -> Value:
        dtypes = tuple([v.type.dtype for v in values])
        program, derivatives = self._trace(call, dtypes), self._derivatives(call, dtypes)
        shape = self._shape(call, values)
        environment = {placeholder(i): v for i, v in enumerate(values)}

        def build(body: sp.Expr, dtype: DType) -> Value:
            free, body = _in_placeholders(body, tuple(environment) if derivatives else None)
            args = [environment[s] for s in free]
            if not args:  # the arguments cancelled out: the number, at the common shape
                number = evaluate(body, {}, dtype)
                return full(shape, number, dtype)
            return mapped(body, args, derivatives)

        for symbol, body, dtype in program.bindings:
            environment[symbol] = build(body, dtype)
        result = build(program.result, program.dtype)
        if same_shape(result.shape, shape) is not True:  # an argument cancelled out
            result = broadcast_to(result, shape)
        return result

    def _shape(self, call: Call, values: Sequence[Value]) -> Shape:
        """The common shape. Raises `ShapeError` with the arguments as they were written."""
        try:
            return broadcast(*[v.type.shape for v in values])
        except ShapeError as error:
            names = self._names(call)
            rows = [(name, *described(v)) for name, v in zip(names, values, strict=True)]
            message = f"{self.name}: {error.problem}"
            explained = ShapeError(message, rows=rows, hint=error.hint)
            explained.undecided, explained.repeats = error.undecided, error.repeats
            raise explained from None


@functools.lru_cache(maxsize=16384)
def _in_placeholders(
    body: sp.Expr, free: tuple[sp.Symbol, ...] | None
) -> tuple[tuple[sp.Symbol, ...], sp.Expr]:
    """The symbols of a body where they are not given, and the body with placeholders in the place
    of these."""
    free = tuple(sorted(symbols_of(body), key=str)) if free is None else free
    names = {s: placeholder(i) for i, s in enumerate(free) if s != placeholder(i)}
    return free, body.xreplace(names)


def _repeated(values: list[Value]) -> list[Value]:
    """The values, of which those that are `x[:1]` along an axis are repeated to the others' size
    there. That is none where there is none, so that no op can take it for an axis of size one.
    Other slices are fitted to sizes that they ask for."""
    if len(values) == 1 or not any(is_clipped(d) for v in values for d in v.shape):
        return values
    results = []
    for v in values:
        for axis in range(-v.rank, 0):
            sizes = [other.shape[axis] for other in values if other.rank >= -axis]
            size = next((d for d in sizes if is_one_of(v.shape[axis], d)), None)
            if size is not None:
                v = repeated(v, axis, size)
        results.append(v)
    return fitted(results)


def _computed(program: Program, arrays: Sequence[Any], real: DType | None = None) -> Any:
    """The result of a program at arrays; what is real of literals alone is of dtype `real`."""
    for a in arrays:
        check_unmasked(a, "an argument of a formula")
    environment = {placeholder(i): np.asarray(a) for i, a in enumerate(arrays)}
    for symbol, body, dtype in program.bindings:
        environment[symbol] = evaluate(body, environment, dtype)
    dtype = real if real is not None and program.dtype.is_float else program.dtype
    return evaluate(program.result, environment, dtype)


_TENSORS = (Value, np.ndarray, np.generic)
_TENSORS_OR_SIZES = (*_TENSORS, sp.Expr)


def _number_type(numbers: Sequence[Any]) -> DType:
    """What plain numbers are computed in: float64 where one of them is real."""
    kinds = {type(x) for x in numbers}
    return f64 if float in kinds else i64 if int in kinds else boolean


@overload
def formula(
    function: Callable[..., Any], *, derivative: Callable[..., Any] | None = None
) -> Formula: ...
@overload
def formula(
    *, derivative: Callable[..., Any] | None = None
) -> Callable[[Callable[..., Any]], Formula]: ...
@suggests_names
def formula(
    function: Callable[..., Any] | None = None, *, derivative: Callable[..., Any] | None = None
) -> Any:
    """Makes an elementwise op of a Python function of scalars.

    `derivative` declares the derivative where it is not that of the formula (straight-through
    estimators): a function of the same arguments that returns it, as a tuple for several.

    >>> from nncompile.elementwise import exp
    >>> @formula
    ... def swish(x, beta=1):
    ...     return x / (1 + exp(-beta * x))
    >>> round(swish(2.0), 6)
    1.761594
    """
    if function is None:
        return functools.partial(formula, derivative=derivative)
    if not callable(function):
        raise FormulaError(
            f"a formula is made from a function of scalars, got {function!r}",
            hint="@formula decorates a def, or formula(lambda x: x * x)",
        )
    return Formula(function, derivative)


def _primitives() -> dict[str, Formula]:
    """The scalar primitives as formulas, of which some have several names."""
    formulas: dict[Callable[..., Any], Formula] = {}
    for name, primitive in FUNCTIONS.items():
        if primitive not in formulas:
            literals = getattr(primitive, "literals", 0)
            formulas[primitive] = Formula(primitive, name=name, primitive=True, literals=literals)
        register(name, formulas[primitive])
    return {name: formulas[primitive] for name, primitive in FUNCTIONS.items()}


PRIMITIVES: dict[str, Formula] = _primitives()


def __getattr__(name: str) -> Formula:
    """`from nncompile.elementwise.formula import exp`: every scalar primitive is a formula here."""
    if name in PRIMITIVES:
        return PRIMITIVES[name]
    raise AttributeError(f"module {__name__} has no attribute {name}")
