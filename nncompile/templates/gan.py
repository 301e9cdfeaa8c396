"""A generator and a discriminator against each other: points on a ring of eight clusters.

Both are trained in one step, each with an optimizer of its own. The exported model of `generator`
draws points from random codes: put your data in the place of `points`.
"""

import numpy as np

from dsl import (
    Dense,
    Sequential,
    Value,
    adam,
    binary_cross_entropy_with_logits,
    ema,
    f32,
    leaky_relu,
    minimize,
    model,
    ones_like,
    option,
    random_normal,
    relu,
    sigmoid,
    training,
    zeros_like,
)

code_size = option(8, low=1, help="numbers that a point is made of")
width = option(64, low=1, help="features of the hidden layers")
rate = option(5e-4, low=1e-5, high=1e-1, log=True, help="learning rate of both")
steps = option(3000, low=1, help="steps of the training")


@model
def generator(code: Value = f32["batch", code_size]) -> dict[str, Value]:
    """A point for each code."""
    draw = Sequential(Dense(width, relu), Dense(width, relu), Dense(2), name="generator")
    return {"point": draw(code)}


@model(predict="realness")
def gan(real: Value = f32["batch", 2]) -> dict[str, Value]:
    """How real the points look, and what each of the two wants to be small."""
    judge = Sequential(
        Dense(width, leaky_relu), Dense(width, leaky_relu), Dense(1), name="discriminator"
    )
    fake = generator(random_normal((real.shape[0], code_size)))["point"]
    of_real, of_fake = judge(real), judge(fake)
    loss = binary_cross_entropy_with_logits
    return {
        "realness": sigmoid(of_real),
        "discriminator_loss": loss(of_real, 0.9 * ones_like(of_real))
        + loss(of_fake, zeros_like(of_fake)),
        "generator_loss": loss(of_fake, ones_like(of_fake)),
    }


optimizer = adam(rate, betas=(0.5, 0.999))
recipe = training(
    gan,
    updates=[
        minimize("discriminator_loss", params="discriminator.*", optimizer=optimizer),
        minimize("generator_loss", params="generator.*", optimizer=optimizer),
    ],
    average=ema(0.99, params="generator.*"),
    batch_size=128,
    steps=steps,
)


def points(count: int, seed: int) -> np.ndarray:
    """Random points of eight clusters on a ring."""
    random = np.random.default_rng(seed)
    angle = random.integers(8, size=count) * np.pi / 4
    centers = 2 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (centers + random.normal(0, 0.1, (count, 2))).astype(np.float32)


def data() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Points to train on, and others that are held out."""
    return {"real": points(4096, seed=0)}, {"real": points(512, seed=1)}
