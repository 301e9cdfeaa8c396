"""Metrics of real predictions. The losses `mse` and `mae` are metrics too."""

from __future__ import annotations

from typing import Any

from dsl.losses.reduction import matched, rows_of
from dsl.losses.regression import mean_squared_error
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import maximum, where
from nncompile.elementwise.formula import formula
from nncompile.ir.op import Value
from nncompile.ir.types import f64
from nncompile.ops import broadcast_to, cast, ones_like, total
from nncompile.ops import sum as sum_of
from nncompile.ops.reduction.statistics import root


@suggests_names
def root_mean_squared_error(
    prediction: Any, target: Any, weight: Any = None, mask: Any = None
) -> Value:
    """√ of the mean of (p − t)²; its gradient is 0 where all predictions are exact."""
    return root(mean_squared_error(prediction, target, weight=weight, mask=mask))


# Of a sum of squares in f64, what is left by cancellation.
_ROUNDING = 1e-13


@formula
def _determined(residual: Any, spread: Any, squares: Any) -> Any:
    constant = spread <= _ROUNDING * squares
    exact = where(residual > 0, 0.0, 1.0)
    return where(constant, exact, 1 - residual / where(constant, 1.0, spread))


@suggests_names
def r2_score(prediction: Any, target: Any, mask: Any = None) -> Value:
    """R², the share of the targets' variance that the predictions explain:
    1 − Σ(t − p)² / Σ(t − t̄)², over all elements. As scikit-learn's, it is 1 for exact predictions
    of targets that are all the same, 0 for others of them; below 0 where the mean of the targets
    would have been the better prediction. Computed in double."""
    prediction, target = matched("r2_score", prediction, target)
    dtype = prediction.dtype
    target = cast(broadcast_to(target, prediction.shape), f64)
    counted = cast(ones_like(prediction) if mask is None else rows_of(mask, prediction), f64)
    error = cast(prediction, f64) - target
    residual, sums, squares, count = (
        total(sum_of(broadcast_to(x * counted, target.shape)))
        for x in (error * error, target, target * target, ones_like(target))
    )
    spread = maximum(squares - sums * sums / maximum(count, 1.0), 0.0)
    return cast(_determined(residual, spread, squares), dtype)
