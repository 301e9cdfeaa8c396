"""A mixture of experts: a router learns which of four networks answers for which inputs.

    nncompile train examples/mixture.py
    python examples/mixture.py                   # trains both, and shows who answers where

In each quarter of the plane points are turned by another angle: at the borders is a jump that a
smooth network can only blur. `balance` keeps all experts at work. One network of as many parameters
has three times the squared error, 0.015 for 0.005.
"""

import numpy as np

from dsl import (
    Dense,
    MixtureOfExperts,
    adam,
    cosine,
    f32,
    mean_squared_error,
    model,
    tanh,
    training,
)
from nncompile import Trainer

# A quarter turn more in each quarter of the plane.
MAPS = np.array([[[1, 0], [0, 1]], [[0, -1], [1, 0]], [[-1, 0], [0, -1]], [[0, 1], [-1, 0]]])


def target(x):
    """Each point turned as its quarter has it."""
    quarter = np.where(x[:, 0] > 0, 2, 0) + np.where(x[:, 1] > 0, 1, 0)
    return np.einsum("nij,nj->ni", MAPS[quarter], x)


@model
def mixture(x=f32["batch", 2], y=f32["batch", 2]):
    experts = MixtureOfExperts(
        num_experts=4, top_k=1, hidden_size=16, activation=tanh, name="experts"
    )
    answer = experts(x)
    error = mean_squared_error(answer, y)
    balance = experts.balance(x)
    return {"answer": answer, "loss": error + 0.01 * balance, "error": error, "balance": balance}


@model
def plain(x=f32["batch", 2], y=f32["batch", 2]):
    answer = x >> Dense(67, tanh) >> Dense(2)
    error = mean_squared_error(answer, y)
    return {"answer": answer, "loss": error, "error": error}


def trained_as(network):
    return training(
        network,
        minimize="loss",
        optimizer=adam(cosine(3e-2, warmup=50, steps=6000)),
        batch_size=128,
        steps=6000,
    )


recipe = trained_as(mixture)


def examples(random, count):
    x = random.uniform(-1, 1, (count, 2))
    return {"x": x.astype(np.float32), "y": target(x).astype(np.float32)}


def data():
    """4000 points to train on, 1000 others to measure on."""
    random = np.random.default_rng(0)
    return examples(random, 4000), examples(random, 1000)


def chosen(params, x):
    """The expert that the router prefers at each point."""
    return (x @ params["experts.router"]).argmax(-1)


if __name__ == "__main__":
    points, held_out = data()
    trainers = {"one network": Trainer(trained_as(plain)), "experts": Trainer(recipe)}
    for name, trainer in trainers.items():
        trainer.fit(points)
        error = trainer.evaluate(held_out)["error"]
        count = sum(array.size for array in trainer.params.values())
        print(f"{name:12} {count} parameters, squared error {error:.5f}")
    side = np.linspace(-0.95, 0.95, 20)
    grid = np.stack(np.meshgrid(side, -side), -1)
    print("\nwho answers where:")
    for row in chosen(trainers["experts"].params, grid):
        print(" ".join("ABCD"[expert] for expert in row))
