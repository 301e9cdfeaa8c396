"""The elementwise functions, under numpy's names: formulas of one operation each.

They take values, arrays and numbers, broadcast, and may be used within other formulas.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise.formula import PRIMITIVES, Formula

# Arithmetic.
add: Formula = PRIMITIVES["add"]
subtract: Formula = PRIMITIVES["subtract"]
multiply: Formula = PRIMITIVES["multiply"]
divide: Formula = PRIMITIVES["divide"]
floor_divide: Formula = PRIMITIVES["floor_divide"]
mod: Formula = PRIMITIVES["mod"]
power: Formula = PRIMITIVES["power"]
negative: Formula = PRIMITIVES["negative"]
positive: Formula = PRIMITIVES["positive"]
reciprocal: Formula = PRIMITIVES["reciprocal"]
square: Formula = PRIMITIVES["square"]
sqrt: Formula = PRIMITIVES["sqrt"]
cbrt: Formula = PRIMITIVES["cbrt"]
abs: Formula = PRIMITIVES["abs"]
absolute: Formula = PRIMITIVES["absolute"]
sign: Formula = PRIMITIVES["sign"]
maximum: Formula = PRIMITIVES["maximum"]
minimum: Formula = PRIMITIVES["minimum"]
clip: Formula = PRIMITIVES["clip"]
hypot: Formula = PRIMITIVES["hypot"]
hard_clip: Formula = PRIMITIVES["hard_clip"]
true_divide: Formula = PRIMITIVES["true_divide"]
remainder: Formula = PRIMITIVES["remainder"]
fmod: Formula = PRIMITIVES["fmod"]
pow: Formula = PRIMITIVES["pow"]
float_power: Formula = PRIMITIVES["float_power"]
fabs: Formula = PRIMITIVES["fabs"]
copysign: Formula = PRIMITIVES["copysign"]
fmax: Formula = PRIMITIVES["fmax"]
fmin: Formula = PRIMITIVES["fmin"]

# Exponentials and logarithms.
exp: Formula = PRIMITIVES["exp"]
exp2: Formula = PRIMITIVES["exp2"]
expm1: Formula = PRIMITIVES["expm1"]
log: Formula = PRIMITIVES["log"]
log2: Formula = PRIMITIVES["log2"]
log10: Formula = PRIMITIVES["log10"]
log1p: Formula = PRIMITIVES["log1p"]
logaddexp: Formula = PRIMITIVES["logaddexp"]
logaddexp2: Formula = PRIMITIVES["logaddexp2"]

# Trigonometry.
sin: Formula = PRIMITIVES["sin"]
cos: Formula = PRIMITIVES["cos"]
tan: Formula = PRIMITIVES["tan"]
arcsin: Formula = PRIMITIVES["arcsin"]
arccos: Formula = PRIMITIVES["arccos"]
arctan: Formula = PRIMITIVES["arctan"]
arctan2: Formula = PRIMITIVES["arctan2"]
sinh: Formula = PRIMITIVES["sinh"]
cosh: Formula = PRIMITIVES["cosh"]
tanh: Formula = PRIMITIVES["tanh"]
arcsinh: Formula = PRIMITIVES["arcsinh"]
arccosh: Formula = PRIMITIVES["arccosh"]
arctanh: Formula = PRIMITIVES["arctanh"]
deg2rad: Formula = PRIMITIVES["deg2rad"]
rad2deg: Formula = PRIMITIVES["rad2deg"]
degrees: Formula = PRIMITIVES["degrees"]
radians: Formula = PRIMITIVES["radians"]
sinc: Formula = PRIMITIVES["sinc"]
acos: Formula = PRIMITIVES["acos"]
acosh: Formula = PRIMITIVES["acosh"]
asin: Formula = PRIMITIVES["asin"]
asinh: Formula = PRIMITIVES["asinh"]
atan: Formula = PRIMITIVES["atan"]
atan2: Formula = PRIMITIVES["atan2"]
atanh: Formula = PRIMITIVES["atanh"]

# What networks use.
sigmoid: Formula = PRIMITIVES["sigmoid"]
gate: Formula = PRIMITIVES["gate"]
softplus: Formula = PRIMITIVES["softplus"]
relu: Formula = PRIMITIVES["relu"]
step: Formula = PRIMITIVES["step"]
heaviside: Formula = PRIMITIVES["heaviside"]
erf: Formula = PRIMITIVES["erf"]
normal_cdf: Formula = PRIMITIVES["normal_cdf"]
logit: Formula = PRIMITIVES["logit"]

# Special functions.
erfc: Formula = PRIMITIVES["erfc"]
erfinv: Formula = PRIMITIVES["erfinv"]
lgamma: Formula = PRIMITIVES["lgamma"]
gammaln: Formula = PRIMITIVES["gammaln"]
digamma: Formula = PRIMITIVES["digamma"]
psi: Formula = PRIMITIVES["psi"]
polygamma: Formula = PRIMITIVES["polygamma"]
i0: Formula = PRIMITIVES["i0"]
i0e: Formula = PRIMITIVES["i0e"]
i1: Formula = PRIMITIVES["i1"]
i1e: Formula = PRIMITIVES["i1e"]
xlogy: Formula = PRIMITIVES["xlogy"]
xlog1py: Formula = PRIMITIVES["xlog1py"]

# Rounding.
floor: Formula = PRIMITIVES["floor"]
ceil: Formula = PRIMITIVES["ceil"]
round: Formula = PRIMITIVES["round"]
rint: Formula = PRIMITIVES["rint"]
trunc: Formula = PRIMITIVES["trunc"]
fix: Formula = PRIMITIVES["fix"]
around: Formula = PRIMITIVES["around"]

# Choices and comparisons.
where: Formula = PRIMITIVES["where"]
less: Formula = PRIMITIVES["less"]
less_equal: Formula = PRIMITIVES["less_equal"]
greater: Formula = PRIMITIVES["greater"]
greater_equal: Formula = PRIMITIVES["greater_equal"]
equal: Formula = PRIMITIVES["equal"]
not_equal: Formula = PRIMITIVES["not_equal"]
isnan: Formula = PRIMITIVES["isnan"]
isinf: Formula = PRIMITIVES["isinf"]
isfinite: Formula = PRIMITIVES["isfinite"]
isposinf: Formula = PRIMITIVES["isposinf"]
isneginf: Formula = PRIMITIVES["isneginf"]
isclose: Formula = PRIMITIVES["isclose"]
signbit: Formula = PRIMITIVES["signbit"]
nan_to_num: Formula = PRIMITIVES["nan_to_num"]

# Logic and bits.
logical_and: Formula = PRIMITIVES["logical_and"]
logical_or: Formula = PRIMITIVES["logical_or"]
logical_xor: Formula = PRIMITIVES["logical_xor"]
logical_not: Formula = PRIMITIVES["logical_not"]
bitwise_and: Formula = PRIMITIVES["bitwise_and"]
bitwise_or: Formula = PRIMITIVES["bitwise_or"]
bitwise_xor: Formula = PRIMITIVES["bitwise_xor"]
invert: Formula = PRIMITIVES["invert"]
left_shift: Formula = PRIMITIVES["left_shift"]
right_shift: Formula = PRIMITIVES["right_shift"]
bitwise_not: Formula = PRIMITIVES["bitwise_not"]
bitwise_invert: Formula = PRIMITIVES["bitwise_invert"]
bitwise_left_shift: Formula = PRIMITIVES["bitwise_left_shift"]
bitwise_right_shift: Formula = PRIMITIVES["bitwise_right_shift"]

# The value itself, held constant by gradients.
stop_gradient: Formula = PRIMITIVES["stop_gradient"]


@suggests_names
def divmod(x: Any, y: Any) -> tuple[Any, Any]:
    """x / y rounded down, and the remainder."""
    return floor_divide(x, y), mod(x, y)


@suggests_names
def modf(x: Any) -> tuple[Any, Any]:
    """The fractional part of x, of x's sign, and the integer part."""
    integral = trunc(x)
    return where(isinf(x), 0.0, subtract(x, integral)), integral


if not TYPE_CHECKING:  # type checkers take every name that this file assigns
    __all__ = ["divmod", "modf", *(n for n, x in globals().items() if isinstance(x, Formula))]
