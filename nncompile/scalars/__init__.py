"""Formulas of scalars: what an elementwise op computes, as a sympy expression.

A body is made of symbols (`placeholder(i)` is argument number i), exact rationals, `Add`, `Mul`,
`Pow` with integer exponents, and the heads of `nncompile.scalars.heads`, which sympy never
evaluates. One interpreter, `walk(body, leaves, dtypes, target)`, gives it every other form; a
target has three methods:

- `target.call(name, dtype, *args)`: an operation of `PRIMITIVE_CALLS` (see `calls.py`: the whole
  list, with arities). `dtype` is what it computes in, the type of its operands: the result is
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

from nncompile.scalars.calls import PRIMITIVE_CALLS
from nncompile.scalars.derivative import differentiate, may_be_infinite, times
from nncompile.scalars.expressions import digest, symbols_of
from nncompile.scalars.functions import declared
from nncompile.scalars.heads import placeholder
from nncompile.scalars.numeric import evaluate
from nncompile.scalars.printing import text
from nncompile.scalars.recognition import recognise
from nncompile.scalars.scalar import Scalar, compact
from nncompile.scalars.special import FUNCTIONS
from nncompile.scalars.stability import stabilise
from nncompile.scalars.tracing import LIMIT, Program, trace
from nncompile.scalars.walking import Target, dtype_of_expression, operation_count, walk

__all__ = [
    "FUNCTIONS",
    "LIMIT",
    "PRIMITIVE_CALLS",
    "Program",
    "Scalar",
    "Target",
    "compact",
    "declared",
    "differentiate",
    "digest",
    "dtype_of_expression",
    "evaluate",
    "may_be_infinite",
    "operation_count",
    "placeholder",
    "recognise",
    "stabilise",
    "symbols_of",
    "text",
    "times",
    "trace",
    "walk",
]
