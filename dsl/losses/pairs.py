"""Losses of representations: vectors that should be near each other or far apart.

Vectors lie along `axis`, the last one unless it says otherwise. `weight` and `mask` are of one
entry a pair.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

from dsl.losses.classes import cross_entropy
from dsl.losses.declaration import Losses, Reducing, loss
from dsl.losses.reduction import floating, matched
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import clip, maximum, minimum, relu, where
from nncompile.ir.basic import as_value
from nncompile.ir.dims import same_shape
from nncompile.ir.op import Value
from nncompile.ops import cast, iota, norm
from nncompile.ops import sum as sum_of


def _unit(x: Value, axis: int, eps: float) -> Value:
    return x / maximum(norm(x, axis=axis, keepdims=True), eps)


@suggests_names
def cosine_similarity(x: Any, y: Any, axis: int = -1, eps: float = 1e-8) -> Value:
    """The cosine of the angle between the vectors, x·y / (max(|x|, ε)·max(|y|, ε)), as torch's: 0
    where one of them is 0."""
    x, y = floating("cosine_similarity", x=x, y=y)
    return sum_of(_unit(x, axis, eps) * _unit(y, axis, eps), axis)


@loss
def cosine_distance(
    prediction: Any,
    target: Any,
    axis: int = -1,
    eps: float = 1e-8,
    **reducing: Unpack[Reducing],
) -> Losses:
    """1 − cos(prediction, target): 0 where they point the same way, 2 where opposite."""
    prediction, target = matched("cosine_distance", prediction, target)
    return 1 - cosine_similarity(prediction, target, axis, eps)


@loss
def cosine_embedding_loss(
    x: Any,
    y: Any,
    target: Any,
    margin: float = 0.0,
    axis: int = -1,
    **reducing: Unpack[Reducing],
) -> Losses:
    """1 − cos(x, y) where the target is 1, max(0, cos(x, y) − margin) where −1, as torch's."""
    cosine = cosine_similarity(x, y, axis)
    is_similar = _pair_targets("cosine_embedding_loss", target, cosine) > 0
    return where(is_similar, 1 - cosine, clip(cosine - margin, 0, None))


@loss
def contrastive_loss(
    x: Any,
    y: Any,
    same: Any,
    margin: float = 1.0,
    axis: int = -1,
    **reducing: Unpack[Reducing],
) -> Losses:
    """d²/2 for pairs that are the same, max(0, margin − d)²/2 for others, d the distance of x and y
    (R. Hadsell, S. Chopra and Y. LeCun, "Dimensionality Reduction by Learning an Invariant
    Mapping", 2006). `same` is 1 or True for pairs that should be near. The gradient is 0 where d
    is.
    """
    x, y = floating("contrastive_loss", x=x, y=y)
    distance = norm(x - y, axis=axis)
    is_similar = _pair_targets("contrastive_loss", same, distance) > 0
    return where(is_similar, 0.5 * distance**2, 0.5 * relu(margin - distance) ** 2)


@loss
def triplet_loss(
    anchor: Any,
    positive: Any,
    negative: Any,
    margin: float = 1.0,
    p: float = 2.0,
    eps: float = 1e-6,
    swap: bool = False,
    axis: int = -1,
    *,
    distance_function: Callable[[Value, Value], Any] | None = None,
    **reducing: Unpack[Reducing],
) -> Losses:
    """max(0, d(anchor, positive) − d(anchor, negative) + margin), d(x, y) = |x − y + ε| of order
    p, as torch's (V. Balntas and others, 2016). With `swap`, the negative is also compared with
    the positive, and the nearer one counts.

    `distance_function` takes the place of d: a function of two values that gives a floating number
    for each pair, as torch's `TripletMarginWithDistanceLoss` has one; p, ε and the axis are its own
    then. Raises `DTypeError` where it gives something else.
    """
    a, n, b = floating("triplet_loss", anchor=anchor, positive=positive, negative=negative)

    def distance(x: Value, y: Value) -> Value:
        if distance_function is None:
            return norm(x - y + eps, p, axis)
        distances = as_value(distance_function(x, y))
        if not distances.dtype.is_float:
            raise DTypeError(
                f"triplet_loss: distance_function must return floating-point values, got "
                f"{distances.type}"
            )
        return distances

    near, far = distance(a, n), distance(a, b)
    if swap:
        far = minimum(far, distance(n, b))
    return clip(near - far + margin, 0, None)


@loss
def info_nce(
    query: Any,
    key: Any,
    temperature: float = 0.1,
    normalize: bool = True,
    symmetric: bool = False,
    **reducing: Unpack[Reducing],
) -> Losses:
    """The cross-entropy of finding each query's own key, of the same row, among the keys of all
    rows by q·k/τ (A. van den Oord and others, "Representation Learning with Contrastive Predictive
    Coding", 2018). Matrices of one row a pair; rows are made unit vectors first unless `normalize`
    is False. `symmetric` also finds the query of each key, and takes the mean of both, as CLIP
    (2021). A batch of one has nothing to tell apart: its loss is 0."""
    q, k = floating("info_nce", query=query, key=key)
    if q.rank != 2:
        raise ShapeError(f"info_nce: queries and keys must be matrices, got {q.type}")
    if not temperature > 0:
        raise ModelError(f"info_nce: the temperature must be positive, got {temperature!r}")
    if normalize:
        q, k = _unit(q, -1, 1e-12), _unit(k, -1, 1e-12)
    logits = (q @ k.T) / temperature
    rows = iota(q.shape[0])
    losses = cross_entropy(logits, rows, reduction="none")
    if symmetric:
        losses = 0.5 * (losses + cross_entropy(logits, rows, axis=0, reduction="none"))
    return losses


def _pair_targets(caller: str, target: Any, pairs: Value) -> Value:
    value = as_value(target, like=pairs)
    if same_shape(value.shape, pairs.shape) is not True:
        raise ShapeError(
            f"{caller}: the target needs one number per pair",
            rows=[("target", str(value.type)), ("pairs", str(pairs.type))],
        )
    return cast(value, pairs.dtype)
