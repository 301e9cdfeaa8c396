"""A variational autoencoder of binary digits, and digits drawn from it.

    nncompile train examples/vae.py --model vae
    python examples/vae.py docs/images/vae.png      # trains, draws and judges

The loss is −ELBO in nats: a bound on −log p(image) of a true density of binary images, so that it
can be compared with that of other densities. Held out: pixels that are independent of each other
need 24.6 nats an image, ten tables of independent pixels (one a digit) 19.9, the VAE 17.9.
The noise is drawn in the graph from the training's seed and step, and the gradient goes through it
(D. Kingma and M. Welling, "Auto-Encoding Variational Bayes", 2014). The decoder is a model of its
own, which is what is exported to draw with.
"""

import sys

import numpy as np
from judge import HELD_OUT, digits, draw, judged, shuffled

from dsl import (
    Dense,
    Dropout,
    adam,
    binary_cross_entropy_with_logits,
    cosine,
    exp,
    f32,
    model,
    random_normal,
    relu,
    sigmoid,
    training,
)
from nncompile import Session, Trainer, compile_model

CODE = 10


@model(predict="pixels")
def decoder(code=f32["batch", CODE]):
    hidden = code >> Dense(256, relu, name="d1") >> Dense(256, relu, name="d2")
    logits = hidden >> Dense(64, name="d3")
    return {"logits": logits, "pixels": sigmoid(logits)}


@model(predict="mean")
def vae(image=f32["batch", 64]):
    hidden = image >> Dropout(0.2) >> Dense(256, relu, name="e1") >> Dense(256, relu, name="e2")
    mean = hidden >> Dense(CODE, name="mean")
    log_variance = hidden >> Dense(CODE, name="log_variance")
    code = random_normal(mean.shape, mean, exp(log_variance / 2))
    logits = decoder(code=code)["logits"]
    surprise = binary_cross_entropy_with_logits(logits, image, reduction="none").sum(1)
    # Of a normal distribution against the standard one, in closed form.
    divergence = 0.5 * (exp(log_variance) + mean**2 - 1 - log_variance).sum(1)
    return {
        "mean": mean,
        "surprise": surprise.mean(),
        "divergence": divergence.mean(),
        "loss": (surprise + divergence).mean(),
    }


recipe = training(
    vae,
    minimize="loss",
    optimizer=adam(cosine(3e-3, warmup=100, steps=2000)),
    batch_size=64,
    steps=2000,
)


def data():
    """The pixels that are dark, as 1, and the others as 0."""
    train, held_out = digits()
    return (
        {"image": (train > 0.5).astype(np.float32)},
        {"image": (held_out > 0.5).astype(np.float32)},
    )


def independent(train, held_out):
    """−log p in nats of the held-out images where each pixel is dark by its own frequency."""
    p = (train.sum(0) + 1) / (len(train) + 2)
    return -(held_out * np.log(p) + (1 - held_out) * np.log(1 - p)).sum(1)


def a_table_for_each_digit(train, held_out):
    """The same with frequencies for each of the ten digits, all equally likely."""
    labels = shuffled()[1][: len(train)]
    parts = [np.log(10) + independent(train[labels == n], held_out) for n in range(10)]
    return -np.logaddexp.reduce(-np.stack(parts), axis=0)


def drawn(params, count):
    """Images from the exported decoder's ONNX, on codes of the standard normal distribution."""
    code = np.random.default_rng(0).normal(size=(count, CODE)).astype(np.float32)
    weights = {path: params[path] for path in decoder.parameters}
    return Session(compile_model(decoder).model).run({"code": code, **weights})["pixels"]


if __name__ == "__main__":
    train, held_out = data()
    trainer = Trainer(recipe)
    trainer.fit(train)
    images = train["image"], held_out["image"]
    print(f"independent pixels: {independent(*images).mean():.2f} nats")
    print(f"a table for each digit: {a_table_for_each_digit(*images).mean():.2f} nats")
    print(f"VAE: {trainer.evaluate(held_out)['loss']:.2f} nats")
    pixels = drawn(trainer.params, HELD_OUT)
    print(judged(pixels))
    if len(sys.argv) > 1:
        draw(pixels[:100], sys.argv[1])
