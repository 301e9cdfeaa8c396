"""Rows: special functions, linear algebra."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dsl
from dsl import f32
from tests.coverage.building import of
from tests.coverage.checks import System

SPECIAL, LINEAR = "Special functions", "Linear algebra"


def _special(name: str, function: Callable[..., Any], *types: Any) -> System:
    agrees = {"agrees": "mpmath", "test": "tests/test_special_functions.py"}
    return System(name, SPECIAL, of(function, *types), **agrees)


_PAIR = f32["batch", 4], f32["batch", 4]
SPECIAL_ROWS = (
    _special("lgamma", lambda x: dsl.lgamma(3 * x + 3)),
    _special("lgamma of negative numbers", lambda x: dsl.lgamma(0.4 * x - 2.5)),
    _special("digamma", lambda x: dsl.digamma(3 * x + 3)),
    _special("polygamma", lambda x: dsl.polygamma(2, 0.5 * x + 1)),
    *(_special(name, getattr(dsl, name)) for name in ("erfc", "erfinv", "i0", "i0e", "i1", "i1e")),
    _special("xlogy", lambda x, y: dsl.xlogy(x, y * y + 0.1), *_PAIR),
    _special("xlog1py", dsl.xlog1py, *_PAIR),
    _special("logit", lambda x: dsl.logit(0.5 + 0.5 * x)),
)


def _linear(name: str, function: Callable[..., Any], *types: Any) -> System:
    agrees = {"agrees": "numpy, torch", "test": "tests/test_linear_algebra.py"}
    return System(name, LINEAR, of(function, *(types or (f32["batch", 3, 3],))), **agrees)


def _regular(x: Any) -> Any:
    """A matrix whose diagonal outweighs the rest."""
    return x + 4 * dsl.eye(3)


_SYSTEM = f32["batch", 3, 3], f32["batch", 3, 2]
LINEAR_ROWS = (
    _linear("solve", lambda a, b: dsl.solve(_regular(a), b), *_SYSTEM),
    _linear("solve_triangular", lambda a, b: dsl.solve_triangular(_regular(a), b), *_SYSTEM),
    _linear("inv", lambda x: dsl.inv(_regular(x))),
    _linear("det", lambda x: dsl.det(_regular(x))),
    _linear("slogdet, logdet", lambda x: dsl.logdet(_regular(x))),
    _linear("cholesky", lambda x: dsl.cholesky(_regular(x))),
    _linear("matrix_power", lambda x: dsl.matrix_power(x, 3)),
    *(
        _linear(f"cdist of order {p}", lambda x, y, p=p: dsl.cdist(x, y, p),
                f32["batch", "n", 3], f32["batch", "m", 3])
        for p in (1, 2, 3)
    ),
    _linear("cdist, the largest difference", lambda x, y: dsl.cdist(x, y, float("inf")),
            f32["batch", "n", 3], f32["batch", "m", 3]),
)  # fmt: skip

ROWS = (*SPECIAL_ROWS, *LINEAR_ROWS)
