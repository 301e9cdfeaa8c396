"""A function of one variable, fitted from noisy points.

    nncompile train examples/fit_function.py
    python examples/fit_function.py             # trains, and draws what was learned

The points have noise of variance 0.01; from the function itself the fitted curve differs by a mean
square of 0.0004.
"""

import numpy as np

from dsl import Dense, adam, cosine, f32, huber, mean_squared_error, model, tanh, training
from nncompile import Trainer


def target(x):
    """The function that the network does not know."""
    return np.sin(3 * x) + 0.3 * x


@model
def curve(x=f32["batch", 1], y=f32["batch", 1]):
    prediction = x >> Dense(32, tanh) >> Dense(32, tanh) >> Dense(1)
    return {
        "prediction": prediction,
        "loss": huber(prediction, y),
        "squared_error": mean_squared_error(prediction, y),
    }


recipe = training(
    curve,
    minimize="loss",
    optimizer=adam(cosine(1e-2, warmup=100, steps=3000)),
    batch_size=64,
    steps=3000,
)


def data():
    """Points with noise to train on; the function itself to measure on."""
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, size=(512, 1)).astype(np.float32)
    y = target(x) + random.normal(scale=0.1, size=x.shape)
    grid = np.linspace(-2, 2, 128, dtype=np.float32)[:, None]
    return (
        {"x": x, "y": y.astype(np.float32)},
        {"x": grid, "y": target(grid).astype(np.float32)},
    )


def draw(x, truth, fitted, rows=17):
    """The two curves as text: · the function, o what was learned, @ where they meet."""
    low, high = min(truth.min(), fitted.min()), max(truth.max(), fitted.max())

    def row(y):
        return np.rint((high - y) / (high - low) * (rows - 1)).astype(int)

    page = np.full((rows, len(x)), " ")
    columns = np.arange(len(x))
    page[row(truth), columns] = "·"
    page[row(fitted), columns] = np.where(row(truth) == row(fitted), "@", "o")
    return "\n".join("".join(line) for line in page)


if __name__ == "__main__":
    points, grid = data()
    trainer = Trainer(recipe)
    trainer.fit(points)
    x = np.linspace(-2, 2, 72, dtype=np.float32)
    fitted = trainer.predict({"x": x[:, None]})["prediction"][:, 0]
    print(draw(x, target(x), fitted))
    print(f"\nsquared error against the function: {trainer.evaluate(grid)['squared_error']:.5f}")
