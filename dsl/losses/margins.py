"""Losses of margins: scores that should be on the right side of a bound, as torch has them.

All take `reduction`, `weight` and `mask`, which `dsl.losses.reduction.reduced` explains. At the
bound itself gradients are torch's: where it clamps, the loss still counts there.
"""

from __future__ import annotations

from typing import Any

from dsl.losses.binary import PARTLY, binary_cross_entropy_with_logits
from dsl.losses.classes import class_axis, class_weights, weighed
from dsl.losses.reduction import CONVERTS, Reduction, claimed, floating, matched, reduced, wide
from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.diagnostics.hints import teaching
from nncompile.elementwise import clip, relu, softplus, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import as_value
from nncompile.ir.dims import same_shape
from nncompile.ir.graph import Value
from nncompile.ops import any as any_of
from nncompile.ops import cumsum, expand_dims, iota, mean, moveaxis, take_along_axis
from nncompile.ops import sum as sum_of
from nncompile.ops.core.assertions import in_range


@formula
def _ranked(x1: Any, x2: Any, target: Any, margin: Any) -> Any:
    return clip(margin - target * (x1 - x2), 0, None)


@teaching
def margin_ranking_loss(
    x1: Any,
    x2: Any,
    target: Any,
    margin: float = 0.0,
    reduction: Reduction = "mean",
    weight: Any = None,
    mask: Any = None,
) -> Value:
    """max(0, margin − t·(x1 − x2)): t is 1 where x1 should be the greater one, −1 where x2, as
    torch's. All are of one shape. Raises `ShapeError` or `DTypeError` where they do not fit."""
    first, second, sign = floating("margin_ranking_loss", x1=x1, x2=x2, target=target)
    return reduced(_ranked(first, second, sign, margin), reduction, weight, mask)


@formula
def _soft_margin(prediction: Any, target: Any) -> Any:
    return softplus(-target * prediction)


@teaching
def soft_margin_loss(
    prediction: Any,
    target: Any,
    reduction: Reduction = "mean",
    weight: Any = None,
    mask: Any = None,
) -> Value:
    """log(1 + e^(−t·p)), the targets being −1 and 1: the logistic loss, as torch's, and finite for
    every p. Raises `ShapeError` or `DTypeError` where they do not fit."""
    losses = _soft_margin(*matched("soft_margin_loss", prediction, target))
    return reduced(losses, reduction, weight, mask)


@formula
def _hinge_embedding(distance: Any, target: Any, margin: Any) -> Any:
    apart = where(target == 1, 0, clip(margin - distance, 0, None))
    return apart + where(target == -1, 0, distance)


@teaching
def hinge_embedding_loss(
    distance: Any,
    target: Any,
    margin: float = 1.0,
    reduction: Reduction = "mean",
    weight: Any = None,
    mask: Any = None,
) -> Value:
    """d where the target is 1, max(0, margin − d) where it is −1, d the distance of a pair that
    should be near or far apart. As torch's, both count where the target is neither. Raises
    `ShapeError` or `DTypeError` where they do not fit."""
    distance, target = matched("hinge_embedding_loss", distance, target)
    return reduced(_hinge_embedding(distance, target, margin), reduction, weight, mask)


@teaching
def multilabel_margin_loss(
    logits: Any,
    label: Any,
    *,
    axis: int = -1,
    reduction: Reduction = "mean",
    weight: Any = None,
    mask: Any = None,
) -> Value:
    """Σ max(0, 1 − z[j] + z[i]) / n over each class j of a row and each of the n classes i that is
    none of the row's, as torch's (J. Weston and C. Watkins, 1999, of several labels).

    `label` has the numbers of a row's classes along `axis`, in places of any number, up to the
    first −1; what follows it does not count. Raises `ShapeError` where the other axes are not those
    of the logits, `DTypeError` where the numbers are not integers; others than −1 … n − 1 are a
    `FeedError` where the data are fed.
    """
    what = "multilabel_margin_loss"
    logits, label = wide(logits), as_value(label)
    axis = class_axis(what, logits, axis)
    rows = [("logits", str(logits.type)), ("label", str(label.type))]
    if not logits.dtype.is_float:
        raise DTypeError(
            f"{what}: the logits are {logits.type}, not floating", rows=rows, hint=CONVERTS
        )
    if not label.dtype.is_integer:
        raise DTypeError(f"{what}: class numbers are integers", rows=rows, hint="label.astype(i64)")
    z, numbers = moveaxis(logits, axis, -1), label
    if label.rank == logits.rank:
        numbers = moveaxis(label, axis, -1)
    if numbers.rank != z.rank or same_shape(numbers.shape[:-1], z.shape[:-1]) is not True:
        raise ShapeError(
            f"{what}: the labels do not fit the logits",
            rows=rows,
            hint="a row has its class numbers along the axis of the classes, filled up with -1",
        )
    count = z.shape[-1]
    way_out = "-1 fills up a row of fewer labels"
    numbers = in_range(numbers, -1, count - 1, f"the labels of {what} are", way_out)
    counted = cumsum(numbers < 0, -1) == 0
    index = where(counted, numbers, 0)
    own = expand_dims(take_along_axis(z, index, -1), -1)
    counted = expand_dims(counted, -1)  # [..., places, 1], beside [..., places, classes]
    is_own = any_of(counted & (expand_dims(index, -1) == iota(count, index.dtype)), -2, True)
    terms = where(counted & ~is_own, relu(1 - own + expand_dims(z, -2)), 0.0)
    return reduced(mean(sum_of(terms, -2), -1), reduction, weight, mask)


@teaching
def multilabel_soft_margin_loss(
    logits: Any,
    target: Any,
    *,
    axis: int = -1,
    class_weight: Any = None,
    reduction: Reduction = "mean",
    weight: Any = None,
    mask: Any = None,
) -> Value:
    """−Σ w·(t·log σ(z) + (1 − t)·log(1 − σ(z))) / n over the n classes along `axis`, each of which
    holds or not (t is 1 or 0), as torch's; finite for every z. `class_weight` is w, a number for
    each class (torch's `weight`). Raises `ShapeError` or `DTypeError` where they do not fit."""
    what = "multilabel_soft_margin_loss"
    logits, target = matched(what, logits, target)
    target = claimed(what, target, 0, 1, PARTLY, reduction, weight, mask)
    axis = class_axis(what, logits, axis)
    losses = binary_cross_entropy_with_logits(logits, target, "none")
    if class_weight is not None:
        losses = weighed(losses, class_weights(what, class_weight, logits, axis), axis)
    return reduced(mean(losses, axis), reduction, weight, mask)
