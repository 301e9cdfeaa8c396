"""What is measured: training steps of multi-layer perceptrons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from dsl import Dense, adam, cross_entropy, f32, i64, model, relu, sgd, training
from nncompile.recipe import Recipe

Batch = dict[str, np.ndarray[Any, Any]]


@dataclass(frozen=True)
class Workload:
    """One training step: a perceptron of these widths, ReLU between its layers, cross-entropy."""

    name: str
    widths: tuple[int, ...]
    batch: int
    optimizer: str  # "sgd" or "adam"
    target: float  # the least peer/ours ratio that we answer for

    @property
    def learning_rate(self) -> float:
        return {"sgd": 0.01, "adam": 0.001}[self.optimizer]

    def recipe(self) -> Recipe:
        """The step as a user would write it."""
        inputs, *hidden, classes = self.widths

        @model
        def perceptron(x: Any = f32["batch", inputs], label: Any = i64["batch"]) -> dict[str, Any]:
            for i, width in enumerate(hidden):
                x = x >> Dense(width, relu, name=f"hidden{i}")
            logits = x >> Dense(classes, name="head")
            return {"logits": logits, "loss": cross_entropy(logits, label)}

        optimizer = {"sgd": sgd, "adam": adam}[self.optimizer](self.learning_rate)
        return training(perceptron, minimize="loss", optimizer=optimizer, batch=self.batch)

    def batches(self, count: int) -> list[Batch]:
        """Different random batches, the same in every run."""
        generator = np.random.default_rng(0)
        return [
            {
                "x": generator.standard_normal((self.batch, self.widths[0]), np.float32),
                "label": generator.integers(0, self.widths[-1], self.batch),
            }
            for _ in range(count)
        ]


def _perceptron(widths: tuple[int, ...], batch: int, optimizer: str, target: float) -> Workload:
    name = f"mlp-{'-'.join(map(str, widths))}"
    return Workload(name, widths, batch, optimizer, target)


WORKLOADS = (
    _perceptron((64, 64, 64, 10), 32, "sgd", 5.0),
    _perceptron((64, 64, 64, 10), 32, "adam", 5.0),
    _perceptron((784, 256, 128, 10), 32, "sgd", 1.5),
    _perceptron((784, 256, 128, 10), 32, "adam", 1.5),
    _perceptron((1024, 2048, 2048, 1000), 64, "sgd", 0.95),
    _perceptron((1024, 2048, 2048, 1000), 64, "adam", 0.95),
)
