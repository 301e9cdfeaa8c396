"""Rows: numpy's functions of arrays, and elements by their places."""

from __future__ import annotations

from typing import Any

import numpy as np

import dsl
from dsl import f32, i64
from tests.coverage.building import of
from tests.coverage.checks import System

ARRAYS = "Array functions"
SQUARE = f32["batch", 4, 4]


def _row(name: str, function: Any, test: str, *types: Any, **options: Any) -> System:
    agrees = {"agrees": "numpy", "test": f"tests/test_{test}.py"}
    return System(name, ARRAYS, of(function, *types), **{**agrees, **options})


def _places(rng: np.random.Generator) -> dict[str, Any]:
    """Places on an axis of four, some of them twice."""
    return {"x1": rng.integers(0, 4, 3), "x2": rng.normal(size=(3, 3)).astype(np.float32)}


def _put(reduction: str) -> Any:
    return lambda x, places, new: dsl.scatter(x, places, new, 1, reduction)


ROWS = (
    _row("roll", lambda x: dsl.roll(x, 2, 1), "arranging"),
    _row("rot90", lambda x: dsl.rot90(x, 1, (1, 2)), "arranging", SQUARE),
    _row("tril, triu", lambda x: dsl.tril(x) + 2 * dsl.triu(x, 1), "arranging", SQUARE),
    _row("diag", lambda x: dsl.diag(x[0], 1), "arranging"),
    _row("diagonal", lambda x: dsl.diagonal(x, 1, 1, 2), "arranging", SQUARE),
    _row("trace", lambda x: dsl.trace(x, 0, 1, 2), "arranging", SQUARE),
    _row("meshgrid", lambda x: dsl.meshgrid(x[0], x[0])[0], "arranging"),
    _row("kron", lambda x: dsl.kron(x, x), "arranging"),
    _row("cross", dsl.cross, "arranging", f32["batch", 3], f32["batch", 3]),
    _row("diff", lambda x: dsl.diff(x, 2), "arranging"),
    _row("cumprod", lambda x: dsl.cumprod(x, 0), "running"),
    _row("cummax, cummin", lambda x: dsl.cummax(x, 0)[0] - dsl.cummin(x, 1)[0], "running",
         agrees="numpy and torch"),
    _row("logcumsumexp", lambda x: dsl.logcumsumexp(x, 0), "running", agrees="numpy and torch"),
    _row("median", lambda x: dsl.median(x, 1), "order"),
    _row("quantiles", lambda x: dsl.quantile(x, [0.1, 0.75], 0), "order"),
    _row("kthvalue", lambda x: dsl.kthvalue(x, 2)[0], "order"),
    _row("bincount", lambda x: dsl.bincount(x, length=4), "searching", i64["batch"], order=0),
    _row("histogram", lambda x: dsl.histogram(x, 5, (-2.0, 2.0))[0], "searching", order=0),
    _row("searchsorted", lambda x: dsl.searchsorted(dsl.sort(x[:, 0]), x), "searching", order=0),
    _row("isin", lambda x, y: dsl.isin(x, y), "searching", i64["batch", 4], i64["batch"], order=0),
    _row("nonzero", lambda x: dsl.nonzero(x > 0)[1], "selecting", order=0),
    _row("masked_select", lambda x: dsl.mean(x[x > 0]), "selecting"),
    *(
        _row(name, _put(kind), "scattering", f32["batch", 4], i64[3], f32["batch", 3],
             feeds=_places, agrees=agrees)
        for name, kind, agrees in (
            ("scatter, overwriting", "none", "numpy"),
            ("scatter, maximum", "max", "numpy and torch"),
            ("scatter, minimum", "min", "numpy and torch"),
            ("scatter, product", "mul", "numpy"),
        )
    ),
    _row("put_along_axis", lambda x, i, v: dsl.put_along_axis(x, i, v, 1), "scattering",
         f32[3, 4], i64[3, 2], f32[3, 2],
         feeds=lambda rng: {"x1": rng.integers(0, 4, (3, 2))}),
)  # fmt: skip
