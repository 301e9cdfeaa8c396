"""Augmentation of examples together with their labels, and of tokens. While training only; in the
inference graph examples and labels are as they were."""

from __future__ import annotations

from typing import Any

from dsl.augmentation.images import below, box, images
from dsl.layers.base import Layer
from dsl.layers.noise import draw_key, probability_of
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError, whole_number
from nncompile.diagnostics.options import real
from nncompile.elementwise import equal, floor, logical_and, maximum, minimum, sqrt, where
from nncompile.ir.basic import as_value, floating
from nncompile.ir.dims import same
from nncompile.ir.op import Value, described
from nncompile.ir.types import boolean, f32, i64
from nncompile.ops import (
    bernoulli,
    cast,
    full,
    one_hot,
    permutation,
    randint,
    random_key,
    reshape,
    size_value,
    take,
    uniform,
    while_training,
)
from nncompile.ops.random.distributions import beta


class Mixup(Layer):
    """(x, label) to (λx + (1 − λ)x', λt + (1 − λ)t'): while training, each example is mixed with
    another one of the batch, λ of its own from Beta(alpha, alpha) (H. Zhang et al., "mixup: beyond
    empirical risk minimization", 2018).

    x[batch, …] is floating; labels are class indices [batch], of `num_classes` classes, which come
    back as probabilities, for `cross_entropy`; or real numbers [batch, …], mixed as they are:
    probabilities [batch, classes] already, or the targets of a regression. Raises `ModelError`
    where `num_classes` is needed and not given.
    """

    alpha: float = 0.2
    num_classes: int | None = None

    def __post_init__(self) -> None:
        _above_zero(type(self).__name__, self.alpha)

    def __call__(self, x: Any, label: Any) -> tuple[Value, Value]:
        caller = type(self).__name__
        x = floating(caller, x)
        target = soft(caller, x, label, self.num_classes)
        key = draw_key(caller)
        partner = permutation(random_key("partner", key), x.shape[0])
        share = beta(random_key("share", key), self.alpha, self.alpha, x.shape[:1], x.dtype)
        mixed, share = self._mixed(x, take(x, partner, 0), share, random_key("place", key))
        ones = (1 for _ in target.shape[1:])
        weight = cast(reshape(share, (x.shape[0], *ones)), target.dtype)
        labels = weight * target + (1 - weight) * take(target, partner, 0)
        return while_training(mixed, x), while_training(labels, target)

    def _mixed(self, x: Value, partner: Value, share: Value, key: Value) -> tuple[Value, Value]:
        """The mixed examples, and the share of x in each."""
        weight = reshape(share, (x.shape[0], *(1 for _ in x.shape[1:])))
        return weight * x + (1 - weight) * partner, share


class CutMix(Mixup):
    """(images, label) to images of which a random rectangle is from another one of the batch, and
    labels in proportion of the areas: the rectangle has 1 − λ of the area, λ from
    Beta(alpha, alpha), cut off at the edges (S. Yun et al., "CutMix", 2019). Labels and errors are
    those of `Mixup`."""

    alpha: float = 1.0
    num_classes: int | None = None

    def _mixed(self, x: Value, partner: Value, share: Value, key: Value) -> tuple[Value, Value]:
        images("CutMix", x)
        starts: list[Value] = []
        ends: list[Value] = []
        area: Any = 1.0
        for axis, size in enumerate(x.shape[2:]):
            length = size_value(size)
            side = cast(floor(sqrt(1 - share) * size_value(size, x.dtype)), i64)
            start = below(random_key(axis, key), x.shape[0], size) - side // 2
            first, end = maximum(start, 0), minimum(start + side, length)
            share_of_axis = cast(end - first, x.dtype) / cast(length, x.dtype)
            area = share_of_axis * area
            starts.append(first)
            ends.append(end)
        return where(box(x, starts, ends), partner, x), 1 - area


