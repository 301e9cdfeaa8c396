"""Random numbers of distributions that have no closed inverse, of the counter-based generator."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from nncompile.diagnostics.errors import ModelError
from nncompile.elementwise import log, logical_and, maximum, sigmoid
from nncompile.ir.basic import cast
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f32
from nncompile.ops.random.generator import normal, random_key, uniform
from nncompile.ops.reduction.extremes import argmax
from nncompile.ops.shape.gathering import take_along_axis
from nncompile.ops.shape.reshape import squeeze

# Each is accepted with a chance above 0.95, so that none is in one of 10¹⁰ draws.
CANDIDATES = 8
_LEAST = 2.0**-33  # below every uniform number but 0


def beta(key: Value, a: float, b: float, shape: Sequence[Any], dtype: DType = f32) -> Value:
    """Random numbers of the Beta(a, b) distribution, within 0 … 1: G/(G + H) with G and H of the
    gamma distribution, by their logarithms, so that small a and b do not underflow."""
    first = _log_gamma(random_key("first", key), a, shape, dtype.computed)
    second = _log_gamma(random_key("second", key), b, shape, dtype.computed)
    return cast(sigmoid(first - second), dtype)


def _log_gamma(key: Value, a: float, shape: Sequence[Any], dtype: DType) -> Value:
    """Logarithms of numbers of the gamma distribution: G. Marsaglia and W. Tsang, "A simple method
    for generating gamma variables" (2000), with the first candidate that is accepted."""
    if not a > 0:
        raise ModelError(f"beta: its parameters must be above 0, got {a}")
    d = a + 1 - 1 / 3  # of a + 1, whose numbers times U^(1/a) are those of a
    sizes = (CANDIDATES, *shape)
    x = normal(random_key("normal", key), sizes, dtype=dtype)
    u = maximum(uniform(random_key("accept", key), sizes, dtype=dtype), _LEAST)
    root = 1 + x * (1 / math.sqrt(9 * d))
    v = maximum(root, _LEAST) ** 3
    accepted = logical_and(root > 0, log(u) < x * x * 0.5 + d - d * v + d * log(v))
    logarithm = take_along_axis(log(v), argmax(accepted, 0, keepdims=True), 0)
    boost = maximum(uniform(random_key("boost", key), shape, dtype=dtype), _LEAST)
    return squeeze(logarithm, 0) + math.log(d) + log(boost) / a
