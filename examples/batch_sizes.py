"""Gradient descent by the whole data, by mini-batches and by single examples: one model, three
batch sizes.

    nncompile train examples/batch_sizes.py --model mini_batch
    python examples/batch_sizes.py

Linear regression on the diabetes data, where least squares tells the loss that cannot be undercut.
After 50 epochs at the same rate, the whole batch has made 50 steps, each downhill, and is 0.044
above it. Mini-batches of 32 made 700 and are 0.002 above it. Single examples made 22,100, were near
it after the first epoch, and wander: with the rate held, the noise of their steps does not shrink.
"""

import numpy as np
from sklearn.datasets import load_diabetes

from dsl import Dense, f32, mean_squared_error, model, sgd, training
from nncompile import Trainer

EPOCHS = 50


@model
def line(x=f32["batch", 10], y=f32["batch", 1]):
    prediction = x >> Dense(1)
    return {"prediction": prediction, "loss": mean_squared_error(prediction, y)}


full_batch = training(line, optimizer=sgd(0.02), batch_size=442, epochs=EPOCHS)
mini_batch = training(line, optimizer=sgd(0.02), batch_size=32, epochs=EPOCHS)
stochastic = training(line, optimizer=sgd(0.02), batch_size=1, epochs=EPOCHS)


def data():
    """All 442 patients; each column has mean 0 and variance 1."""
    x, y = load_diabetes(return_X_y=True)
    x, y = ((v - v.mean(0)) / v.std(0) for v in (x, y[:, None]))
    return {"x": x.astype(np.float32), "y": y.astype(np.float32)}


def least(data):
    """The loss of least squares."""
    x = np.column_stack([data["x"], np.ones(len(data["x"]))])
    return np.linalg.lstsq(x, data["y"])[1][0] / len(x)


def losses(recipe, data):
    """The loss over all data after each epoch."""
    trainer = Trainer(recipe)
    history = trainer.fit(data, validation_data=data, batch_size=recipe.batch_size)
    return np.array([epoch["val_loss"] for epoch in history.epochs])


if __name__ == "__main__":
    patients = data()
    print(f"least squares: {least(patients):.4f}")
    for name, recipe in {"whole": full_batch, "32": mini_batch, "1": stochastic}.items():
        found = losses(recipe, patients)
        ups = (np.diff(found) > 0).sum()
        print(f"batch {name}: {found[-1]:.4f} after {EPOCHS} epochs, of which {ups} went up")
