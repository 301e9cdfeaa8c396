"""A denoising autoencoder: it learns to undo noise that the graph adds while training.

    nncompile train examples/denoising_autoencoder.py
    python examples/denoising_autoencoder.py

`GaussianNoise` draws new noise in every step and is gone in the exported model, which takes images
that are noisy already. On held-out digits with noise of standard deviation 0.3, whose squared error
is 0.09, it leaves 0.017; the best number of principal components leaves 0.034.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from dsl import (
    Dense,
    GaussianNoise,
    adam,
    cosine,
    f32,
    mean_squared_error,
    model,
    relu,
    sigmoid,
    training,
)
from nncompile import Trainer

NOISE = 0.3


@model(predict="restored")
def denoiser(image=f32["batch", 64], clean=f32["batch", 64]):
    noisy = image >> GaussianNoise(NOISE)
    restored = noisy >> Dense(256, relu) >> Dense(64, relu) >> Dense(256, relu)
    restored = restored >> Dense(64, sigmoid)
    return {"restored": restored, "loss": mean_squared_error(restored, clean)}


recipe = training(
    denoiser,
    minimize="loss",
    optimizer=adam(cosine(2e-3, warmup=50, steps=3000)),
    batch_size=64,
    steps=3000,
)


def data():
    """Clean images to train on; to measure on, the last 360 with noise that is always the same."""
    images = (load_digits().data / 16).astype(np.float32)
    train, held_out = images[:-360], images[-360:]
    noise = np.random.default_rng(0).normal(scale=NOISE, size=held_out.shape)
    return (
        {"image": train, "clean": train},
        {"image": held_out + noise.astype(np.float32), "clean": held_out},
    )


def error_of_components(train, noisy, clean):
    """The least squared error that a projection on principal components leaves, over their
    number."""
    errors = []
    for count in range(2, 40):
        components = PCA(count).fit(train)
        restored = components.inverse_transform(components.transform(noisy))
        errors.append(np.square(restored - clean).mean())
    return min(errors)


if __name__ == "__main__":
    train, held_out = data()
    trainer = Trainer(recipe)
    trainer.fit(train)
    noisy, clean = held_out["image"], held_out["clean"]
    for name, error in {
        "noisy": np.square(noisy - clean).mean(),
        "best principal components": error_of_components(train["image"], noisy, clean),
        "denoising autoencoder": trainer.evaluate(held_out)["loss"],
    }.items():
        print(f"{name}: squared error {error:.4f}")
