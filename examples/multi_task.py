"""Several tasks, one network: which digit an image shows, whether it is even, and how much ink.

    nncompile train examples/multi_task.py

Three heads share two layers, and the loss is a weighted sum. Of the held-out images, the digit is
right for 99 %, the parity for 98 %, and the ink is told with R² 0.93.
"""

import numpy as np
from sklearn.datasets import load_digits

from dsl import (
    Dense,
    Dropout,
    accuracy,
    adamw,
    binary_accuracy,
    binary_cross_entropy_with_logits,
    cosine,
    cross_entropy,
    f32,
    i64,
    mean_squared_error,
    model,
    r2_score,
    relu,
    sigmoid,
    training,
)


@model(predict=("digit", "even", "ink"))
def tasks(
    image=f32["batch", 64],
    label=i64["batch"],
    is_even=f32["batch"],
    darkness=f32["batch"],
):
    trunk = image >> Dense(128, relu) >> Dropout(0.2) >> Dense(128, relu)
    digit = trunk >> Dense(10, name="digit")
    even = (trunk >> Dense(1, name="even"))[:, 0]
    ink = (trunk >> Dense(1, name="ink"))[:, 0]
    losses = {
        "digit_loss": cross_entropy(digit, label),
        "even_loss": binary_cross_entropy_with_logits(even, is_even),
        "ink_loss": mean_squared_error(ink, darkness),
    }
    return {
        "digit": digit,
        "even": sigmoid(even),
        "ink": ink,
        **losses,
        "loss": losses["digit_loss"] + 0.5 * losses["even_loss"] + 0.5 * losses["ink_loss"],
        "accuracy": accuracy(digit, label),
        "even_accuracy": binary_accuracy(sigmoid(even), is_even),
        "ink_r2": r2_score(ink, darkness),
    }


recipe = training(
    tasks,
    minimize="loss",
    optimizer=adamw(cosine(2e-3, warmup=100, steps=2500)),
    batch_size=64,
    steps=2500,
)


def data():
    """The ink is standardized, so that the losses are of one size."""
    pixels, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    images, labels = (pixels[order] / 16).astype(np.float32), labels[order]
    ink = images.mean(1)
    columns = {
        "image": images,
        "label": labels,
        "is_even": (labels % 2 == 0).astype(np.float32),
        "darkness": (ink - ink[:-360].mean()) / ink[:-360].std(),
    }
    return (
        {name: x[:-360] for name, x in columns.items()},
        {name: x[-360:] for name, x in columns.items()},
    )
