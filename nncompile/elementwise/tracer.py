"""`Scalar`: what a formula's function is called with while it is traced."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from functools import reduce
from typing import Any, NoReturn, Protocol

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import DTypeError, FormulaError
from nncompile.diagnostics.locations import message_name
from nncompile.elementwise.expressions import number
from nncompile.elementwise.printing import text
from nncompile.elementwise.sympy_functions import cast
from nncompile.ir.types import DType, boolean, dtype_of, f32, i64, is_numeric, is_real, promote

# What operators call, by numpy's name; filled by functions.py.
FUNCTIONS: dict[str, Callable[..., Scalar]] = {}

_UNREAL = (sp.zoo, sp.nan, sp.oo, -sp.oo)


class Observer(Protocol):
    """Sees every scalar that is made while a formula is traced, and may put a name for it in its
    place: `observe` where the expression is too long, `compact` where it will be used several
    times."""

    def observe(self, scalar: Scalar) -> Scalar: ...

    def compact(self, scalar: Scalar) -> Scalar: ...

    def text(self, body: sp.Expr) -> str:
        """A body as the user wrote it, with the names of the formula's arguments."""
        ...


observer: ContextVar[Observer | None] = ContextVar("observer", default=None)


# Users call an operator by its sign: messages do not call it what functions with an underscore are.
Unary = Callable[["Scalar"], "Scalar"]
Binary = Callable[["Scalar", Any], "Scalar"]


def _binary(name: str) -> tuple[Binary, Binary]:
    def _forward(self: Scalar, other: Any) -> Scalar:
        return FUNCTIONS[name](self, other)

    def _backward(self: Scalar, other: Any) -> Scalar:
        return FUNCTIONS[name](other, self)

    return _forward, _backward


def _unary(name: str) -> Unary:
    def _method(self: Scalar) -> Scalar:
        return FUNCTIONS[name](self)

    return _method


def _refuses(use: str, hint: str) -> Callable[..., NoReturn]:
    def _refuse(self: Scalar, *_: Any) -> NoReturn:
        raise FormulaError(f"a formula cannot {use}: {self} has no value yet", hint=hint)

    return _refuse


_functions_hint = "functions of nncompile.elementwise (exp, sqrt, tanh, ...) take scalars"


