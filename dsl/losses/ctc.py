"""The loss of labels in order without times: connectionist temporal classification."""

from __future__ import annotations

import math
from typing import Any

from dsl.losses.reduction import Reduction, reduced
from nncompile.dims import same_shape
from nncompile.elementwise import logaddexp, logical_and, maximum, where
from nncompile.errors import DTypeError, ModelError, ShapeError
from nncompile.graph import Value
from nncompile.ops import (
    broadcast_to,
    cast,
    concatenate,
    expand_dims,
    full,
    iota,
    log_softmax,
    moveaxis,
    reshape,
    squeeze,
    stack,
    take_along_axis,
)
from nncompile.ops.basic import as_value
from nncompile.ops.scan import scan

# The logarithm of a probability of 0: the differences of infinities would be NaN.
_NEVER = -1e30


def ctc_loss(
    logits: Any,
    label: Any,
    length: Any = None,
    label_length: Any = None,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    reduction: Reduction = "mean",
    weight: Any = None,
    mask: Any = None,
) -> Value:
    """−log of the probability of all ways to say the labels in their order, each for one step or
    more, with blanks between, before and after (A. Graves and others, "Connectionist Temporal
    Classification", 2006).

    `logits` are f32[batch, time, classes] (their log softmax gives the same); `label` holds class
    numbers, i64[batch, letters], of which the first `label_length` of each row count (i64[batch];
    all without), as do the first `length` steps of the logits. Two equal labels need a blank
    between them.

    As torch's: the mean divides each loss by the number of its labels first; where there are fewer
    steps than the labels need, the loss is infinite, or 0 with `zero_infinity` (with slopes of 0
    either way). torch has time first, `ctc_loss(log_softmax(logits).transpose(0, 1), …)`.

    Raises `ShapeError` or `DTypeError` for arguments that do not fit, `ModelError` for a blank that
    is no class.
    """
    logits, label = as_value(logits), as_value(label)
    _check(logits, label, blank)
    count, steps = logits.shape[:2]
    letters = label.shape[1]
    length = _lengths("length", steps if length is None else length, count)
    label_length = _lengths(
        "label_length", letters if label_length is None else label_length, count
    )
    # Blanks between all labels, before and after them: states 2·i + 1 are labels, the others blank.
    known = iota(letters) < expand_dims(label_length, 1)
    inner = where(known, cast(label, length.dtype), blank)
    pairs = reshape(stack([inner, inner * 0 + blank], 2), (count, 2 * letters))
    states = concatenate([full((count, 1), blank, length.dtype), pairs], 1)
    two_before = _before(states, -1)[1]
    skips = logical_and(states != blank, states != two_before)
    log_probability = log_softmax(logits, 2)
    emitted = take_along_axis(log_probability, expand_dims(states, 1), 2)

    def advance(now: Value, log_emission: Value, step: Value) -> Value:
        one, two = _before(now, _NEVER)
        came = logaddexp(logaddexp(now, one), where(skips, two, _NEVER))
        going = expand_dims(step < length, 1)
        return where(going, came + log_emission, now)  # type: ignore[no-any-return]

    first = where(iota(2 * letters + 1) == 0, 0.0, _NEVER)
    start = cast(broadcast_to(first, (count, 2 * letters + 1)), logits.dtype)
    last = scan(advance, start, (moveaxis(emitted, 1, 0), iota(steps)))
    end = expand_dims(2 * label_length, 1)
    blank_last = squeeze(take_along_axis(last, end, 1), 1)
    label_last = squeeze(take_along_axis(last, maximum(end - 1, 0), 1), 1)
    label_last = where(label_length > 0, label_last, _NEVER)
    whole = logaddexp(blank_last, label_last)
    unsaid = 0.0 if zero_infinity else math.inf
    losses = where(whole > 0.5 * _NEVER, -whole, unsaid)
    if reduction == "mean":
        losses = losses / cast(maximum(label_length, 1), losses.dtype)
    return reduced(losses, reduction, weight, mask)


def _before(x: Value, outside: float) -> tuple[Value, Value]:
    """What stands one and two places before each along the last axis of a matrix."""
    rows = x.shape[0]
    padded = concatenate([full((rows, 2), outside, x.dtype), x], 1)
    return padded[:, 1:-1], padded[:, :-2]


def _check(logits: Value, label: Value, blank: int) -> None:
    rows = [("logits", str(logits.type)), ("label", str(label.type))]
    if not logits.dtype.is_float or not label.dtype.is_integer:
        raise DTypeError("ctc_loss: logits are real, labels class numbers", rows=rows)
    if logits.rank != 3 or label.rank != 2:
        raise ShapeError(
            "ctc_loss: logits are of batch, time and classes, labels of batch and letters",
            rows=rows,
        )
    if same_shape(logits.shape[:1], label.shape[:1]) is not True:
        raise ShapeError("ctc_loss: logits and labels are not of one batch", rows=rows)
    classes = logits.shape[2]
    if blank < 0 or (isinstance(classes, int) and blank >= classes):
        raise ModelError(f"ctc_loss: the blank is one of {classes} classes, got {blank}")


def _lengths(name: str, x: Any, count: Any) -> Value:
    """A length for each row of the batch."""
    value = as_value(x)
    if not value.dtype.is_integer:
        raise DTypeError(f"ctc_loss: {name} is of integers, got {value.type}")
    if value.rank == 0:
        return broadcast_to(value, (count,))
    if same_shape(value.shape, (count,)) is not True:
        raise ShapeError(f"ctc_loss: {name} has one number a row", rows=[(name, str(value.type))])
    return value
