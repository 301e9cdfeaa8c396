"""Denoising diffusion: a network learns to tell noise from image, and images are drawn by taking
the noise away bit by bit, with onnxruntime and numpy alone.

    nncompile train examples/diffusion.py --model diffusion
    python examples/diffusion.py docs/images/diffusion.png      # trains, draws and judges

At the time t, from 0 to 1, an image is x·cos(πt/2) + ε·sin(πt/2) of image x and noise ε (J. Ho et
al., "Denoising Diffusion Probabilistic Models", 2020; the curve is that of T. Salimans and J. Ho,
"Progressive Distillation for Fast Sampling of Diffusion Models", 2022, and so is what is learned,
v = ε·cos − x·sin). Images are drawn in 40 steps, with an average of the weights.

Of the ten nearest real digits to each of 360 images, 86 % agree on which digit it is, and 79 % of
the images are told apart from real ones; `judge.py` says how, and what others reach.
"""

import sys
import tempfile
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnxruntime
from judge import HELD_OUT, digits, draw, judged, of_moments

from dsl import (
    Dense,
    Layer,
    LayerNorm,
    adamw,
    concatenate,
    cos,
    cosine,
    ema,
    exp,
    expand_dims,
    f32,
    iota,
    mean_squared_error,
    model,
    random_normal,
    random_uniform,
    silu,
    sin,
    training,
)
from nncompile import Trainer, export

WIDTH = 128


class TimeEmbedding(Layer):
    """Sines and cosines of the time at frequencies from 1 to 50: f32[n] to f32[n, width]."""

    width: int

    def __call__(self, time):
        half = self.width // 2
        frequencies = exp(iota(half, f32) * (np.log(50) / (half - 1)))
        angles = expand_dims(time, 1) * frequencies
        return concatenate([sin(angles), cos(angles)], axis=1)


class Block(Layer):
    """x + f(x, time), f two dense layers."""

    def __call__(self, x, time):
        hidden = (x >> LayerNorm() >> Dense(WIDTH)) + (time >> Dense(WIDTH, name="time"))
        return x + (silu(hidden) >> Dense(WIDTH, name="out"))


@model
def denoiser(noisy=f32["batch", 64], time=f32["batch"]):
    moment = time >> TimeEmbedding(32) >> Dense(64, silu, name="time")
    hidden = noisy >> Dense(WIDTH, name="stem")
    for name in ("a", "b", "c"):
        hidden = Block(name=name)(hidden, moment)
    return {"v": hidden >> LayerNorm(name="norm") >> Dense(64, name="head")}


@model(predict="v")
def diffusion(image=f32["batch", 64]):
    time = random_uniform((image.shape[0],))
    noise = random_normal(image.shape)
    near, far = (expand_dims(f(time * (np.pi / 2)), 1) for f in (cos, sin))
    v = denoiser(noisy=image * near + noise * far, time=time)["v"]
    return {"v": v, "loss": mean_squared_error(v, noise * near - image * far)}


recipe = training(
    diffusion,
    minimize="loss",
    optimizer=adamw(cosine(4e-3, warmup=200, steps=6000), weight_decay=1e-3),
    average=ema(0.999),
    batch_size=64,
    steps=6000,
)


def data():
    """The images with pixels from −1 to 1."""
    train, held_out = digits()
    return {"image": 2 * train - 1}, {"image": 2 * held_out - 1}


def export_denoiser(trainer, file):
    """The network alone, with the average of the weights."""
    state = trainer.averaged()
    export(denoiser, file, params={path: state[path] for path in denoiser.parameters})


def drawn(file, count, steps=40, seed=0):
    """Images from noise by the exported denoiser: at each time, the image and the noise that v
    stands for, put together anew for the time before, with as much new noise as Ho et al. draw (the
    sampler of J. Song et al., "Denoising Diffusion Implicit Models", 2021, with η = 1)."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    random = np.random.default_rng(seed)
    x = random.standard_normal((count, 64), np.float32)
    times = np.linspace(1, 0, steps + 1, dtype=np.float32)
    for now, following in pairwise(times):
        (v,) = session.run(["v"], {"noisy": x, "time": np.full(count, now)})
        (near, far), (nearer, less) = (
            (np.cos(t * np.pi / 2), np.sin(t * np.pi / 2)) for t in (now, following)
        )
        image, noise = (near * x - far * v).clip(-1, 1), far * x + near * v
        new = less / far * np.sqrt(1 - (near / nearer) ** 2)
        x = nearer * image + np.sqrt(max(less**2 - new**2, 0)) * noise
        x = (x + new * random.standard_normal(x.shape)).astype(np.float32)
    return (x + 1) / 2


if __name__ == "__main__":
    trainer = Trainer(recipe)
    trainer.fit(data()[0])
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "denoiser.onnx"
        export_denoiser(trainer, file)
        images = drawn(file, HELD_OUT)
    print("drawn:         ", judged(images))
    print("normal numbers:", judged(of_moments()))
    if len(sys.argv) > 1:
        draw(images[:100], sys.argv[1])
