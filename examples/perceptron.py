"""The perceptron (Rosenblatt 1958): learning without a gradient.

    nncompile train examples/perceptron.py --output runs/perceptron

Where the neuron is right, nothing changes; where it is wrong, the input is added to its weights or
taken from them. If a line separates the two classes, it is found after finitely many errors.
"""

import numpy as np

from dsl import assign, concatenate, f32, full, model, parameter, training, where, zeros


@model(predict="decision")
def neuron(x=f32["batch", 2], label=f32["batch"]):
    """1 where w₀ + w₁x₁ + w₂x₂ > 0, else 0"""
    always = full((x.shape[0], 1), 1.0)
    features = concatenate([always, x], axis=1)
    decision = where(features @ parameter("weight", 3, init=zeros) > 0, 1.0, 0.0)
    error = label - decision
    return {
        "decision": decision,
        "change": error @ features,
        "accuracy": 1 - abs(error).mean(),
    }


recipe = training(
    neuron,
    updates=[assign("weight", lambda value: value["weight"] + value["change"])],
    batch=1,
    epochs=10,
)


def data():
    """200 points on both sides of a line, none of them close to it."""
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, size=(400, 2)).astype(np.float32)
    side = 0.2 + x[:, 0] - 2 * x[:, 1]
    x, side = x[abs(side) > 0.2][:200], side[abs(side) > 0.2][:200]
    return {"x": x, "label": (side > 0).astype(np.float32)}
