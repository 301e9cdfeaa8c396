"""One hidden layer approximates any function, the better the wider it is.

    nncompile train examples/universal_approximation.py
    python examples/universal_approximation.py      # the error of each width

(G. Cybenko, "Approximation by superpositions of a sigmoidal function", 1989.) Each doubling of the
width lowers the root of the mean squared error, from 0.83 with one neuron to
0.01 with 16.
"""

import numpy as np

from dsl import Dense, adam, cosine, f32, mean_squared_error, model, sqrt, tanh, training, uniform
from nncompile import Trainer

WIDTHS = (1, 2, 4, 8, 16)


def fitting(width):
    """The recipe for a hidden layer of that width."""

    @model
    def hidden_layer(x=f32["batch", 1], y=f32["batch", 1]):
        # The steps of the neurons begin all over the interval, steep enough for each to be seen.
        hidden = x >> Dense(width, tanh, init=uniform(-3, 3), bias_init=uniform(-6, 6))
        prediction = hidden >> Dense(1)
        loss = mean_squared_error(prediction, y)
        return {"prediction": prediction, "loss": loss, "error": sqrt(loss)}

    rate = cosine(0.03, steps=4000)
    return training(hidden_layer, minimize="loss", optimizer=adam(rate), batch_size=256, steps=4000)


recipe = fitting(16)

x = np.linspace(-3, 3, 256, dtype=np.float32)[:, None]
data = {"x": x, "y": np.sin(3 * x) + np.abs(x)}


def error(width):
    """The root of the mean squared error of the trained network."""
    trainer = Trainer(fitting(width))
    trainer.fit(data)
    return trainer.evaluate(data, batch_size=256)["error"]


if __name__ == "__main__":
    for width in WIDTHS:
        print(f"{width} neurons: error {error(width):.4f}")
