"""A faulty backend, and a model in which to find its fault, for the tests of `verify`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

import dsl
from dsl import Dense, Dropout, adam, cross_entropy, f32, i64, softmax, tanh, training
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.printer import node_text
from nncompile.program.recipe import Recipe
from nncompile.verify import OnnxRuntime, Report
from nncompile.verify.backends import Lowered

ORT = OnnxRuntime("all", 1)
Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Numpy:
    """numpy in f32 as a backend, with a fault at the nodes whose text holds `at`; with `joined`,
    only where few results are to be shown, as in a runtime that joins nodes."""

    at: str = "nothing"
    factor: float = 1.001
    joined: int | None = None
    name: str = "numpy backend"

    def load(self, lowered: Lowered) -> Callable[[Mapping[str, np.ndarray]], Arrays]:
        graph = lowered.graph
        sound = self.joined is not None and len(graph.outputs) > self.joined

        def change(v: Value, x: Any) -> Any:
            wrong = not sound and v.args and self.at in node_text(graph, v)
            return (x * self.factor).astype(x.dtype) if wrong else x

        return lambda feeds: evaluate(graph, feeds, None, change)  # type: ignore[no-any-return]


def classifier() -> Recipe:
    @dsl.model(predict=("probabilities",))
    def net(x=f32["batch", 4], label=i64["batch"]):
        hidden = x >> Dense(8, tanh, name="stem") >> Dropout(0.3)
        logits = hidden >> Dense(3, name="head")
        loss = cross_entropy(logits, label)
        return {"probabilities": softmax(logits), "kept": hidden > 0, "loss": loss}

    return training(net, optimizer=adam(1e-2))


def first(report: Report) -> Any:
    assert not report.agrees
    return report.faults[0]


def differences(report: Report) -> str:
    return report.rows["differences"]["gradients"].note
