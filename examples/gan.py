"""Two networks against each other: a generator of digits and a discriminator that tells them from
real ones, each with an optimizer of its own.

    nncompile train examples/gan.py --model gan
    python examples/gan.py docs/images/gan.png      # trains, draws and judges

`updates=[…]` is one training step with two updates, of the parameters `disc.*` and `gen.*`; the
second one sees the discriminator that the first one has improved. Each network minimizes the
cross-entropy of its own wish (I. Goodfellow et al., "Generative Adversarial Nets", 2014); what is
drawn with is the exponential average of the generator.

Of the ten nearest real digits to each of 360 images, 85 % agree on which digit it is, and 85 % of
the images are told apart from real ones; `judge.py` says how, and what others reach.
"""

import sys

import numpy as np
from judge import HELD_OUT, digits, draw, judged, of_moments

from dsl import (
    Dense,
    Dropout,
    GaussianNoise,
    Sequential,
    adam,
    binary_cross_entropy_with_logits,
    ema,
    f32,
    leaky_relu,
    minimize,
    model,
    ones_like,
    random_normal,
    relu,
    sigmoid,
    training,
    zeros_like,
)
from nncompile import Session, Trainer, compile_model

CODE = 32


@model
def generator(code=f32["batch", CODE]):
    draw = Sequential(Dense(128, relu), Dense(128, relu), Dense(64, sigmoid), name="gen")
    return {"image": draw(code)}


@model(predict="realness")
def gan(real=f32["batch", 64]):
    # Noise on all images keeps the two kinds from being told apart by their last digits; a layer
    # that is called twice draws other noise for each call.
    disc = Sequential(
        GaussianNoise(0.1), Dense(192, leaky_relu), Dropout(0.3), Dense(192, leaky_relu),
        Dropout(0.3), Dense(1), name="disc",
    )  # fmt: skip
    fake = generator(random_normal((real.shape[0], CODE)))["image"]
    of_real, of_fake = disc(real), disc(fake)
    loss = binary_cross_entropy_with_logits
    return {
        "realness": sigmoid(of_real),
        "disc_loss": (loss(of_real, 0.9 * ones_like(of_real)) + loss(of_fake, zeros_like(of_fake)))
        / 2,
        "gen_loss": loss(of_fake, ones_like(of_fake)),
    }


recipe = training(
    gan,
    updates=[
        minimize("disc_loss", params="disc.*", optimizer=adam(1e-3, betas=(0.5, 0.999))),
        minimize("gen_loss", params="gen.*", optimizer=adam(1e-3, betas=(0.5, 0.999))),
    ],
    average=ema(0.999, params="gen.*"),
    batch_size=64,
    steps=2500,
)


def data():
    train, held_out = digits()
    return {"real": train}, {"real": held_out}


def drawn(params, count):
    """Images of random codes, by the ONNX of the generator alone."""
    code = np.random.default_rng(0).normal(size=(count, CODE)).astype(np.float32)
    weights = {path: params[path] for path in generator.parameters}
    return Session(compile_model(generator).model).run({"code": code, **weights})["image"]


if __name__ == "__main__":
    trainer = Trainer(recipe)
    print("before:        ", judged(drawn(trainer.params, HELD_OUT)))
    trainer.fit(data()[0])
    images = drawn(trainer.averaged(), HELD_OUT)
    print("after:         ", judged(images))
    print("normal numbers:", judged(of_moments()))
    if len(sys.argv) > 1:
        draw(images[:100], sys.argv[1])
