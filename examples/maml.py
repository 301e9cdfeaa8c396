"""Learning to learn: weights from which one step of gradient descent on ten points fits a sine.

    nncompile train examples/maml.py --model meta_recipe
    python examples/maml.py

Each task is a sine of its own amplitude and phase. The inner step is a gradient in the model,
`curve(x, params=…)` is the network with the weights after it, and training follows the gradient
through that step, a gradient of a gradient (C. Finn et al., "Model-Agnostic Meta-Learning", 2017).

At other points of new sines, the squared error is 2.9 before the step and 0.5 after it. A network
that was trained on the same sines without the inner step gets from 2.9 to 2.0.
"""

import numpy as np

from dsl import Dense, adam, cosine, f32, grad, mean_squared_error, model, relu, stack, training
from nncompile import Trainer

TASKS, POINTS, RATE = 5, 10, 0.01


@model
def curve(x=f32["points", 1]):
    return {"y": x >> Dense(40, relu) >> Dense(40, relu) >> Dense(1)}


def adapted(x, y):
    """The weights of `curve` after a step of gradient descent on the points of one task."""
    weights = curve.parameters
    gradients = grad(mean_squared_error(curve(x)["y"], y), weights)
    return {path: w - RATE * gradients[path] for path, w in weights.items()}


@model
def meta(
    x=f32["batch", TASKS, POINTS, 1],
    y=f32["batch", TASKS, POINTS, 1],
    new_x=f32["batch", TASKS, POINTS, 1],
    new_y=f32["batch", TASKS, POINTS, 1],
):
    """One batch is one example: the tasks of a step, each with points to learn from and others to
    be measured at."""
    before, after = [], []
    for task in range(TASKS):
        points, values, new_points, new_values = (v[0, task] for v in (x, y, new_x, new_y))
        weights = adapted(points, values)
        before.append(mean_squared_error(curve(new_points)["y"], new_values))
        after.append(mean_squared_error(curve(new_points, params=weights)["y"], new_values))
    return {"before": stack(before).mean(), "after": stack(after).mean()}


STEPS = 4000
rate = cosine(4e-3, warmup=100, steps=STEPS)
meta_recipe = training(meta, minimize="after", optimizer=adam(rate), batch_size=1, steps=STEPS)
plain_recipe = training(meta, minimize="before", optimizer=adam(rate), batch_size=1, steps=STEPS)


def sines(count, seed):
    """Amplitudes from 0.1 to 5, phases from 0 to π, points from −5 to 5."""
    random = np.random.default_rng(seed)
    amplitude, phase = (
        random.uniform(low, high, (count, TASKS, 1, 1)) for low, high in ((0.1, 5), (0, np.pi))
    )
    found = {}
    for own in ("", "new_"):
        x = random.uniform(-5, 5, (count, TASKS, POINTS, 1))
        found[f"{own}x"] = x.astype(np.float32)
        found[f"{own}y"] = (amplitude * np.sin(x - phase)).astype(np.float32)
    return found


def data():
    """20,000 sines to train on, 500 others to measure on."""
    return sines(STEPS, 0), sines(100, 1)


if __name__ == "__main__":
    train, held_out = data()
    for name, recipe in {"MAML": meta_recipe, "without": plain_recipe}.items():
        trainer = Trainer(recipe)
        trainer.fit(train)
        found = trainer.evaluate(held_out)
        print(f"{name}: squared error {found['before']:.2f}, after a step {found['after']:.2f}")
