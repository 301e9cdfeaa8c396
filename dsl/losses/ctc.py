"""The loss of labels in order without times: connectionist temporal classification."""

from __future__ import annotations

import functools
import math
from typing import Any, Unpack

from dsl.losses.declaration import Losses, Reducing, loss
from dsl.losses.reduction import wide
from dsl.losses.suspects import warn_of_probabilities
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.elementwise import (
    logaddexp,
    logical_and,
    maximum,
    round,
    stop_gradient,
    where,
)
from nncompile.ir.basic import as_value
from nncompile.ir.dims import same_shape
from nncompile.ir.op import Value
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
from nncompile.ops.core.assertions import LENGTHS, in_range, limited
from nncompile.ops.loops.scan import scan

# The logarithm of a probability of 0: the differences of infinities would be NaN.
_NEVER = -1e30


@loss
def ctc_loss(
    logits: Any,
    label: Any,
    length: Any = None,
    label_length: Any = None,
    *,
    blank: int = 0,
    zero_infinity: bool = False,
    **reducing: Unpack[Reducing],
) -> Losses:
    """−log of the probability of all ways to say the labels in their order, each for one step or
    more, with blanks between, before and after (A. Graves and others, "Connectionist Temporal
    Classification", 2006).

    `logits` are f32[batch, time, classes] (their log softmax gives the same); `label` holds class
    numbers, i64[batch, letters], of which the first `label_length` of each row count (i64[batch];
    all without), as do the first `length` steps of the logits. Two equal labels need a blank
    between them.

    As torch's: the mean divides each loss by the number of its labels first; where there are fewer
    steps than the labels need, the loss is infinite, or 0 with `zero_infinity` (with gradients of 0
    either way). torch has time first, `ctc_loss(log_softmax(logits).transpose(0, 1), …)`.

    Both lengths may be 0: blanks alone spell no labels, and so do no steps.

    Raises `ShapeError` or `DTypeError` for arguments that do not fit, and for more labels than
    steps where all labels count and not `zero_infinity` (`FeedError` where the data tell);
    `ModelError` for a blank that is not a class and for known lengths that are negative or of more
    than there is; such lengths in data are a `FeedError`.
    """
    logits, label = wide(logits), as_value(label)
    _check(logits, label, blank)
    warn_of_probabilities(
        "ctc_loss", "logits", logits, "pass the logits, it applies the softmax itself"
    )
    count, steps = logits.shape[:2]
    letters = label.shape[1]
    if label_length is None and not zero_infinity:
        label = limited(
            label,
            letters,
            steps,
            "ctc_loss: {size} labels do not fit in {limit} steps: the loss would be infinite",
            "use longer sequences, or label_length= if labels are padded; zero_infinity=True "
            "counts "
            "such rows as 0",
        )
    length = _lengths("length", length, steps, count)
    label_length = _lengths("label_length", label_length, letters, count)
    # Blanks between all labels, before and after them: states 2·i + 1 are labels, the others blank.
    is_label = iota(letters) < expand_dims(label_length, 1)
    inner = where(is_label, cast(label, length.dtype), blank)
    pairs = reshape(stack([inner, inner * 0 + blank], 2), (count, 2 * letters))
    states = concatenate([full((count, 1), blank, length.dtype), pairs], 1)
    two_before = _before(states, -1)[1]
    skips = logical_and(states != blank, states != two_before)
    emitted = [
        moveaxis(take_along_axis(logarithm, expand_dims(states, 1), 2), 1, 0)
        for logarithm in _log_probability(logits)
    ]

    def advance(
        whole: Value, rest: Value, whole_emitted: Value, rest_emitted: Value, step: Value
    ) -> Split:
        (one, two), (rest_one, rest_two) = _before(whole, _NEVER), _before(rest, 0.0)
        two = where(skips, two, _NEVER)
        largest, remainder = _sum((whole, rest), (one, rest_one), (two, rest_two))
        carry, rest_now = _split(remainder + rest_emitted)
        going = expand_dims(step < length, 1)
        now = where(going, largest + whole_emitted + carry, whole)
        return now, where(going, rest_now, rest)

    first = where(iota(2 * letters + 1) == 0, 0.0, _NEVER)
    start = cast(broadcast_to(first, (count, 2 * letters + 1)), logits.dtype)
    last = scan(advance, (start, 0 * start), (*emitted, iota(steps)))
    end = expand_dims(2 * label_length, 1)
    blank_last, rest_blank = (squeeze(take_along_axis(x, end, 1), 1) for x in last)
    before = maximum(end - 1, 0)
    label_last, rest_label = (squeeze(take_along_axis(x, before, 1), 1) for x in last)
    label_last = where(label_length > 0, label_last, _NEVER)
    largest, rest = _sum((blank_last, rest_blank), (label_last, rest_label))
    unsaid = 0.0 if zero_infinity else math.inf
    losses = where(largest > 0.5 * _NEVER, -(largest + rest), unsaid)
    if reducing.get("reduction", "mean") == "mean":
        losses = losses / cast(maximum(label_length, 1), losses.dtype)
    return losses


