"""Which wave is it: sine, square, triangle or saw? Causal convolutions say so while it sounds.

    nncompile train examples/conv1d_waves.py
    python examples/conv1d_waves.py         # trains, and says how soon it knows

Pitch, phase and loudness are random, and noise is added. The dilations 1, 2, 4, 8 and 16 let each
answer see the last 63 samples, and "causal" padding none that come later (A. van den Oord et al.,
"WaveNet", 2016). Of 1000 held-out waves, 55 % are recognised after 8 samples, 98 % after 64. The
exported file takes waves of any length.
"""

import numpy as np

from dsl import (
    Conv1d,
    Dense,
    Layer,
    accuracy,
    adamw,
    broadcast_to,
    cosine,
    cross_entropy,
    expand_dims,
    f32,
    i64,
    model,
    moveaxis,
    relu,
    training,
)
from nncompile import Trainer

KINDS = ("sine", "square", "triangle", "saw")
LENGTH = 96


class Dilated(Layer):
    """x + f(x), f a causal convolution that skips all but every dilation-th sample."""

    dilation: int

    def __call__(self, x):
        channels = x.shape[1]
        return x + (x >> Conv1d(channels, 3, padding="causal", dilation=self.dilation) >> relu)


@model(predict="logits")
def conv1d_waves(wave=f32["batch", "time"], kind=i64["batch"]):
    """After each sample, logits of the kinds: `[batch, time, 4]`."""
    x = expand_dims(wave, 1) >> Conv1d(32, 1)
    for dilation in (1, 2, 4, 8, 16):
        x = x >> Dilated(dilation)
    logits = moveaxis(x, 1, -1) >> Dense(32, relu) >> Dense(len(KINDS), name="head")
    kinds = broadcast_to(expand_dims(kind, 1), wave.shape)
    return {
        "logits": logits,
        "loss": cross_entropy(logits[:, 16:], kinds[:, 16:]),
        "accuracy": accuracy(logits[:, -1], kind),
    }


recipe = training(
    conv1d_waves,
    minimize="loss",
    optimizer=adamw(cosine(6e-3, warmup=50, steps=800)),
    batch_size=16,
    steps=800,
)


def waves(count, length, seed):
    """Waves of random pitch, phase and loudness with noise: f32[count, length], and their kinds."""
    random = np.random.default_rng(seed)
    kind = random.integers(len(KINDS), size=count)
    period, start = random.uniform(8, 24, (count, 1)), random.uniform(0, 1, (count, 1))
    turns = (np.arange(length) / period + start) % 1
    shapes = np.stack(
        [
            np.sin(2 * np.pi * turns),
            np.sign(0.5 - turns),
            4 * abs(turns - 0.5) - 1,
            2 * turns - 1,
        ]
    )
    wave = shapes[kind, np.arange(count)] * random.uniform(0.5, 2, (count, 1))
    return (wave + random.normal(scale=0.1, size=wave.shape)).astype(np.float32), kind


def data():
    """4000 waves to train on, 1000 others to measure on."""
    (train, train_kind), (held_out, held_out_kind) = waves(4000, LENGTH, 0), waves(1000, LENGTH, 1)
    return {"wave": train, "kind": train_kind}, {"wave": held_out, "kind": held_out_kind}


if __name__ == "__main__":
    train, held_out = data()
    trainer = Trainer(recipe)
    trainer.fit(train)
    guesses = trainer.predict({"wave": held_out["wave"]})["logits"].argmax(axis=-1)
    right = (guesses == held_out["kind"][:, None]).mean(axis=0)
    for samples in (4, 8, 16, 32, 64, 96):
        print(f"after {samples} samples: {right[samples - 1]:.1%} right")