def soft(caller: str, x: Value, label: Any, num_classes: int | None) -> Value:
    """Labels as real numbers, class indices as probabilities [batch, classes]."""
    target = as_value(label)
    if target.rank == 0 or x.rank == 0 or same(target.shape[0], x.shape[0]) is not True:
        raise ShapeError(
            f"{caller}: needs one label for each example",
            rows=[("x", *described(x)), ("label", *described(target))],
        )
    if target.dtype.is_float:
        return target
    if num_classes is None:
        raise ModelError(
            f"{caller}: the labels are class indices, {target.type}, and the number of classes is "
            "unknown",
            hint=f"{caller}(num_classes=10)",
        )
    if target.rank != 1:
        raise ShapeError(f"{caller}: class indices must be [batch], got {target.type}")
    return one_hot(target, whole_number("num_classes", num_classes, least=1), x.dtype)


def _above_zero(caller: str, alpha: Any) -> None:
    if not real(f"the alpha of {caller}", alpha) > 0:
        raise ModelError(f"the alpha of {caller} must be positive, got {alpha!r}")


class LabelNoise(Layer):
    """While training, each class number is another random one of `num_classes` classes with
    probability `rate`, or by chance the same. Raises `ModelError` for a rate outside [0, 1)."""

    num_classes: int
    rate: float = 0.1

    def __post_init__(self) -> None:
        probability_of("the rate of LabelNoise", self.rate)
        whole_number("num_classes of LabelNoise", self.num_classes, least=1)

    def __call__(self, label: Any) -> Value:
        label = _integers("LabelNoise", "labels", label)
        key = draw_key("LabelNoise")
        random_labels = randint(random_key("class", key), label.shape, 0, self.num_classes)
        changed = bernoulli(random_key("changed", key), self.rate, label.shape)
        return while_training(where(changed, cast(random_labels, label.dtype), label), label)


class MaskTokens(Layer):
    """Tokens to (tokens, chosen): while training, each is chosen with probability `rate`; of those
    chosen `masked` become the token `mask`, `random` a random one of `vocabulary` tokens, and the
    rest stay (J. Devlin et al., "BERT", 2019). `never` are tokens that are not chosen, as padding.
    `chosen`, bool, says where a loss is taken; in the inference graph no token is.

    Raises `ModelError` for shares that are not within 0 … 1, or where `vocabulary` is needed.
    """

    mask: int
    vocabulary: int | None = None
    rate: float = 0.15
    masked: float = 0.8
    random: float = 0.1
    never: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        probability_of("the rate of MaskTokens", self.rate)
        if self.masked < 0 or self.random < 0 or self.masked + self.random > 1:
            raise ModelError(
                "MaskTokens: masked and random are fractions that add up to at most 1, got "
                f"{self.masked} and "
                f"{self.random}"
            )
        if self.random and self.vocabulary is None:
            raise ModelError(
                "MaskTokens: random tokens need the size of the vocabulary",
                hint="MaskTokens(mask=0, vocabulary=1000), or random=0",
            )

    def __call__(self, tokens: Any) -> tuple[Value, Value]:
        tokens = _integers("MaskTokens", "tokens", tokens)
        key = draw_key("MaskTokens")
        chosen = bernoulli(random_key("chosen", key), self.rate, tokens.shape)
        for token in self.never:
            chosen = logical_and(chosen, ~equal(tokens, token))
        kind = uniform(random_key("kind", key), tokens.shape, dtype=f32)
        changed = tokens
        if self.vocabulary is not None and self.random:
            random_tokens = randint(random_key("token", key), tokens.shape, 0, self.vocabulary)
            replaced = kind < self.masked + self.random
            changed = where(replaced, cast(random_tokens, tokens.dtype), changed)
        changed = where(kind < self.masked, self.mask, changed)
        return (
            while_training(where(chosen, changed, tokens), tokens),
            while_training(chosen, full(tokens.shape, False, boolean)),
        )


def _integers(caller: str, name: str, x: Any) -> Value:
    value = as_value(x)
    if not value.dtype.is_integer:
        raise DTypeError(f"{caller}: {name} must be integers, got {value.type}")
    return value


__all__ = [
    "CutMix",
    "LabelNoise",
    "MaskTokens",
    "Mixup",
]
