"""Native functions recognised by their values, however they were spelled: literals such as
0.7978845608 make equality of expressions useless."""

from __future__ import annotations

import itertools
from functools import cache, lru_cache

import numpy as np
import sympy as sp

from nncompile.elementwise import sympy_functions as h
from nncompile.elementwise.expressions import placeholder
from nncompile.elementwise.lowering import operation_count
from nncompile.elementwise.numpy_target import evaluate

_X = placeholder(0)
_POINTS = np.array([-6.1, -3.4, -2.6, -1.3, -0.7, -0.2, 0.1, 0.4, 0.9, 1.6, 2.3, 3.7, 6.2])
_MOST_OPERATIONS = 40
_HALF = sp.Rational(1, 2)
_SQRT_8_OVER_PI = sp.Rational("1.59576912160573071175978423973752747")

# Where the derivative jumps it is the spelling that says which one holds at the jump, so those are
# named and not rewritten.
_KINKED = frozenset({"hardswish", "hardsigmoid", "relu"})

# What takes integers, or has a derivative that is not its own, has no fingerprint.
_OTHERS = (
    h.invert,
    h.bitwise_and,
    h.bitwise_or,
    h.bitwise_xor,
    h.left_shift,
    h.right_shift,
    h.stop_gradient,
    h.declared,
    h.gate,  # not as near as sigmoid
    *h.TARGETS,
)


@cache
def native() -> dict[str, sp.Expr]:
    """Each native function with its stable form, in which forward and backward share what they
    have in common. Made when first asked for: sums make sympy import what takes a tenth of the
    time of `import nncompile`."""
    return {
        "sigmoid": h.sigmoid(_X),
        "tanh": h.tanh(_X),
        "softplus": h.softplus(_X),
        "log_sigmoid": -h.softplus(-_X),
        "softsign": _X / (1 + h.absolute(_X)),
        "silu": _X * h.sigmoid(_X),
        "mish": _X * h.tanh(h.softplus(_X)),
        "gelu": _X * h.normal_cdf(_X),
        "gelu_tanh": _X * h.sigmoid(_SQRT_8_OVER_PI * (_X + sp.Rational("0.044715") * _X**3)),
        "normal_cdf": h.normal_cdf(_X),
        "elu": h.where(h.less(0, _X), _X, h.expm1(_X)),
        "hardswish": _X * h.clip(_X / 6 + _HALF, sp.Integer(0), sp.Integer(1)),
        "hardsigmoid": h.clip(_X / 6 + _HALF, sp.Integer(0), sp.Integer(1)),
        "relu": h.relu(_X),
    }


@lru_cache(maxsize=4096)
def recognise(body: sp.Expr) -> str | None:
    """The name of the native function that a body of one float is equal to, to 1e-6 at fixed
    points; None where there is none.

    >>> recognise(_X / (1 + h.exp(-_X)))
    'silu'
    """
    symbols = body.free_symbols
    if len(symbols) != 1 or not body.args or operation_count(body) > _MOST_OPERATIONS:
        return None
    if body.has(*_OTHERS):
        return None
    (symbol,) = symbols
    actual = evaluate(body, {symbol: _POINTS})
    if actual.dtype != np.float64:
        return None
    is_near = np.isclose(actual, _fingerprints(), rtol=1e-6, atol=1e-9).all(axis=1)
    return next(itertools.compress(native(), is_near), None)


@cache
def _fingerprints() -> np.ndarray:
    """The values of each native function, in a row."""
    return np.stack([evaluate(body, {_X: _POINTS}) for body in native().values()])


def canonical(body: sp.Expr) -> sp.Expr:
    """The stable form of a body where it is one of the smooth native functions."""
    name = recognise(body)
    if name is None or name in _KINKED:
        return body
    (symbol,) = body.free_symbols
    return native()[name].xreplace({_X: symbol})
