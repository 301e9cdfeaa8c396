"""What becomes of gradients before an optimizer sees them, and of parameters after it."""

from __future__ import annotations

from collections.abc import Mapping

from nncompile.elementwise import maximum, sqrt
from nncompile.ir.basic import cast
from nncompile.ir.op import Value
from nncompile.ops.random.generator import normal, random_key, seed_leaf, step_leaf
from nncompile.optim.clipping import clip_by_norm, clip_by_value, clip_each_by_norm
from nncompile.program.updates import minimize


def prepared(update: minimize, gradients: Mapping[str, Value], step: Value) -> dict[str, Value]:
    """The gradients with their sign, bounded and with noise, as the update says; `step` counts
    the updates."""
    changed = {path: -g if update.maximize else g for path, g in gradients.items()}
    if update.clip_value is not None:
        changed = clip_by_value(changed, update.clip_value)
    if update.clip_each_norm is not None:
        changed = clip_each_by_norm(changed, update.clip_each_norm)
    if update.clip_norm is not None:
        changed = clip_by_norm(changed, update.clip_norm)
    if update.noise is not None:
        dtype = next(iter(changed.values())).dtype
        std = sqrt(update.noise / (1 + cast(step, dtype)) ** update.noise_decay)
        changed = {path: noisy(f"{update.loss} {path}", g, std) for path, g in changed.items()}
    return changed


def noisy(salt: str, g: Value, std: Value) -> Value:
    """The gradient with normal numbers of that deviation added, other ones in every step."""
    key = random_key(f"gradient noise {salt}", seed_leaf(), step_leaf())
    result: Value = g + normal(key, g.shape, 0.0, cast(std, g.dtype), g.dtype)
    return result


def bounded(w: Value, max_norm: float) -> Value:
    """The parameter with the norm of the weights of each unit at most `max_norm`: of each column
    of a matrix, of each slice along the first axis of a tensor of more axes. Vectors stay."""
    if w.rank < 2:
        return w
    axes = (0,) if w.rank == 2 else tuple(range(1, w.rank))
    norm = sqrt((w * w).sum(axes, keepdims=True))
    result: Value = w * (max_norm / maximum(norm, max_norm))
    return result
