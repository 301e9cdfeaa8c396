"""The closed set of operations that formulas come down to: what a backend must lower, and all
that it must."""

from __future__ import annotations

# Name → number of arguments. `walk` emits no other call. Unless a comment says otherwise, all
# arguments and the result have the dtype of the call.
PRIMITIVE_CALLS: dict[str, int] = {
    # Arithmetic on floats and integers (integers wrap); numpy's meaning.
    "add": 2,
    "subtract": 2,
    "multiply": 2,
    "negative": 1,
    "abs": 1,
    "sign": 1,
    "maximum": 2,  # NaN where one is NaN
    "minimum": 2,
    "power": 2,  # of integers a negative one is 1/xⁿ towards zero, and 0 for 0
    "mod": 2,  # the sign of the divisor, as Python and numpy; of integers by 0 it is 0
    "floor_divide": 2,  # rounds down, integers too; these by 0 are 0
    # Floats only.
    "divide": 2,
    "sqrt": 1,
    "exp": 1,
    "expm1": 1,  # e^x − 1, accurate near 0
    "log": 1,
    "log1p": 1,  # log(1 + x), accurate near 0
    "sin": 1,
    "cos": 1,
    "tan": 1,
    "arcsin": 1,
    "arccos": 1,
    "arctan": 1,
    "arctan2": 2,  # of (y, x), in (−π, π]
    "sinh": 1,
    "cosh": 1,
    "tanh": 1,
    "arcsinh": 1,
    "arccosh": 1,
    "arctanh": 1,
    "erf": 1,
    "erfc": 1,  # 1 − erf, right in its tail
    "erfinv": 1,
    "lgamma": 1,  # log |Γ|
    "digamma": 1,
    "sigmoid": 1,  # finite at any x
    "gate": 1,  # the same to within 10⁻⁷ of 1
    "softplus": 1,  # log(1 + e^x), finite at any x
    "relu": 1,
    "floor": 1,
    "ceil": 1,
    "round": 1,  # halves to even
    "trunc": 1,
    # Floats → bool.
    "isnan": 1,
    "isinf": 1,
    # Comparisons of two of the given dtype (any; equality of bools too) → bool.
    "less": 2,
    "less_equal": 2,
    "equal": 2,
    "not_equal": 2,
    # Bools (the dtype given is bool).
    "logical_and": 2,
    "logical_or": 2,
    "logical_xor": 2,
    "logical_not": 1,
    # Integers.
    "bitwise_and": 2,
    "bitwise_or": 2,
    "bitwise_xor": 2,
    "invert": 1,
    "left_shift": 2,  # 0 where by all bits or more, or by a negative number
    "right_shift": 2,  # arithmetic where signed; then 0, or −1 of what is negative
    # where(condition: bool, a, b); the dtype given is that of a, b and the result, bool too.
    "where": 3,
    # The value itself, with derivative 0 (torch's `detach`).
    "stop_gradient": 1,
}
