"""Small models of one function or layer each."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from dsl import f32, i64
from nncompile.program.model import Model
from tests.layer_checks import model_of

Build = Callable[[], Model]
CLASSES = 3


def of(function: Callable[..., Any], *types: Any) -> Build:
    """A model of `function` on inputs x0, x1, … of those types, `f32["batch", 4]` by default."""
    declared = types or (f32["batch", 4],)
    return lambda: model_of(function, **{f"x{i}": t for i, t in enumerate(declared)})


def of_image(function: Callable[..., Any], channels: int = 2, axes: int = 2) -> Build:
    """The same of an image (or signal, or volume) of symbolic sizes."""
    sizes = ("height", "width", 5)[:axes]
    return of(function, f32["batch", channels, *sizes])


def of_sequence(function: Callable[..., Any], width: int = 4) -> Build:
    """The same of a sequence of symbolic length."""
    return of(function, f32["batch", "time", width])


def of_classes(function: Callable[..., Any]) -> Build:
    """The same of logits and the class of each example."""
    return of(function, f32["batch", CLASSES], i64["batch"])


def of_pair(function: Callable[..., Any]) -> Build:
    """The same of predictions and targets."""
    return of(function, f32["batch", 4], f32["batch", 4])


def probabilities(*names: str) -> Callable[[np.random.Generator], dict[str, Any]]:
    """Data between 0 and 1 for those inputs."""
    return lambda rng: {n: rng.uniform(0.1, 0.9, (3, 4)).astype(np.float32) for n in names}


def signs(*names: str) -> Callable[[np.random.Generator], dict[str, Any]]:
    """Data of −1 and 1 for those inputs."""
    return lambda rng: {n: (2.0 * rng.integers(0, 2, (3, 4)) - 1).astype(np.float32) for n in names}


def bits(*names: str) -> Callable[[np.random.Generator], dict[str, Any]]:
    """Data of 0 and 1 for those inputs."""
    return lambda rng: {n: rng.integers(0, 2, (3, 4)).astype(np.float32) for n in names}
