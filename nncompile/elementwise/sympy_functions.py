"""Every head, one row each: derivative, dtype, what it comes down to. Ties are as torch's.

Sources of the derivatives: Abramowitz & Stegun, Handbook of Mathematical Functions, ch. 4 and 7.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import sympy as sp

from nncompile.elementwise.expressions import (
    Derivative,
    Head,
    Infinity,
    Meaning,
    constant,
    placeholder,
)
from nncompile.ir.types import DTYPES, DType, boolean

__all__ = ["HEADS", "placeholder"]

HEADS: dict[str, type[Head]] = {}

_R = sp.Rational
LN2 = _R("0.693147180559945309417232121458176568")
LN10 = _R("2.30258509299404568401799145468436421")
SQRT2 = _R("1.41421356237309504880168872420969808")
PI = _R("3.14159265358979323846264338327950288")
TWO_OVER_SQRT_PI = _R("1.12837916709551257389615890312154517")
INVERSE_SQRT_2PI = _R("0.398942280401432677939946059934381868")
_HALF = _R(1, 2)


def define(
    module: str,
    name: str,
    arity: int,
    *derivatives: Derivative | None,
    call: str | None = "",
    variable: str | None = None,
    **known: Any,
) -> Any:
    """A new head, which is a variable of that module. It is lowered to the call of its own name
    unless `call` names another, or is None."""
    if call == "":
        call = None if "expansion" in known else name
    attribute = variable or name
    meaning = Meaning(name, arity, derivatives, call, **known)
    head = type(attribute, (Head,), {"meaning": meaning, "__module__": module})
    HEADS[attribute] = head
    return head


_define = partial(define, __name__)


def _at(*exact: tuple[int, Any]) -> Any:
    """Folds those arguments to those results."""
    table = {sp.Integer(x): sp.sympify(y) for x, y in exact}
    return lambda x: table.get(x)


def _rational(function: Any) -> Any:
    """Folds rational arguments by `function`."""
    return lambda *xs: function(*xs) if all(x.is_Rational for x in xs) else None


def _truth(function: Any) -> Any:
    return _rational(lambda *xs: sp.Integer(bool(function(*xs))))


# Exponentials and logarithms.
exp = _define("exp", 1, lambda y, x: y, fold=_at((0, 1)))
expm1 = _define("expm1", 1, lambda y, x: exp(x), fold=_at((0, 0)))
log = _define("log", 1, lambda y, x: 1 / x, fold=_at((1, 0)))
log1p = _define("log1p", 1, lambda y, x: 1 / (1 + x), fold=_at((0, 0)))
sqrt = _define("sqrt", 1, lambda y, x: 1 / (2 * y), fold=_at((0, 0), (1, 1)))

# Trigonometry.
sin = _define("sin", 1, lambda y, x: cos(x), fold=_at((0, 0)))
cos: Any = _define("cos", 1, lambda y, x: -sin(x), fold=_at((0, 1)))
tan = _define("tan", 1, lambda y, x: 1 + y**2, fold=_at((0, 0)))
arcsin = _define("arcsin", 1, lambda y, x: 1 / sqrt(1 - x**2), fold=_at((0, 0)))
arccos = _define("arccos", 1, lambda y, x: -1 / sqrt(1 - x**2))
arctan = _define("arctan", 1, lambda y, x: 1 / (1 + x**2), fold=_at((0, 0)))


def _by_square(a: Any, b: Any) -> Any:
    """a/(a² + b²); 0 at the origin, where there is no derivative."""
    square = a**2 + b**2
    return where(equal(square, 0), 0, a / square)


arctan2 = _define("arctan2", 2, lambda y, a, b: _by_square(b, a), lambda y, a, b: -_by_square(a, b))
sinh = _define("sinh", 1, lambda y, x: cosh(x), fold=_at((0, 0)))
cosh: Any = _define("cosh", 1, lambda y, x: sinh(x), fold=_at((0, 1)))
tanh = _define("tanh", 1, lambda y, x: 1 - y**2, fold=_at((0, 0)))
sech = _define(
    "sech", 1, lambda y, x: -y * tanh(x), expansion=lambda x: 1 / cosh(x), fold=_at((0, 1))
)
arcsinh = _define("arcsinh", 1, lambda y, x: 1 / sqrt(1 + x**2), fold=_at((0, 0)))
arccosh = _define("arccosh", 1, lambda y, x: 1 / (sqrt(x - 1) * sqrt(x + 1)), fold=_at((1, 0)))
arctanh = _define("arctanh", 1, lambda y, x: 1 / (1 - x**2), fold=_at((0, 0)))

# Probability and activations.
erf = _define("erf", 1, lambda y, x: TWO_OVER_SQRT_PI * exp(-(x**2)), fold=_at((0, 0)))
normal_cdf = _define(
    "normal_cdf",
    1,
    lambda y, x: INVERSE_SQRT_2PI * exp(-(x**2) / 2),
    expansion=lambda x: _HALF + _HALF * erf(x / SQRT2),
    fold=_at((0, _HALF)),
)
sigmoid = _define("sigmoid", 1, lambda y, x: y - y**2, fold=_at((0, _HALF)))
gate = _define("gate", 1, lambda y, x: y - y**2, fold=_at((0, _HALF)))
softplus = _define("softplus", 1, lambda y, x: sigmoid(x))
relu = _define("relu", 1, lambda y, x: where(less(0, x), 1, 0), fold=_rational(lambda x: max(x, 0)))

# Powers with an exponent that is not an integer literal. As torch's: 0 derivative where the
# exponent is 0, and at base 0 by the exponent.


def _power_by_base(y: Any, x: Any, e: Any) -> Any:
    if constant(e) is not None:
        return e * raised(x, e - 1)
    return where(equal(e, 0), 0, e * power(x, e - 1))


def _power_by_exponent(y: Any, x: Any, e: Any) -> Any:
    derivative = y * log(x)
    at_zero = logical_and(equal(x, 0), less_equal(0, e))
    return where(at_zero, 0, derivative)


power = _define("power", 2, _power_by_base, _power_by_exponent)


def raised(x: Any, e: Any) -> Any:
    """x to the power e of floats, in its simplest form: integer powers and roots are their own."""
    if e.is_Integer:
        return x**e
    if e == _HALF:
        return sqrt(x)
    if e == -_HALF:
        return 1 / sqrt(x)
    return power(x, e)


# Parts and rounding: locally constant.
absolute = _define(
    "abs", 1, lambda y, x: sign(x), variable="absolute", fold=_rational(lambda x: sp.Abs(x))
)
sign: Any = _define("sign", 1, fold=_rational(lambda x: sp.sign(x)))
floor = _define("floor", 1, fold=_rational(lambda x: sp.floor(x)))
ceil = _define("ceil", 1, fold=_rational(lambda x: sp.ceiling(x)))
rint = _define("round", 1, variable="rint", fold=_rational(lambda x: sp.Integer(round(x))))
trunc = _define("trunc", 1, fold=_rational(lambda x: sp.Integer(int(x))))
mod = _define("mod", 2, lambda y, a, b: sp.S.One, lambda y, a, b: -floor_divide(a, b))
floor_divide: Any = _define("floor_divide", 2)


# Extremes: ties share the derivative, and where one is NaN each has it, as torch's.
def _larger(a: Any, b: Any) -> Any:
    return where(less(a, b), 0, where(equal(a, b), _HALF, 1))


maximum = _define(
    "maximum",
    2,
    lambda y, a, b: _larger(a, b),
    lambda y, a, b: _larger(b, a),
    symmetric=True,
    fold=_rational(max),
)
minimum = _define(
    "minimum",
    2,
    lambda y, a, b: _larger(b, a),
    lambda y, a, b: _larger(a, b),
    symmetric=True,
    fold=_rational(min),
)


def _clipped(x: Any, low: Any, high: Any) -> Any:
    above = x if constant(low) == -math.inf else maximum(x, low)
    return above if constant(high) == math.inf else minimum(above, high)


def _within(x: Any, low: Any, high: Any) -> Any:
    """Whether x is between the limits or at one; an infinite one does not limit."""
    above = sp.S.One if constant(low) == -math.inf else less_equal(low, x)
    below = sp.S.One if constant(high) == math.inf else less_equal(x, high)
    return logical_and(above, below)


# At a limit the derivative is that of x, as torch's clamp.
clip = _define(
    "clip",
    3,
    lambda y, x, low, high: where(_within(x, low, high), 1, 0),
    lambda y, x, low, high: where(logical_and(less(x, low), less(low, high)), 1, 0),
    lambda y, x, low, high: where(logical_or(less(high, x), less_equal(high, low)), 1, 0),
    expansion=_clipped,
)


def _reaches(x: Any, limit: Any, condition: Any) -> Any:
    """Whether x is at the limit or beyond it, which is not where that is infinite."""
    return sp.S.Zero if isinstance(constant(limit), float) else condition


# The same with derivative 0 at the limits, as torch's hardtanh.
hard_clip = _define(
    "hard_clip",
    3,
    lambda y, x, low, high: where(
        logical_or(_reaches(x, low, less_equal(x, low)), _reaches(x, high, less_equal(high, x))),
        0,
        1,
    ),
    lambda y, x, low, high: where(logical_and(less_equal(x, low), less(low, high)), 1, 0),
    lambda y, x, low, high: where(logical_or(less_equal(high, x), less_equal(high, low)), 1, 0),
    expansion=_clipped,
)


def _length(a: Any, b: Any) -> Any:
    """√(a² + b²) of the larger one times that of the ratio, which does not overflow."""
    larger, smaller = (f(absolute(a), absolute(b)) for f in (maximum, minimum))
    ratio = where(equal(larger, 0), 0, smaller / larger)
    is_infinite = logical_or(isinf(a), isinf(b))
    return where(is_infinite, Infinity(), larger * sqrt(1 + ratio**2))


def _share(y: Any, x: Any) -> Any:
    return where(equal(y, 0), 0, x / y)


hypot = _define(
    "hypot",
    2,
    lambda y, a, b: _share(y, a),
    lambda y, a, b: _share(y, b),
    expansion=_length,
    symmetric=True,
)

# Truth.
less: Any = _define("less", 2, result=boolean, fold=_truth(lambda a, b: a < b))
less_equal: Any = _define("less_equal", 2, result=boolean, fold=_truth(lambda a, b: a <= b))
equal = _define("equal", 2, result=boolean, symmetric=True, fold=_truth(lambda a, b: a == b))
not_equal = _define(
    "not_equal", 2, result=boolean, symmetric=True, fold=_truth(lambda a, b: a != b)
)
isnan = _define("isnan", 1, result=boolean, fold=_truth(lambda x: False))
isinf = _define("isinf", 1, result=boolean, fold=_truth(lambda x: False))
isfinite = _define(
    "isfinite",
    1,
    result=boolean,
    expansion=lambda x: logical_not(logical_or(isnan(x), isinf(x))),
    fold=_truth(lambda x: True),
)
_logic: dict[str, Any] = {"result": boolean, "symmetric": True}
logical_and: Any = _define(
    "logical_and",
    2,
    **_logic,
    conditions=2,
    fold=lambda a, b: 0 if 0 in (a, b) else b if a == 1 else a if b == 1 else None,
)
logical_or: Any = _define(
    "logical_or",
    2,
    **_logic,
    conditions=2,
    fold=lambda a, b: 1 if 1 in (a, b) else b if a == 0 else a if b == 0 else None,
)
logical_xor = _define(
    "logical_xor", 2, **_logic, conditions=2, fold=_truth(lambda a, b: bool(a) is not bool(b))
)
logical_not: Any = _define(
    "logical_not", 1, result=boolean, conditions=1, fold=_truth(lambda a: not bool(a))
)


def _chosen(condition: Any, a: Any, b: Any) -> Any:
    if a == b:
        return a
    return (a if condition else b) if condition.is_Rational else None


# Differentiated branch by branch (see derivative.py): a branch not taken is never multiplied.
where: Any = _define("where", 3, conditions=1, fold=_chosen)

# Integers: they wrap, so that no algebra applies beyond neutral elements.
int_add = _define(
    "int_add",
    2,
    call="add",
    symmetric=True,
    fold=lambda a, b: b if a == 0 else a if b == 0 else _rational(lambda x, y: x + y)(a, b),
)
int_subtract = _define(
    "int_subtract",
    2,
    call="subtract",
    fold=lambda a, b: a if b == 0 else _rational(lambda x, y: x - y)(a, b),
)
int_multiply = _define(
    "int_multiply",
    2,
    call="multiply",
    symmetric=True,
    fold=lambda a, b: b if a == 1 else a if b == 1 else _rational(lambda x, y: x * y)(a, b),
)
int_negative = _define("int_negative", 1, call="negative", fold=_rational(lambda x: -x))
int_power = _define("int_power", 2, call="power", fold=lambda a, b: a if b == 1 else None)
bitwise_and = _define("bitwise_and", 2, symmetric=True)
bitwise_or = _define("bitwise_or", 2, symmetric=True)
bitwise_xor = _define("bitwise_xor", 2, symmetric=True)
invert = _define("invert", 1)
left_shift = _define("left_shift", 2)
right_shift = _define("right_shift", 2)

stop_gradient = _define("stop_gradient", 1)
# A value with the derivative that is declared for it at an argument, added to the value's own.
declared = _define(
    "declared",
    3,
    lambda y, value, x, derivative: sp.S.One,
    lambda y, value, x, derivative: derivative,
    None,
    expansion=lambda value, x, derivative: value,
)


# Conversions, a head for each dtype.
def _conversion(dtype: DType) -> Any:
    return _define(dtype.name, 1, call=None, variable=f"to_{dtype.name}", result=dtype)


_BY_DTYPE = {dtype: _conversion(dtype) for dtype in DTYPES}
TARGETS: dict[type[Head], DType] = {head: dtype for dtype, head in _BY_DTYPE.items()}
globals().update({head.__name__: head for head in TARGETS})  # where pickle looks for them


def cast(body: Any, dtype: DType) -> Any:
    """The body as another dtype."""
    return _BY_DTYPE[dtype](body)
