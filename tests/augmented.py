"""Models of a single augmentation, images for them, and their results."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsl import f32, i64, model
from nncompile.ir.interpreter import evaluate
from nncompile.program.model import Model
from tests.backends import in_onnxruntime

IMAGES = f32["n", 3, "h", "w"]


def of_images(*layers: Any, type_: Any = IMAGES) -> Model:
    """A model whose outputs are those of the layers, for one image."""

    @model
    def net(image=type_):  # type: ignore[no-untyped-def]
        return {f"y{i}": image >> layer for i, layer in enumerate(layers)}

    return net


def of_pairs(layer: Any, x: Any = IMAGES, label: Any = i64["n"]) -> Model:
    """A model of a layer that takes examples and labels."""

    @model
    def net(image=x, target=label):  # type: ignore[no-untyped-def]
        mixed, soft = layer(image, target)
        return {"x": mixed, "t": soft}

    return net


def run(net: Model, seed: int = 0, step: int = 0, **data: np.ndarray) -> dict[str, np.ndarray]:
    """What the model computes in training, in numpy; onnxruntime gives the same."""
    random = {"seed": np.asarray(seed, np.int64), "step": np.asarray(step, np.int64)}
    results = evaluate(net.graph, data | random)
    for name, actual in in_onnxruntime(net.graph, data | random).items():
        np.testing.assert_allclose(actual, results[name], 1e-5, 1e-5, err_msg=name)
    return results


def drawn(n: int = 64, h: int = 8, w: int = 10, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3, h, w)).astype(np.float32)