# Sums over many steps are large, and gradients come of small differences between them. So
# logarithms are kept as a whole number, which is exact, and a rest of about −½ … ½. The whole
# numbers have derivative 0: the rests alone depend on the logits continuously.
Split = tuple[Value, Value]


def _split(x: Value) -> Split:
    """The nearest whole number, and the rest."""
    nearest = stop_gradient(round(x))
    return nearest, x - nearest


def _log_probability(logits: Value) -> Split:
    """The logarithm of the softmax over the last axis, whose differences are not rounded."""
    whole, rest = _split(maximum(logits, _NEVER))
    largest, rest_largest = _split(logits.max(2, keepdims=True))
    once = log_softmax(logits, 2)
    # Gradients are those of the softmax taken twice, which changes nothing in it: where a network
    # is sure, they are small differences of numbers near 1, and the second takes their errors away.
    twice = maximum(log_softmax(once, 2), _NEVER)
    exact = stop_gradient(rest - rest_largest + once.max(2, keepdims=True))
    return whole - largest, exact + (twice - stop_gradient(twice))


def _sum(*logarithms: Split) -> Split:
    """The logarithm of the sum of what they are logarithms of; its rest is not small."""
    largest = functools.reduce(maximum, (whole for whole, _ in logarithms))
    rests = (stop_gradient(whole - largest) + rest for whole, rest in logarithms)
    return largest, functools.reduce(logaddexp, rests)


def _before(x: Value, outside: float) -> tuple[Value, Value]:
    """What stands one and two places before each along the last axis of a matrix."""
    rows = x.shape[0]
    padded = concatenate([full((rows, 2), outside, x.dtype), x], 1)
    return padded[:, 1:-1], padded[:, :-2]


def _check(logits: Value, label: Value, blank: int) -> None:
    rows = [("logits", str(logits.type)), ("label", str(label.type))]
    if not logits.dtype.is_float or not label.dtype.is_integer:
        raise DTypeError("ctc_loss: logits must be real, labels class indices", rows=rows)
    if logits.rank != 3 or label.rank != 2:
        raise ShapeError(
            "ctc_loss: logits must be [batch, time, classes], labels [batch, length]",
            rows=rows,
        )
    if same_shape(logits.shape[:1], label.shape[:1]) is not True:
        raise ShapeError("ctc_loss: logits and labels have different batch sizes", rows=rows)
    classes = logits.shape[2]
    if blank < 0 or (isinstance(classes, int) and blank >= classes):
        raise ModelError(f"ctc_loss: the blank must be one of {classes} classes, got {blank}")


def _lengths(name: str, x: Any, limit: Any, count: Any) -> Value:
    """A length for each row of the batch, `limit` by default."""
    if x is None:
        return broadcast_to(as_value(limit), (count,))
    value = as_value(x)
    if not value.dtype.is_integer:
        raise DTypeError(f"ctc_loss: {name} must be integers, got {value.type}")
    value = in_range(value, 0, limit, f"each {name} of ctc_loss must be", LENGTHS)
    if value.rank == 0:
        return broadcast_to(value, (count,))
    if same_shape(value.shape, (count,)) is not True:
        raise ShapeError(
            f"ctc_loss: {name} needs one number per row", rows=[(name, str(value.type))]
        )
    return value
