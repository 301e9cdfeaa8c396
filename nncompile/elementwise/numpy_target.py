"""The numpy meaning of a body."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import sympy as sp

from nncompile.elementwise.error_functions import erfinv
from nncompile.elementwise.expressions import symbols_of
from nncompile.elementwise.gamma import digamma, lgamma
from nncompile.elementwise.lowering import walk
from nncompile.elementwise.terms import Function, in_double
from nncompile.ir.types import DType, dtype_of


def _elementwise(function: Callable[[float], float]) -> Callable[[Any], Any]:
    """A function of Python's numbers as one of arrays, in half the time of `np.vectorize`."""

    def of_array(x: Any) -> Any:
        array = np.asarray(x, np.float64)
        numbers = map(function, array.ravel().tolist())
        return np.fromiter(numbers, np.float64, array.size).reshape(array.shape)

    return of_array


_erf, _erfc = _elementwise(math.erf), _elementwise(math.erfc)


def _sigmoid(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))


def _power(x: Any, y: Any) -> Any:
    """Of integers, a negative power is 1/xⁿ towards zero, and 0 for 0; numpy raises an error."""
    if x.dtype.kind not in "iu":
        return np.power(x, y)
    # ±1 to the power −n is ±1 to the power n.
    power = np.power(x, np.where(y < 0, y & 1, y).astype(y.dtype))
    return np.where((y < 0) & (np.abs(x) != 1), 0, power).astype(x.dtype)


# Calls whose numpy name or meaning differs; all others are numpy's functions of that name.
_OWN: dict[str, Callable[..., Any]] = {
    "power": _power,
    "erf": lambda x: _erf(x).astype(x.dtype),
    "erfc": lambda x: _erfc(x).astype(x.dtype),
    "sigmoid": _sigmoid,
    "gate": _sigmoid,
    "softplus": lambda x: np.logaddexp(x.dtype.type(0), x),
    "relu": lambda x: np.maximum(x, x.dtype.type(0)),
    "round": np.rint,
    "stop_gradient": lambda x: x,
}

# What numpy has not.
_IN_DOUBLE: dict[str, Function] = {"lgamma": lgamma, "digamma": digamma, "erfinv": erfinv}


class NumpyTarget:
    """Computes with numpy arrays, in the dtype of each call."""

    def call(self, name: str, dtype: DType, /, *args: Any) -> Any:
        """The array of this primitive of `args`."""
        if name in _IN_DOUBLE:
            return in_double(self, _IN_DOUBLE[name], dtype, *args)
        function = _OWN.get(name) or getattr(np, name)
        return function(*args)

    def literal(self, number: float, dtype: DType, /) -> Any:
        """A scalar of that element type."""
        return dtype.numpy.type(number)

    def cast(self, x: Any, source: DType, dtype: DType, /) -> Any:
        """`x` in the element type `dtype`."""
        return x.astype(dtype.numpy)


_target = NumpyTarget()


def evaluate(
    body: sp.Expr, values: Mapping[sp.Symbol, np.ndarray], dtype: DType | None = None
) -> np.ndarray:
    """The body at arrays (or numpy numbers), computed in their dtypes; a result of `dtype` where
    that is given. Overflows and invalid operations give inf and nan silently, as a graph does."""
    used = {s: values[s] for s in symbols_of(body)}
    dtypes = {s: dtype_of(a.dtype) for s, a in used.items()}
    with np.errstate(all="ignore"):
        return np.asarray(walk(body, used, dtypes, _target, dtype))
