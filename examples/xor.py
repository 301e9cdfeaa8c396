"""Exclusive or: the smallest function that a network without a hidden layer cannot learn.

    nncompile train examples/xor.py

With a hidden layer of 8 neurons, all four answers are right.
"""

import numpy as np

from dsl import (
    Dense,
    adam,
    binary_accuracy,
    binary_cross_entropy_with_logits,
    f32,
    model,
    sigmoid,
    tanh,
    training,
)


@model
def xor(x=f32["batch", 2], label=f32["batch"]):
    logit = (x >> Dense(8, tanh) >> Dense(1))[:, 0]
    return {
        "probability": sigmoid(logit),
        "loss": binary_cross_entropy_with_logits(logit, label),
        "accuracy": binary_accuracy(logit, label, threshold=0),
    }


recipe = training(xor, minimize="loss", optimizer=adam(0.05), batch_size=4, steps=300)

data = {
    "x": np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32),
    "label": np.array([0, 1, 1, 0], np.float32),
}
