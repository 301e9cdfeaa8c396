"""Choices by the sign of a number, written without branches.

Where signs are random, onnxruntime 1.32 takes several times as long for a choice between elements
of two tensors as for what is computed with them.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import sympy as sp

from nncompile.elementwise.sympy_functions import exp, expm1, less, maximum, minimum, tanh, where
from nncompile.ir.types import DType


@lru_cache(maxsize=4096)
def branchless(body: sp.Expr, dtype: DType) -> sp.Expr:
    """The body, which is computed in that type, with what leaky ReLUs, ELUs and their derivatives
    choose as extremes: equal numbers but for rounding, and zeros of the same signs."""
    if not body.has(where):
        return body
    smallest = sp.Rational(float(np.finfo(dtype.numpy).smallest_subnormal))

    def written(choice: sp.Expr) -> sp.Expr:
        condition, above, below = choice.args
        if not isinstance(condition, less) or condition.args[0] != 0:
            return choice
        x = condition.args[1]
        scale, function = below.as_coeff_Mul()
        if above == function == x and 0 < scale <= 1:
            return maximum(x, below)
        if not isinstance(function, (exp, expm1)) or not _is_multiple(function.args[0], x):
            return choice
        (u,) = function.args
        if isinstance(function, exp) and above.is_Rational:
            return where(condition, above, scale) * exp(minimum(u, 0))
        if isinstance(function, expm1) and above == x:
            # Not the minimum with 0, which gives one of two zeros: half of this is 0.
            t = tanh(minimum(u, smallest) / 2)
            return scale * (2 * t / (1 - t)) - minimum(-x, 0)
        return choice

    return body.replace(lambda part: isinstance(part, where), written)


def _is_multiple(u: sp.Expr, x: sp.Expr) -> bool:
    """Whether u is x times a positive number."""
    scale, rest = u.as_coeff_Mul()
    return bool(rest == x and scale > 0)
