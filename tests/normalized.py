"""Normalizations to test with: ours, and torch's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl import BatchNorm, Dense, f32, mean_squared_error, model, relu
from nncompile.ir.op import Value
from nncompile.ir.types import Array
from nncompile.ops import batch_norm, group_norm, instance_norm, layer_norm, rms_norm

# Of an element of float32 against float64, in units of the largest: a few roundings.
ROUNDING = 1e-6


def off(actual: Any, exact: Any) -> float:
    """The largest difference in units of the largest number, or of 1."""
    actual, exact = np.asarray(actual, np.float64), np.asarray(exact, np.float64)
    assert actual.shape == exact.shape
    assert np.isfinite(actual).all()
    return float(np.abs(actual - exact).max(initial=0) / max(1.0, np.abs(exact).max(initial=0)))


def normalize(name: str) -> Callable[..., tuple[Value, ...]]:
    """A function of x, a scale and a bias, as our op has it and with several results."""
    functions: dict[str, Callable[..., tuple[Value, ...]]] = {
        "batch": lambda x, s, b: batch_norm(x, s, b, 0.5 * s, 2 * s, 0.3, 1e-3)[:1],
        "layer": lambda x, s, b: (layer_norm(x, s, b),),
        "layer2": lambda x, s, b: (layer_norm(x, s, b, axes=2, eps=1e-3),),
        "bare layer": lambda x, s, b: (layer_norm(x) * s + b,),
        "bias alone": lambda x, s, b: (layer_norm(x, bias=b) * s,),
        "group": lambda x, s, b: (group_norm(x, 2, s, b),),
        "instance": lambda x, s, b: (instance_norm(x, s, b, 1e-4),),
        "rms": lambda x, s, b: (rms_norm(x, s) + b,),
        "rms2": lambda x, s, b: (rms_norm(x, s, axes=2, eps=1e-3) + b,),
    }
    return functions[name]


def torch_normalize(name: str, x: Any, s: Any, b: Any) -> Any:
    """The same in torch."""
    F = pytest.importorskip("torch").nn.functional
    match name:
        case "batch":
            return F.batch_norm(x, None, None, s, b, True, 0.3, 1e-3)
        case "layer" | "bare layer":
            return F.layer_norm(x, s.shape, s, b)
        case "layer2":
            return F.layer_norm(x, s.shape, s, b, 1e-3)
        case "bias alone":
            return F.layer_norm(x, s.shape, None, b) * s
        case "group":
            return F.group_norm(x, 2, s, b)
        case "instance":
            return F.instance_norm(x, None, None, s, b, eps=1e-4)
        case "rms":
            return F.rms_norm(x, s.shape, s) + b
    return F.rms_norm(x, s.shape, s, 1e-3) + b


# Training.


@model(predict=("y",))
def images(image=f32["batch", 3, "h", "w"], target=f32["batch", 4]):  # type: ignore[no-untyped-def]
    h = relu(image >> BatchNorm(name="first", eps=1e-3)).mean(axis=(2, 3))
    y = h >> Dense(4, name="dense") >> BatchNorm(name="last", momentum=0.3)
    return {"y": y, "loss": mean_squared_error(y, target)}


def batches(count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    return [
        {
            "image": rng.normal(1, 2, (8, 3, 4, 5)).astype(np.float32),
            "target": rng.normal(size=(8, 4)).astype(np.float32),
        }
        for _ in range(count)
    ]
