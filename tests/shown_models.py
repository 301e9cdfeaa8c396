"""The models whose print-outs are kept under `snapshots/`: each line of theirs is part of one."""

from __future__ import annotations

from dsl import (
    Dense,
    Dropout,
    Layer,
    accuracy,
    adamw,
    cosine,
    cross_entropy,
    f32,
    flatten,
    formula,
    i64,
    mean,
    model,
    relu,
    sgd,
    sigmoid,
    softmax,
    training,
)
from nncompile.ir.graph import Graph
from nncompile.passes import optimize
from nncompile.program.composition import compose
from nncompile.program.recipe import Recipe


@formula
def swish(x, beta=1):  # type: ignore[no-untyped-def]
    """x·σ(βx)"""
    return x * sigmoid(beta * x)


class Residual(Layer):
    """x + f(x), f two dense layers as wide as x."""

    drop: float = 0.1

    def __call__(self, x):  # type: ignore[no-untyped-def]
        width = x.shape[-1]
        return x + (x >> Dense(width, swish) >> Dropout(self.drop) >> Dense(width))


@model(predict=("logits", "probabilities"))
def digits(image=f32["batch", 1, 8, 8], label=i64["batch"]):  # type: ignore[no-untyped-def]
    logits = image >> flatten >> Dense(16, swish, name="stem") >> Residual(name="a") >> Dense(10)
    return {
        "logits": logits,
        "probabilities": softmax(logits),
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
    }


@model
def classifier(image=f32["batch", 784], label=i64["batch"]):  # type: ignore[no-untyped-def]
    logits = image >> Dense(256, relu, name="first") >> Dense(10, name="second")
    return {"logits": logits, "loss": cross_entropy(logits, label)}


@model
def line(x=f32["batch", 3], y=f32["batch"]):  # type: ignore[no-untyped-def]
    fitted = (x >> Dense(1)).reshape(-1)
    return {"fitted": fitted, "loss": mean((fitted - y) ** 2)}


digits_recipe = training(digits, minimize="loss", optimizer=adamw(cosine(3e-3, steps=2000)))
classifier_recipe = training(classifier, minimize="loss", optimizer=sgd(0.1))
line_recipe = training(line, minimize="loss", optimizer=sgd(0.1, momentum=0.9))


def step_of(recipe: Recipe) -> Graph:
    """One step of training, after all passes."""
    return optimize(compose(recipe).step)
