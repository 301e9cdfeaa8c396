"""What all losses share: checked arguments, and one number of many, weighted or masked."""

from __future__ import annotations

from numbers import Real
from typing import Any, Literal

from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.elementwise import where
from nncompile.ir.basic import as_value
from nncompile.ir.broadcasting import fitted
from nncompile.ir.dims import broadcasts_to, same_shape
from nncompile.ir.op import Value, described
from nncompile.ops import broadcast_to, cast, mean, ratio, reshape, total
from nncompile.ops import sum as sum_of
from nncompile.ops.core.assertions import in_range

CONVERTS = "x.astype(f32) converts"
Reduction = Literal["mean", "sum", "none"]


def reduced(
    losses: Value,
    reduction: Reduction,
    weight: Any = None,
    mask: Any = None,
    counts: Value | None = None,
) -> Value:
    """The mean, the sum, or the losses themselves.

    `weight` multiplies the losses; where the boolean `mask` is False they do not count, whatever
    they are. Both have the shape of the losses, or of its first axes. A weighted mean is
    Σ weight·loss / Σ weight, and 0 where there is no weight at all; `counts` is what a loss weighs
    before `weight` and `mask` (1 by default), in the mean's divisor alone. The mean of an empty
    batch, without weights, is NaN, as torch's. A sum is a `total`: over several batches it is that
    of all of them.

    Raises `ModelError` for another word, `ShapeError` for a weight or mask that does not fit.
    """
    if reduction not in ("mean", "sum", "none"):
        raise ModelError(
            f'reduction must be "mean", "sum" or "none", got {reduction!r}',
            hint='torch\'s "batchmean", the mean over the rows, is "mean" here'
            if str(reduction) == "batchmean"
            else None,
        )
    if mask is not None:
        counted = rows_of(mask, losses)
        if not counted.dtype.is_bool:
            raise DTypeError(
                f"a mask must be boolean, got {counted.type}",
                hint="weight=... takes numbers; mask > 0 makes a boolean mask",
            )
        losses = where(counted, losses, 0.0)
        ones = cast(counted, losses.dtype)
        counts = ones if counts is None else counts * ones
    if weight is not None:
        factor = cast(rows_of(weight, losses, "weight"), losses.dtype)
        losses = losses * factor
        counts = factor if counts is None else counts * factor
    if reduction == "none":
        return losses
    if reduction == "sum":
        return total(sum_of(losses))
    if counts is None:
        return mean(losses)
    return ratio(sum_of(losses), sum_of(broadcast_to(counts, losses.shape)))


def wide(x: Any) -> Value:
    """`x` as a value of the type that losses are computed in, and have: f32 in place of floats of
    16 bits, which squares and sums may be beyond."""
    value = as_value(x)
    return cast(value, value.dtype.computed)


def rows_of(x: Any, losses: Value, role: str = "mask") -> Value:
    """`x` with axes of size 1 at its end, so that it fits the losses, or what else there is of each
    row. Raises `ShapeError` where it does not."""
    value = as_value(x)
    if value.rank < losses.rank:
        value = reshape(value, (*value.shape, *(1 for _ in range(losses.rank - value.rank))))
    if not broadcasts_to(value.shape, losses.shape):
        raise ShapeError(
            f"the {role} does not fit",
            rows=[(role, str(as_value(x).type)), ("fits", str(losses.type))],
            hint="it needs the shape of the losses, or of their leading axes",
        )
    return value


def matched(caller: str, prediction: Any, target: Any) -> tuple[Value, Value]:
    """Both as values of one floating type (see `wide`) and shape. Raises `ShapeError` where the
    shapes differ: broadcast, f32[batch, 1] against f32[batch] would compare everything with
    everything."""
    prediction = wide(prediction)
    target = as_value(target, like=prediction)
    if not prediction.dtype.is_float:
        raise DTypeError(
            f"{caller}: the prediction must be floating-point, got {prediction.type}",
            rows=[("prediction", *described(prediction)), ("target", *described(target))],
            hint=CONVERTS,
        )
    if target.rank == prediction.rank:
        prediction, target = fitted([prediction, target])
    if target.rank and same_shape(prediction.shape, target.shape) is not True:
        raise ShapeError(
            f"{caller}: prediction and target have different shapes",
            rows=[("prediction", str(prediction.type)), ("target", str(target.type))],
            hint="squeeze or reshape one of them: x[:, 0], x.reshape(...)",
        )
    return prediction, cast(target, prediction.dtype)


def claimed(
    caller: str,
    target: Value,
    low: int,
    high: int | None,
    hint: str,
    reduction: Reduction = "mean",
    weight: Any = None,
    mask: Any = None,
) -> Value:
    """The targets of a loss that falls without end where they are outside of `low` to `high`:
    data that are fed as them are refused then. Where some of them may not count, by a weight, a
    mask, or where losses are not reduced, they may be anything."""
    if reduction == "none" or weight is not None or mask is not None or target.dtype.is_bool:
        return target
    return in_range(target, low, high, f"the targets of {caller} must be", hint, reals=True)


def floating(caller: str, **values: Any) -> list[Value]:
    """The arguments as values of one floating type and one shape, or single numbers. Raises
    `DTypeError` or `ShapeError`, which name them."""
    names = list(values)
    first = wide(values[names[0]])
    arguments = [first, *(as_value(values[name], like=first) for name in names[1:])]
    rows = [(name, str(x.type)) for name, x in zip(names, arguments, strict=True)]
    if len({x.rank for x in arguments if x.rank}) == 1:
        arguments = fitted(arguments)
        first = arguments[0]
    if not first.dtype.is_float:
        raise DTypeError(
            f"{caller}: {names[0]} must be floating-point, got {first.type}",
            rows=rows,
            hint=CONVERTS,
        )
    if any(x.rank and same_shape(x.shape, first.shape) is not True for x in arguments):
        raise ShapeError(f"{caller}: {' and '.join(names)} have different shapes", rows=rows)
    return [cast(x, first.dtype) for x in arguments]


def within(caller: str, name: str, x: float, low: float, high: float) -> float:
    """The option `x`. Raises `ModelError` where it is not a number from `low` to `high`."""
    if isinstance(x, bool) or not isinstance(x, Real) or not low <= x <= high:
        raise ModelError(f"{caller}: {name} must be a number from {low:g} to {high:g}, got {x!r}")
    return float(x)
