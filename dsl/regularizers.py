"""Regularizers: penalties that are added to a loss, and bounds that weights are brought back to."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dsl.building import active
from nncompile.diagnostics.errors import ModelError, ShapeError, did_you_mean
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import abs as absolute
from nncompile.elementwise import log, maximum, minimum, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import as_value, cast, in_single
from nncompile.ir.graph import Input
from nncompile.ir.names import matches
from nncompile.ir.op import Value
from nncompile.ir.types import Axes
from nncompile.ops import iota, mean, norm
from nncompile.ops import sum as sum_of

Penalized = str | Value | Sequence[str | Value]
"""Values, or patterns of the paths of parameters (`"*.weight"`), or several of them."""


@suggests_names
def l1(params: Penalized = "*.weight", amount: float = 1.0) -> Value:
    """amount·Σ|w|, which makes weights exactly 0 that are of little use (R. Tibshirani, 1996).

    `params` are values, or patterns of the paths of parameters, of which those count that the model
    has declared so far: use it after the layers. Raises `ModelError` where none matches.

    >>> from dsl import Dense, f32, l1, l2, model, mse
    >>> @model
    ... def line(x=f32["batch", 3], y=f32["batch", 1]):
    ...     prediction = x >> Dense(1)
    ...     return {"prediction": prediction, "loss": mse(prediction, y) + l1(amount=0.01)}
    """
    return _summed("l1", params, absolute, amount)


@suggests_names
def l2(params: Penalized = "*.weight", amount: float = 1.0) -> Value:
    """amount·Σ w², whose gradient is 2·amount·w (A. Hoerl and R. Kennard, "Ridge regression",
    1970). Under plain gradient descent it is weight decay of twice the amount; see `l1` for
    `params`."""
    return _summed("l2", params, lambda w: w * w, amount)


@suggests_names
def orthogonality(params: Penalized = "*.weight", amount: float = 1.0) -> Value:
    """amount·Σ (WᵀW − I)², or WWᵀ where that is smaller: 0 where the columns (or rows) of each
    matrix are unit vectors at right angles (A. Brock and others, 2017); see `l1` for `params`."""

    def deviation(w: Value) -> Value:
        if w.rank != 2:
            raise ShapeError(f"orthogonality needs a matrix, got {w.type}")
        rows, columns = w.shape
        wide = isinstance(rows, int) and isinstance(columns, int) and columns > rows
        gram, size = (w @ w.T, rows) if wide else (w.T @ w, columns)
        indices = iota(size)
        difference = where(indices[:, None] == indices, gram - 1, gram)
        return difference * difference

    return _summed("orthogonality", params, deviation, amount)


@suggests_names
@in_single
def activity_l1(activation: Any, amount: float = 1.0) -> Value:
    """amount·Σ|a| for each example, the mean over the batch (the first axis): few units at a time
    are to be active."""
    return _scaled(amount, mean(_for_each(absolute(as_value(activation)))))


@suggests_names
@in_single
def activity_l2(activation: Any, amount: float = 1.0) -> Value:
    """amount·Σ a² for each example, the mean over the batch (the first axis)."""
    activation = as_value(activation)
    return _scaled(amount, mean(_for_each(activation * activation)))


@formula
def _divergence(rate: Any, target: Any) -> Any:
    rate = maximum(minimum(rate, 1 - 1e-6), 1e-6)
    return target * log(target / rate) + (1 - target) * log((1 - target) / (1 - rate))


@suggests_names
@in_single
def sparsity(activation: Any, rate: float = 0.05, amount: float = 1.0) -> Value:
    """amount·Σ KL(ρ ‖ mean activation) over the units, the means over the batch: each unit, of an
    activation between 0 and 1, is to be active in a share ρ of the examples, as in sparse
    autoencoders (A. Ng, 2011)."""
    if not 0 < rate < 1:
        raise ModelError(f"sparsity: the rate must be between 0 and 1, got {rate!r}")
    return _scaled(amount, sum_of(_divergence(mean(as_value(activation), 0), rate)))


@suggests_names
@in_single
def max_norm(weight: Any, limit: float = 3.0, axis: Axes = 0, eps: float = 1e-12) -> Value:
    """The weights, with vectors along `axis` that are longer than the limit shortened to it (N.
    Srivastava and others, "Dropout", 2014). Of a Dense weight, axis 0 holds what flows into one
    unit; of a convolution's [out, in, height, width], axes 1, 2 and 3 do.

    It is applied after each step, by an update after that of the optimizer:

        updates=[minimize("loss"), assign("dense.weight", lambda v: max_norm(v["dense.weight"]))]
    """
    weight = as_value(weight)
    if not limit > 0:
        raise ModelError(f"max_norm: the limit must be positive, got {limit!r}")
    length = norm(weight, axis=axis, keepdims=True)
    result: Value = where(length > limit, weight * (limit / maximum(length, eps)), weight)
    return result


@suggests_names
@in_single
def unit_norm(weight: Any, axis: Axes = 0, eps: float = 1e-12) -> Value:
    """The weights, with every vector along `axis` made a unit vector; vectors of 0 stay. Applied
    as `max_norm` is."""
    weight = as_value(weight)
    result: Value = weight / maximum(norm(weight, axis=axis, keepdims=True), eps)
    return result


def _for_each(x: Value) -> Value:
    """The sum for each example."""
    return sum_of(x, tuple(range(1, x.rank)))


def _scaled(amount: Any, penalty: Value) -> Value:
    result: Value = penalty * amount
    return result


def _summed(caller: str, params: Penalized, penalty: Any, amount: Any) -> Value:
    # Squares of floats of 16 bits, and sums of them, may be beyond these.
    values = [cast(w, w.dtype.computed) for w in _chosen(caller, params)]
    result = sum_of(penalty(values[0]))
    for value in values[1:]:
        result = result + sum_of(penalty(value))
    return _scaled(amount, result)


def _chosen(caller: str, params: Penalized) -> list[Value]:
    several = [params] if isinstance(params, str | Value) else list(params)
    chosen: dict[Value, None] = {}
    for pattern in several:
        if not isinstance(pattern, str):
            chosen[as_value(pattern)] = None
            continue
        leaves = active(f"{caller}({pattern!r})").leaves
        floats = {
            path: leaf
            for path, leaf in leaves.items()
            if isinstance(leaf.op, Input) and leaf.op.kind == "parameter" and leaf.dtype.is_float
        }
        matching = [leaf for path, leaf in floats.items() if matches(path, pattern)]
        if not matching:
            raise ModelError(
                f"{caller}: no parameter so far matches {pattern!r}",
                rows=[("parameter", path, str(leaf.type)) for path, leaf in floats.items()],
                hint=did_you_mean(pattern, floats) or "call it after the layers that it applies to",
            )
        chosen |= dict.fromkeys(matching)
    if not chosen:
        raise ModelError(f"{caller}: nothing to penalize", hint='a pattern, "*.weight", or values')
    return list(chosen)


__all__ = [
    "activity_l1",
    "activity_l2",
    "l1",
    "l2",
    "max_norm",
    "orthogonality",
    "sparsity",
    "unit_norm",
]
