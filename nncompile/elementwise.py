"""The elementwise functions, under numpy's names: formulas of one operation each.

They take values, arrays and numbers, broadcast, and may be used within other formulas.
"""

from __future__ import annotations

from nncompile.formula import PRIMITIVES, Formula

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

# Exponentials and logarithms.
exp: Formula = PRIMITIVES["exp"]
exp2: Formula = PRIMITIVES["exp2"]
expm1: Formula = PRIMITIVES["expm1"]
log: Formula = PRIMITIVES["log"]
log2: Formula = PRIMITIVES["log2"]
log10: Formula = PRIMITIVES["log10"]
log1p: Formula = PRIMITIVES["log1p"]
logaddexp: Formula = PRIMITIVES["logaddexp"]

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

# What networks use.
sigmoid: Formula = PRIMITIVES["sigmoid"]
softplus: Formula = PRIMITIVES["softplus"]
relu: Formula = PRIMITIVES["relu"]
step: Formula = PRIMITIVES["step"]
heaviside: Formula = PRIMITIVES["heaviside"]
erf: Formula = PRIMITIVES["erf"]
normal_cdf: Formula = PRIMITIVES["normal_cdf"]

# Rounding.
floor: Formula = PRIMITIVES["floor"]
ceil: Formula = PRIMITIVES["ceil"]
round: Formula = PRIMITIVES["round"]
rint: Formula = PRIMITIVES["rint"]
trunc: Formula = PRIMITIVES["trunc"]

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

# The value itself, held constant by gradients.
stop_gradient: Formula = PRIMITIVES["stop_gradient"]

__all__ = [
    "abs",
    "absolute",
    "add",
    "arccos",
    "arccosh",
    "arcsin",
    "arcsinh",
    "arctan",
    "arctan2",
    "arctanh",
    "bitwise_and",
    "bitwise_or",
    "bitwise_xor",
    "cbrt",
    "ceil",
    "clip",
    "cos",
    "cosh",
    "divide",
    "equal",
    "erf",
    "exp",
    "exp2",
    "expm1",
    "floor",
    "floor_divide",
    "greater",
    "greater_equal",
    "heaviside",
    "hypot",
    "invert",
    "isfinite",
    "isinf",
    "isnan",
    "left_shift",
    "less",
    "less_equal",
    "log",
    "log1p",
    "log2",
    "log10",
    "logaddexp",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "maximum",
    "minimum",
    "mod",
    "multiply",
    "negative",
    "normal_cdf",
    "not_equal",
    "positive",
    "power",
    "reciprocal",
    "relu",
    "right_shift",
    "rint",
    "round",
    "sigmoid",
    "sign",
    "sin",
    "sinh",
    "softplus",
    "sqrt",
    "square",
    "step",
    "stop_gradient",
    "subtract",
    "tan",
    "tanh",
    "trunc",
    "where",
]
