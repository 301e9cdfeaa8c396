"""Linear regression by gradient descent: the weights that made the data come back.

nncompile train examples/linear_regression.py --output runs/linear_regression
"""

import numpy as np

from dsl import Dense, f32, mean_absolute_error, mean_squared_error, model, sgd, training, zeros

WEIGHT = np.array([3.0, -2.0, 0.5], np.float32)
BIAS = 1.0
NOISE = 0.1


@model
def line(x=f32["batch", 3], y=f32["batch"]):
    """y ≈ x·w + b"""
    prediction = (x >> Dense(1, init=zeros, name="line"))[:, 0]
    return {
        "prediction": prediction,
        "loss": mean_squared_error(prediction, y),
        "error": mean_absolute_error(prediction, y),
    }


recipe = training(line, minimize="loss", optimizer=sgd(0.1), batch=64, steps=400)


def data():
    """Points near a known plane: 512 to train on, 128 held out."""
    random = np.random.default_rng(0)
    x = random.normal(size=(640, 3)).astype(np.float32)
    y = (x @ WEIGHT + BIAS + random.normal(scale=NOISE, size=640)).astype(np.float32)
    return {"x": x[:512], "y": y[:512]}, {"x": x[512:], "y": y[512:]}
