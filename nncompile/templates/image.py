"""What is in the picture? A small convolutional network.

The pictures are drawn here: a disc, a square or a cross at a random place, in noise. Put yours in
the place of `pictures`: arrays of numbers from 0 to 1, [example, channel, row, column].
"""

import numpy as np

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    GlobalAveragePool,
    MaxPool2d,
    Value,
    accuracy,
    adamw,
    cosine,
    cross_entropy,
    f32,
    i64,
    model,
    option,
    relu,
    softmax,
    training,
)

channels = option(16, low=1, help="channels of the first layer")
rate = option(3e-3, low=1e-5, high=1.0, log=True, help="learning rate at its highest")
epochs = option(6, low=1, help="passes over the pictures")

KINDS = ("disc", "square", "cross")
SIZE = 16


def pictures(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Random pictures, and the numbers of their kinds."""
    random = np.random.default_rng(seed)
    kind = random.integers(len(KINDS), size=count)
    center = random.uniform(5, SIZE - 5, (2, count, 1, 1))
    radius = random.uniform(3, 5, (count, 1, 1))
    row, column = np.abs(np.mgrid[:SIZE, :SIZE][:, None] - center)
    shapes = np.stack(
        [
            row**2 + column**2 < radius**2,
            np.maximum(row, column) < 0.9 * radius,
            (np.minimum(row, column) < 1) & (np.maximum(row, column) < radius),
        ]
    )
    drawn = shapes[kind, np.arange(count)] + random.normal(0, 0.3, (count, SIZE, SIZE))
    return drawn[:, None].astype(np.float32), kind


@model(predict=("probability", "kind"))
def shapes(
    image: Value = f32["batch", 1, SIZE, SIZE], label: Value = i64["batch"]
) -> dict[str, Value]:
    """The probability of each kind, and the likeliest."""
    x = image >> Conv2d(channels, 3, padding=1) >> BatchNorm() >> relu >> MaxPool2d(2)
    x = x >> Conv2d(2 * channels, 3, padding=1) >> BatchNorm() >> relu >> GlobalAveragePool()
    logits = x >> Dropout(0.1) >> Dense(len(KINDS), name="head")
    return {
        "probability": softmax(logits),
        "kind": logits.argmax(-1),
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
    }


recipe = training(
    shapes,
    minimize="loss",
    optimizer=adamw(cosine(rate, warmup=10, steps=32 * epochs)),
    batch_size=32,
    epochs=epochs,
)


def data() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Pictures to train on, and others that are held out."""
    train, validation = pictures(1024, seed=0), pictures(256, seed=1)
    return (
        {"image": train[0], "label": train[1]},
        {"image": validation[0], "label": validation[1]},
    )
