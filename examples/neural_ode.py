"""A neural ordinary differential equation: the law of a pendulum, learned from how it swings.

    nncompile train examples/neural_ode.py
    python examples/neural_ode.py                # trains, and draws a longer swing than it has seen

A network f gives the speed at which the state changes, dy/dt = f(y), and a loop (`scan`) integrates
it by the Runge–Kutta method (Chen et al. 2018, "Neural Ordinary Differential Equations"). The
gradients go back through the loop. Times are an input: the exported file takes any number of them.
Trained on 3 seconds, the swings of 12 seconds are right to 0.02 (radians, and radians a second).
"""

import numpy as np

from dsl import (
    Dense,
    concatenate,
    cosine,
    expand_dims,
    f32,
    mean_squared_error,
    model,
    moveaxis,
    muon,
    root_mean_squared_error,
    scan,
    tanh,
    training,
)
from nncompile import Trainer

FRICTION = 0.15


def pendulum(state):
    """The law that the network does not know: how fast angle and speed change."""
    angle, speed = state[..., 0], state[..., 1]
    return np.stack([speed, -np.sin(angle) - FRICTION * speed], -1)


def runge_kutta(law, state, time):
    """The state after that time, by four looks at the law (the classical rule of order 4)."""
    one = law(state)
    two = law(state + one * (time / 2))
    three = law(state + two * (time / 2))
    four = law(state + three * time)
    return state + (one + 2 * two + 2 * three + four) * (time / 6)


@model(predict="path")
def neural_ode(start=f32["batch", 2], time=f32["times"], swing=f32["batch", "times", 2]):
    """The path from the start on: angle and speed at each of the times."""
    hidden, change = Dense(64, tanh, name="hidden"), Dense(2, name="change")

    def advance(state, step):
        following = runge_kutta(lambda y: change(hidden(y)), state, step)
        return following, following

    _, later = scan(advance, start, time[1:] - time[:-1])
    path = concatenate([expand_dims(start, 1), moveaxis(later, 0, 1)], axis=1)
    return {
        "path": path,
        "loss": mean_squared_error(path, swing),
        "error": root_mean_squared_error(path, swing),
    }


recipe = training(
    neural_ode,
    minimize="loss",
    optimizer=muon(cosine(2e-2, warmup=50, steps=3000), weight_decay=0.0),
    batch_size=32,
    steps=3000,
)


def swings(start, time, fine=16):
    """The true paths, each of the times reached in `fine` steps of the same rule."""
    path = [start]
    for step in np.diff(time):
        state = path[-1]
        for _ in range(fine):
            state = runge_kutta(pendulum, state, step / fine)
        path.append(state)
    return np.stack(path, 1)


def examples(random, count, time):
    start = random.uniform((-2, -1), (2, 1), (count, 2))
    return {
        "start": start.astype(np.float32),
        "time": time.astype(np.float32),
        "swing": swings(start, time).astype(np.float32),
    }


def data():
    """256 paths of 3 seconds to train on; 64 others, four times as long, to measure on."""
    random = np.random.default_rng(0)
    return (
        examples(random, 256, np.linspace(0, 3, 13)),
        examples(random, 64, np.linspace(0, 12, 49)),
    )


def draw(time, truth, learned, rows=15):
    """The angle over time as text: · the pendulum, o what was learned, @ where they meet."""
    page = np.full((rows, len(time)), " ")
    highest = np.abs(truth).max()
    row, learned_row = (
        np.clip(np.rint((1 - angle / highest) * (rows - 1) / 2), 0, rows - 1).astype(int)
        for angle in (truth, learned)
    )
    columns = np.arange(len(time))
    page[row, columns] = "·"
    page[learned_row, columns] = np.where(row == learned_row, "@", "o")
    return "\n".join("".join(line) for line in page)


if __name__ == "__main__":
    shown, longer = data()
    trainer = Trainer(recipe)
    trainer.fit(shown)
    print(f"error over 12 seconds, after training on 3: {trainer.evaluate(longer)['error']:.4f}\n")
    start, time = np.array([[2, 0]], np.float32), np.linspace(0, 18, 73, dtype=np.float32)
    learned = trainer.predict({"start": start, "time": time})["path"]
    print(draw(time, swings(start, time)[0, :, 0], learned[0, :, 0]))
