"""An autoencoder: 64 pixels through a code of 8 numbers and back.

    nncompile train examples/autoencoder.py
    python examples/autoencoder.py          # compares it with principal components

Of the held-out digits' variance, 8 principal components leave out 34 %, the autoencoder 19 %:
a curved surface of the same dimension lies closer to the images than a flat one.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA

from dsl import Dense, adam, cosine, f32, mean_squared_error, model, relu, sigmoid, training
from nncompile import Trainer

CODE = 8


@model(predict=("code", "reconstruction"))
def autoencoder(image=f32["batch", 64]):
    code = image >> Dense(128, relu) >> Dense(64, relu) >> Dense(CODE, name="code")
    reconstruction = code >> Dense(64, relu) >> Dense(128, relu) >> Dense(64, sigmoid)
    return {
        "code": code,
        "reconstruction": reconstruction,
        "loss": mean_squared_error(reconstruction, image),
    }


recipe = training(
    autoencoder,
    minimize="loss",
    optimizer=adam(cosine(3e-3, warmup=50, steps=4000)),
    batch_size=64,
    steps=4000,
)


def data():
    """The images with pixels from 0 to 1; the last 360 are held out."""
    images = (load_digits().data / 16).astype(np.float32)
    return {"image": images[:-360]}, {"image": images[-360:]}


def error_of_components(train, held_out, count=CODE):
    """The squared error of the held-out images after a projection on principal components."""
    components = PCA(count).fit(train)
    return np.square(held_out - components.inverse_transform(components.transform(held_out))).mean()


if __name__ == "__main__":
    train, held_out = data()
    trainer = Trainer(recipe)
    trainer.fit(train)
    variance = np.square(held_out["image"] - train["image"].mean(0)).mean()
    for name, error in {
        f"{CODE} principal components": error_of_components(train["image"], held_out["image"]),
        f"autoencoder, code of {CODE}": trainer.evaluate(held_out)["loss"],
    }.items():
        print(f"{name}: squared error {error:.4f}, {error / variance:.0%} of the variance")
