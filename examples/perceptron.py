"""The perceptron (Rosenblatt 1958): learning without a gradient.

    nncompile train examples/perceptron.py
    python examples/perceptron.py           # learns AND, OR, NOT and who gets a loan, and not XOR

Where the neuron is right, nothing changes; where it is wrong, the input is added to its weights or
taken from them. If a line separates the two classes, it is found after finitely many errors, and
all decisions are right from then on. None separates those of XOR (M. Minsky and S. Papert,
"Perceptrons", 1969): whatever the weights, one of the four decisions is wrong. `xor.py` adds the
layer that it takes.
"""

import numpy as np

from dsl import assign, concatenate, f32, full, model, parameter, training, where, zeros
from nncompile import Trainer


def perceptron(inputs):
    """The recipe of a neuron with so many inputs."""

    @model(predict="decision")
    def neuron(x=f32["batch", inputs], label=f32["batch"]):
        """1 where w₀ + w₁x₁ + w₂x₂ + … > 0, else 0"""
        always = full((x.shape[0], 1), 1.0)
        features = concatenate([always, x], axis=1)
        decision = where(features @ parameter("weight", inputs + 1, init=zeros) > 0, 1.0, 0.0)
        error = label - decision
        return {
            "decision": decision,
            "change": error @ features,
            "accuracy": 1 - abs(error).mean(),
        }

    # One example at a time: W ← W + (y − ŷ)·x.
    learning = assign("weight", lambda value: value["weight"] + value["change"])
    return training(neuron, updates=[learning], batch_size=1, epochs=10)


recipe = perceptron(2)


def data():
    """200 points on both sides of a line, none of them close to it."""
    random = np.random.default_rng(0)
    x = random.uniform(-1, 1, size=(400, 2)).astype(np.float32)
    side = 0.2 + x[:, 0] - 2 * x[:, 1]
    x, side = x[abs(side) > 0.2][:200], side[abs(side) > 0.2][:200]
    return {"x": x, "label": (side > 0).astype(np.float32)}


def table(*rows):
    """Rows of inputs and a label, as data."""
    rows = np.array(rows, np.float32)
    return {"x": rows[:, :-1], "label": rows[:, -1]}


TABLES = {
    "AND": table((0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1)),
    "OR": table((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)),
    "NOT": table((0, 1), (1, 0)),
    # Income and debts in ten thousands a year, years in the job; and whether a loan is given.
    "loan": table(
        (5, 1, 4, 1),
        (3, 2, 1, 0),
        (8, 3, 2, 1),
        (2, 0, 6, 1),
        (4, 4, 3, 0),
        (6, 5, 1, 0),
        (7, 2, 8, 1),
        (1, 1, 1, 0),
        (3, 0, 2, 1),
        (9, 7, 5, 0),
    ),
    "XOR": table((0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)),
}


def learned(table, epochs=100):
    """The accuracy after each epoch, and the trainer."""
    accuracies = []
    trainer = Trainer(perceptron(table["x"].shape[1]))
    for _ in range(epochs):
        trainer.fit(table, epochs=1)
        accuracies.append(trainer.evaluate(table)["accuracy"])
    return accuracies, trainer


if __name__ == "__main__":
    for name, rows in TABLES.items():
        accuracies, trainer = learned(rows)
        weights = trainer.params["weight"]
        if accuracies[-1] == 1:
            last = max(epoch for epoch, right in enumerate(accuracies, 1) if right < 1)
            print(f"{name}: all right after {last + 1} epochs, weights {weights}")
        else:
            print(f"{name}: {max(accuracies):.0%} right at best, in {len(accuracies)} epochs")