class Scalar:
    """An element of an argument, or what was computed from some: an expression and its dtype.

    A `weak` one is made of Python numbers alone and takes the dtype of what it meets, as long as
    that is of its kind. `size` bounds the operations of the expression from above.
    """

    __slots__ = ("dtype", "expr", "size", "weak")

    def __init__(self, expr: sp.Expr, dtype: DType, weak: bool = False, size: int = 0) -> None:
        self.expr = expr
        self.dtype = dtype
        self.weak = weak
        self.size = size

    def __repr__(self) -> str:
        tracer = observer.get()
        return tracer.text(self.expr) if tracer else text(self.expr)

    __add__, __radd__ = _binary("add")
    __sub__, __rsub__ = _binary("subtract")
    __mul__, __rmul__ = _binary("multiply")
    __truediv__, __rtruediv__ = _binary("divide")
    __floordiv__, __rfloordiv__ = _binary("floor_divide")
    __mod__, __rmod__ = _binary("mod")
    __pow__, __rpow__ = _binary("power")
    __and__, __rand__ = _binary("bitwise_and")
    __or__, __ror__ = _binary("bitwise_or")
    __xor__, __rxor__ = _binary("bitwise_xor")
    __lshift__, __rlshift__ = _binary("left_shift")
    __rshift__, __rrshift__ = _binary("right_shift")
    __lt__, _ = _binary("less")
    __le__, _ = _binary("less_equal")
    __gt__, _ = _binary("greater")
    __ge__, _ = _binary("greater_equal")
    __eq__, _ = _binary("equal")  # type: ignore[assignment]  # a scalar, no truth value
    __ne__, _ = _binary("not_equal")  # type: ignore[assignment]  # a scalar, no truth value
    del _
    __hash__ = object.__hash__

    __neg__ = _unary("negative")
    __pos__ = _unary("positive")
    __abs__ = _unary("abs")
    __invert__ = _unary("invert")

    def __divmod__(self, other: Any) -> tuple[Scalar, Scalar]:
        return FUNCTIONS["floor_divide"](self, other), FUNCTIONS["mod"](self, other)

    def __rdivmod__(self, other: Any) -> tuple[Scalar, Scalar]:
        return FUNCTIONS["floor_divide"](other, self), FUNCTIONS["mod"](other, self)

    __floor__ = _unary("floor")
    __ceil__ = _unary("ceil")
    __trunc__ = _unary("trunc")

    def __round__(self, digits: int | None = None) -> Scalar:
        return FUNCTIONS["round"](self, digits or 0)

    def astype(self, dtype: Any) -> Scalar:
        """The number as another dtype."""
        return converted(self, dtype_of(dtype))

    __bool__ = _refuses(
        "branch on a value",
        "where(condition, a, b) chooses elementwise; & | ~ combine conditions",
    )
    __float__ = _refuses("turn a value into a Python number", _functions_hint)
    __int__ = __index__ = __complex__ = _sympy_ = __float__
    __len__ = __iter__ = __getitem__ = __contains__ = _refuses(
        "look inside a value", "a formula is a function of single elements"
    )

    def __array__(self, *_: Any, **__: Any) -> NoReturn:
        raise FormulaError(
            f"an operation on tensors got {self}, an element in a formula",
            hint="formulas use functions of scalars: maximum(a, b), minimum, where, exp, ...; call "
            "operations over several elements (sum, max, softmax, ...) outside, on values",
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
        name = ufunc.__name__
        if method != "__call__" or name not in FUNCTIONS or options:
            raise FormulaError(f"numpy's {ufunc.__name__} does not work in a formula")
        return FUNCTIONS[name](*inputs)

    def __array_function__(self, function: Any, _: Any, args: Any, options: Any) -> Any:
        if function.__name__ not in FUNCTIONS:
            raise FormulaError(f"numpy's {function.__name__} does not work in a formula")
        return FUNCTIONS[function.__name__](*args, **options)


def lift(x: Any) -> Scalar:
    """A scalar of a Python number, which is a literal, or of a scalar."""
    if isinstance(x, Scalar):
        return x
    if isinstance(x, np.generic) and is_numeric(x.dtype):
        x = float(str(x)) if is_real(x.dtype) else x.item()
    if isinstance(x, bool):
        return Scalar(number(int(x)), boolean, weak=True)
    if isinstance(x, int):
        return Scalar(number(x), i64, weak=True)
    if isinstance(x, float):
        return Scalar(number(x), f32, weak=True)
    if isinstance(x, sp.Expr) and x.is_Rational:
        return Scalar(x, i64 if x.is_Integer else f32, weak=True)
    raise FormulaError(
        f"a formula takes scalars and numbers, not {x!r}",
        hint="pass it as an argument to the formula",
    )


def scalar_of(expr: sp.Expr, dtype: DType, weak: bool, *operands: Scalar) -> Scalar:
    """A new scalar computed from operands."""
    if any(part in _UNREAL for part in (expr, *expr.args)):
        raise FormulaError(
            "the formula divides by zero", hint="write float('inf') if infinity is meant"
        )
    scalar = Scalar(expr, dtype, weak, 1 + sum(x.size for x in operands))
    tracer = observer.get()
    return tracer.observe(scalar) if tracer else scalar


def compact(x: Any) -> Any:
    """`x`, or a name for it where it is long: for arguments that are used several times."""
    tracer = observer.get()
    return tracer.compact(x) if tracer and isinstance(x, Scalar) else x


def _kind(dtype: DType) -> int:
    return 2 if dtype.is_float else 1 if dtype.is_integer else 0


def common_dtype(operands: Sequence[Scalar]) -> tuple[DType, bool]:
    """The dtype that operands are computed in, and whether that is weak."""
    strong = [x.dtype for x in operands if not x.weak]
    weak = reduce(promote, (x.dtype for x in operands if x.weak), boolean)
    if not strong:
        return weak, True
    dtype = reduce(promote, strong)
    return (weak if _kind(weak) > _kind(dtype) else dtype), False


def unified(*operands: Scalar, real: bool = False) -> tuple[tuple[sp.Expr, ...], DType, bool]:
    """The expressions of operands in their common dtype (a float where `real`), that dtype, and
    whether it is weak."""
    dtype, weak = common_dtype(operands)
    if real and not dtype.is_float:
        dtype = f32
    return tuple(_as(x, dtype) for x in operands), dtype, weak


def _as(x: Scalar, dtype: DType) -> sp.Expr:
    if x.weak and x.expr.is_Integer and dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        if not limits.min <= x.expr <= limits.max:
            raise DTypeError(
                f"{dtype} cannot hold {x.expr}", hint="x.astype(i64) has more room for numbers"
            )
    return x.expr if x.weak or x.dtype is dtype else cast(x.expr, dtype)


def converted(x: Scalar, dtype: DType) -> Scalar:
    """`x` as another dtype, and not weak."""
    if x.dtype is dtype and not x.weak:
        return x
    return scalar_of(cast(x.expr, dtype), dtype, False, x)


def refuse_bools(name: str, *operands: Scalar) -> None:
    """Raises `DTypeError` where all operands are bools."""
    if all(x.dtype.is_bool for x in operands):
        raise DTypeError(
            f"{name} of bools",
            hint="& | ^ ~ combine conditions, where(condition, a, b) chooses, "
            "float32(condition) turns one into a number",
        )


def function(*names: str) -> Callable[[Callable[..., Scalar]], Callable[..., Scalar]]:
    """Puts a function into the table, under its own name or under others."""

    def add(primitive: Callable[..., Scalar]) -> Callable[..., Scalar]:
        for name in names or (primitive.__name__,):
            FUNCTIONS[name] = primitive
        return primitive

    return add


def enter(primitive: Callable[..., Scalar], name: str, doc: str) -> Callable[..., Scalar]:
    """Enters a function into the table under that name."""
    primitive.__name__ = primitive.__qualname__ = name
    primitive.__doc__ = doc
    FUNCTIONS[name] = message_name(name)(primitive)
    return primitive
