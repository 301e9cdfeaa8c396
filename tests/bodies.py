"""Expressions of scalars to test with, and the functions they are written in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

from nncompile.elementwise.numpy_target import evaluate
from nncompile.elementwise.special_functions import FUNCTIONS
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.elementwise.trace_formula import Program, trace
from nncompile.ir.types import DType, f32

X, Y = placeholder(0), placeholder(1)
F = FUNCTIONS
abs_, clip, cosh, erf, exp, log = F["abs"], F["clip"], F["cosh"], F["erf"], F["exp"], F["log"]
log1p, maximum, minimum, mod, power = (
    F[name] for name in ("log1p", "maximum", "minimum", "mod", "power")
)
relu, round_, sigmoid, sin, sinh = F["relu"], F["round"], F["sigmoid"], F["sin"], F["sinh"]
sqrt, stop_gradient, tanh, where = (F[name] for name in ("sqrt", "stop_gradient", "tanh", "where"))


def body(function: Callable[..., Any], *dtypes: DType) -> sp.Expr:
    """The expression of a function of one scalar a dtype; of one float32 by default."""
    program = trace(function, dtypes or (f32,))
    assert not program.bindings
    return program.result


def run(program: Program, *arrays: Any) -> np.ndarray:
    """The result of a program at arrays."""
    known = {placeholder(i): np.asarray(a) for i, a in enumerate(arrays)}
    for symbol, part, dtype in program.bindings:
        known[symbol] = evaluate(part, known, dtype)
    return evaluate(program.result, known, program.dtype)
