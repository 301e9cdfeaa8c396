"""What comes next? A recurrent network forecasts a series from its last values.

The series is made here, of a trend, two seasons and noise: put yours in the place of `series`, an
array of numbers at equal times. It is cut into windows; the last part is held out.
"""

import numpy as np

from dsl import (
    GRU,
    Dense,
    Value,
    adamw,
    cosine,
    f32,
    huber,
    mean_absolute_error,
    model,
    option,
    training,
)

past = option(48, low=2, help="values that are seen")
ahead = option(12, low=1, help="values that are forecast")
width = option(32, low=1, help="size of the state")
rate = option(5e-3, low=1e-5, high=1.0, log=True, help="learning rate at its highest")


def series(length: int = 1500, seed: int = 0) -> np.ndarray:
    """A value for each hour."""
    time = np.arange(length)
    day, week = np.sin(2 * np.pi * time / 24), np.sin(2 * np.pi * time / 168)
    noise = np.random.default_rng(seed).normal(0, 0.1, length)
    return (0.001 * time + day + 0.5 * week + noise).astype(np.float32)


@model(predict="forecast")
def forecaster(
    seen: Value = f32["batch", past], following: Value = f32["batch", ahead]
) -> dict[str, Value]:
    """The next values: how they differ from the last one that is seen."""
    last = seen[:, -1:]
    state = (seen - last).reshape(seen.shape[0], past, 1) >> GRU(width)
    forecast = last + (state >> Dense(ahead, name="head"))
    return {
        "forecast": forecast,
        "loss": huber(forecast, following),
        "error": mean_absolute_error(forecast, following),
        "error_of_last_value": mean_absolute_error(last + 0 * forecast, following),
    }


recipe = training(
    forecaster,
    minimize="loss",
    optimizer=adamw(cosine(rate, warmup=10, steps=400)),
    batch_size=32,
    steps=400,
)


def windows(values: np.ndarray) -> dict[str, np.ndarray]:
    """Each window of the values: what is seen, and what follows."""
    cut = np.lib.stride_tricks.sliding_window_view(values, past + ahead)
    return {"seen": cut[:, :past].copy(), "following": cut[:, past:].copy()}


def data() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Windows to train on, and later ones that share no value with them."""
    values = series()
    border = len(values) * 4 // 5
    return windows(values[:border]), windows(values[border:])
