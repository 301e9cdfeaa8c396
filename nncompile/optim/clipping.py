"""Bounds on gradients, before an optimizer sees them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import reduce

from nncompile.elementwise import clip, maximum, sqrt
from nncompile.ir.basic import cast
from nncompile.ir.op import Value


def global_norm(gradients: Mapping[str, Value]) -> Value:
    """√Σ g² over all elements of all gradients, one number."""
    # In order of the names, so that the sum is the same in every process.
    squares = [(g * g).sum() for _, g in sorted(gradients.items())]
    norm: Value = sqrt(reduce(lambda a, b: a + b, squares))
    return norm


def clip_by_norm(gradients: Mapping[str, Value], bound: float) -> dict[str, Value]:
    """The gradients scaled by min(1, bound / norm), their joint norm (Pascanu et al. 2013).

    Gradients of zero stay zero; one that is not a number makes all so, and is not hidden.
    """
    scale = bound / maximum(global_norm(gradients), bound)
    return {path: g * cast(scale, g.dtype) for path, g in gradients.items()}


def clip_each_by_norm(gradients: Mapping[str, Value], bound: float) -> dict[str, Value]:
    """Each gradient scaled by min(1, bound / its own norm)."""
    return {path: clip_by_norm({path: g}, bound)[path] for path, g in gradients.items()}


def clip_by_value(gradients: Mapping[str, Value], bound: float) -> dict[str, Value]:
    """The gradients with each element held within [−bound, bound]."""
    return {path: clip(g, -bound, bound) for path, g in gradients.items()}
