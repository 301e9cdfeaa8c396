"""Losses of margins: scores that should be on the right side of a bound, as torch has them.

At the bound itself gradients are torch's: where it clamps, the loss still counts there.
"""

from __future__ import annotations

from typing import Any, Unpack

from dsl.losses.binary import PARTLY, binary_cross_entropy_with_logits
from dsl.losses.classes import class_axis, class_weights, weighed
from dsl.losses.declaration import Losses, Reducing, loss, pointwise
from dsl.losses.reduction import CONVERTS, claimed, floating, matched, wide
from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.elementwise import clip, relu, softplus, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import as_value
from nncompile.ir.dims import same_shape
from nncompile.ops import any as any_of
from nncompile.ops import cumsum, expand_dims, iota, mean, moveaxis, take_along_axis
from nncompile.ops import sum as sum_of
from nncompile.ops.core.assertions import in_range


@formula
def _ranked(x1: Any, x2: Any, target: Any, margin: Any) -> Any:
    return clip(margin - target * (x1 - x2), 0, None)


@loss
def margin_ranking_loss(
    x1: Any,
    x2: Any,
    target: Any,
    margin: float = 0.0,
    **reducing: Unpack[Reducing],
) -> Losses:
    """max(0, margin − t·(x1 − x2)): t is 1 where x1 should be the greater one, −1 where x2, as
    torch's. All are of one shape. Raises `ShapeError` or `DTypeError` where they do not fit."""
    first, second, sign = floating("margin_ranking_loss", x1=x1, x2=x2, target=target)
    return _ranked(first, second, sign, margin)


@pointwise
def soft_margin_loss(prediction: Any, target: Any, **reducing: Unpack[Reducing]) -> Any:
    """log(1 + e^(−t·p)), the targets being −1 and 1: the logistic loss, as torch's, and finite for
    every p. Raises `ShapeError` or `DTypeError` where they do not fit."""
    return softplus(-target * prediction)


@pointwise
def hinge_embedding_loss(
    distance: Any, target: Any, margin: float = 1.0, **reducing: Unpack[Reducing]
) -> Any:
    """d where the target is 1, max(0, margin − d) where it is −1, d the distance of a pair that
    should be near or far apart. As torch's, both count where the target is neither. Raises
    `ShapeError` or `DTypeError` where they do not fit."""
    hinge = where(target == 1, 0, clip(margin - distance, 0, None))
    return hinge + where(target == -1, 0, distance)


@loss
def multilabel_margin_loss(
    logits: Any,
    label: Any,
    *,
    axis: int = -1,
    **reducing: Unpack[Reducing],
) -> Losses:
    """Σ max(0, 1 − z[j] + z[i]) / n over each class j of a row and each of the n classes i that is
    none of the row's, as torch's (J. Weston and C. Watkins, 1999, of several labels).

    `label` has the numbers of a row's classes along `axis`, in places of any number, up to the
    first −1; what follows it does not count. Raises `ShapeError` where the other axes are not those
    of the logits, `DTypeError` where the numbers are not integers; others than −1 … n − 1 are a
    `FeedError` where the data are fed.
    """
    caller = "multilabel_margin_loss"
    logits, label = wide(logits), as_value(label)
    axis = class_axis(caller, logits, axis)
    rows = [("logits", str(logits.type)), ("label", str(label.type))]
    if not logits.dtype.is_float:
        raise DTypeError(
            f"{caller}: the logits must be floating-point, got {logits.type}",
            rows=rows,
            hint=CONVERTS,
        )
    if not label.dtype.is_integer:
        raise DTypeError(
            f"{caller}: class indices must be integers", rows=rows, hint="label.astype(i64)"
        )
    z, numbers = moveaxis(logits, axis, -1), label
    if label.rank == logits.rank:
        numbers = moveaxis(label, axis, -1)
    if numbers.rank != z.rank or same_shape(numbers.shape[:-1], z.shape[:-1]) is not True:
        raise ShapeError(
            f"{caller}: the labels do not fit the logits",
            rows=rows,
            hint="each row lists its class indices along the class axis, padded with -1",
        )
    count = z.shape[-1]
    hint = "-1 pads a row with fewer labels"
    numbers = in_range(numbers, -1, count - 1, f"the labels of {caller} must be", hint)
    counted = cumsum(numbers < 0, -1) == 0
    index = where(counted, numbers, 0)
    label_logits = expand_dims(take_along_axis(z, index, -1), -1)
    counted = expand_dims(counted, -1)  # [..., places, 1], beside [..., places, classes]
    is_label = any_of(counted & (expand_dims(index, -1) == iota(count, index.dtype)), -2, True)
    terms = where(counted & ~is_label, relu(1 - label_logits + expand_dims(z, -2)), 0.0)
    return mean(sum_of(terms, -2), -1)


@loss
def multilabel_soft_margin_loss(
    logits: Any,
    target: Any,
    *,
    axis: int = -1,
    class_weight: Any = None,
    **reducing: Unpack[Reducing],
) -> Losses:
    """−Σ w·(t·log σ(z) + (1 − t)·log(1 − σ(z))) / n over the n classes along `axis`, each of which
    holds or not (t is 1 or 0), as torch's; finite for every z. `class_weight` is w, a number for
    each class (torch's `weight`). Raises `ShapeError` or `DTypeError` where they do not fit."""
    caller = "multilabel_soft_margin_loss"
    logits, target = matched(caller, logits, target)
    target = claimed(caller, target, 0, 1, PARTLY, **reducing)
    axis = class_axis(caller, logits, axis)
    losses = binary_cross_entropy_with_logits(logits, target, reduction="none")
    if class_weight is not None:
        losses = weighed(losses, class_weights(caller, class_weight, logits, axis), axis)
    return mean(losses, axis)
