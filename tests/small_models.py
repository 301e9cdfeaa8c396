"""Models built by hand from the graph, data for them, and a training."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from nncompile.compiler.compile import CompiledStep, compile_step
from nncompile.elementwise import tanh
from nncompile.ir.broadcasting import full
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import Array, DType, Type, f32
from nncompile.ops.random.generator import dropout, normal, random_key, seed_leaf
from nncompile.optim import adam
from nncompile.program.model import Model
from nncompile.program.recipe import training
from nncompile.train import Trainer
from tests.leaves import leaf

LAYERS = 3  # of `deep` that are of one size


def drawn(path: str, type_: Type) -> Value:
    """An initial value of its own for each path."""
    return normal(random_key(path, seed_leaf()), type_.shape, 0.0, 0.5, type_.dtype)


def perceptron(dtype: DType = f32, drop: float = 0.0, name: str = "perceptron") -> Model:
    """Four inputs, eight hidden units, two results; the loss is the mean squared error."""
    x, target = leaf("x", dtype["batch", 4]), leaf("target", dtype["batch", 2])
    types = {
        "hidden.weight": dtype[4, 8],
        "hidden.bias": dtype[8],
        "out.weight": dtype[8, 2],
    }
    p = {path: leaf(path, type_, "parameter") for path, type_ in types.items()}
    hidden = tanh(x @ p["hidden.weight"] + p["hidden.bias"])
    if drop:
        hidden = dropout(hidden, drop, "drop")
    y = hidden @ p["out.weight"]
    outputs = {
        "y": y,
        "loss": ((y - target) * (y - target)).mean(),
        "bias": (y - target).mean(),
    }
    initial = {path: drawn(path, type_) for path, type_ in types.items()}
    return Model(name, Graph(name, outputs, (x, target, *p.values())), initial)


def deep(dtype: DType = f32) -> Model:
    """Layers of one size, and a last one of another."""
    x = y = leaf("x", dtype["batch", 4])
    types = {f"{i}.weight": dtype[4, 4] for i in range(LAYERS)}
    types |= {f"{i}.bias": dtype[4] for i in range(LAYERS)} | {"last": dtype[4, 1]}
    p = {path: leaf(path, type_, "parameter") for path, type_ in types.items()}
    for i in range(LAYERS):
        y = tanh(y @ p[f"{i}.weight"] + p[f"{i}.bias"])
    y = y @ p["last"]
    outputs = {"y": y, "loss": (y * y).mean()}
    initial = {path: drawn(path, type_) for path, type_ in types.items()}
    return Model("deep", Graph("deep", outputs, (x, *p.values())), initial)


def averaging() -> Model:
    """y = w·x, with a state `mean` that follows the mean of the data, and one `slow` that is to
    follow the weight."""
    x = leaf("x", f32["batch"])
    w, mean = leaf("w", f32[()], "parameter"), leaf("mean", f32[()], "state")
    slow = leaf("slow", f32[()], "state")
    y = w * x
    outputs = {"y": y, "loss": ((y - 1) * (y - 1)).mean(), "slow_loss": (slow * x - 1).mean()}
    return Model(
        "averaging",
        Graph("averaging", outputs, (x, w, mean, slow)),
        initial={"w": full((), 0.5), "mean": full((), 0.0), "slow": w},
        updates={"mean": 0.9 * mean + 0.1 * x.mean()},
    )


def data(count: int = 50, seed: int = 0, dtype: str = "float32") -> dict[str, Array]:
    """Examples for `perceptron`."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(count, 4)).astype(dtype)
    target = np.stack([np.sin(x[:, 0]), x[:, 1] * 0.5], axis=1).astype(dtype)
    return {"x": x, "target": target}


def trainer(drop: float = 0.0, **options: Any) -> Trainer:
    """Trainers with equal options share what is compiled."""
    named = {n: tuple(x.items()) if isinstance(x, dict) else x for n, x in options.items()}
    return Trainer(_compiled(drop, **named))


@cache
def _compiled(drop: float, **options: Any) -> CompiledStep:
    named = {n: dict(x) if isinstance(x, tuple) else x for n, x in options.items()}
    named = {"optimizer": adam(1e-2), "batch_size": 16, **named}
    return compile_step(training(perceptron(drop=drop), **named))


def assert_same(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert one.keys() == other.keys()
    for name, x in one.items():
        np.testing.assert_array_equal(x, other[name], err_msg=name)
