"""Functions of images in training: the passes, gradients and steps of all of them at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, model, training
from nncompile.train import Trainer
from nncompile.verify import assert_backends_agree


def sharper(x: Any) -> Any:
    y = x >> dsl.Conv2d(8, 3, padding=1, padding_mode="reflect") >> dsl.PixelShuffle(2)
    return y >> dsl.PixelUnshuffle(2) >> dsl.Conv2d(3, 2, padding=((-1, 1), (0, -1)))


def straightened(x: Any) -> Any:
    theta = dsl.mean(x, (2, 3)) >> dsl.Dense(6)
    grid = dsl.affine_grid(theta.reshape(-1, 2, 3), x.shape)
    return dsl.grid_sample(x, grid, padding_mode="reflection")


def remembered(x: Any) -> Any:
    y, places = dsl.MaxPool2d(2, return_indices=True)(x)
    y = dsl.MaxUnpool2d(2)(y >> dsl.Conv2d(2, 1), places, x.shape[2:])
    return y >> dsl.Unfold(3, padding=1) >> dsl.Fold(x.shape[2:], 3, padding=1)


def resized(x: Any) -> Any:
    y = x >> dsl.Conv2d(3, 3, padding=1, padding_mode="circular")
    y = (
        y
        >> dsl.Upsample(1.5, "bicubic")
        >> dsl.Upsample(size=(5, 4), mode="linear", antialias=True)
    )
    return y >> dsl.Upsample(size=7, mode="bilinear", align_corners=True)


def pooled(x: Any) -> Any:
    y = x >> dsl.Conv2d(4, 1) >> dsl.LocalResponseNorm(3, 0.5) >> dsl.LPPool2d(2, 2, 1)
    y = y >> dsl.AveragePool2d(2, 1, ((1, 0), (0, 1)), count_include_pad=False, dilation=2)
    return y >> dsl.MaxPool2d(3, 2, ((0, 2), (1, 0)))


@pytest.mark.parametrize("function", [sharper, straightened, remembered, resized, pooled])
def test_all_backends_train_it_alike(function: Any) -> None:
    @model
    def net(image=f32["batch", 2, "h", "w"], label=f32["batch"]):  # type: ignore[no-untyped-def]
        y = dsl.tanh(function(image))
        score = dsl.mean(y, (1, 2, 3)) + dsl.parameter("shift", ())
        return {"y": y, "loss": dsl.mse(score, label)}

    rng = np.random.default_rng(0)
    data = {
        "image": rng.normal(size=(6, 2, 8, 6)).astype(np.float32),
        "label": rng.normal(size=6).astype(np.float32),
    }
    recipe = training(net, optimizer=dsl.adam(1e-2), batch_size=6)
    assert assert_backends_agree(recipe, data, quick=True)


@pytest.mark.parametrize("function", [sharper, straightened, remembered, resized, pooled])
def test_predictions_in_batches_are_those_of_all(function: Any) -> None:
    @model
    def net(image=f32["batch", 2, "h", "w"], label=f32["batch"]):  # type: ignore[no-untyped-def]
        y = function(image)
        score = dsl.mean(y, (1, 2, 3)) + dsl.parameter("shift", ())
        return {"y": y, "loss": dsl.mse(score, label)}

    trainer = Trainer(training(net, optimizer=dsl.sgd(0.1), batch_size=6))
    image = np.random.default_rng(0).normal(size=(7, 2, 8, 6)).astype(np.float32)
    together = trainer.predict({"image": image}, batch_size=7)["y"]
    for batch in (1, 3):
        parts = trainer.predict({"image": image}, batch_size=batch)["y"]
        np.testing.assert_allclose(parts, together, rtol=1e-4, atol=1e-5)
