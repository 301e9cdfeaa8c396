"""Rows: layers that only training has, dropout, noise, augmentation."""

from __future__ import annotations

from typing import Any

import numpy as np

import dsl
from dsl import f32, i64
from tests.coverage.building import of, of_image
from tests.coverage.checks import System

REGULAR, AUGMENT = "Regularization", "Augmentation"


def _row(section: str, name: str, test: str, build: Any, **options: Any) -> System:
    """A layer as it is while training."""
    return System(name, section, build, training=True, agrees="its statistics",
                  test=f"tests/test_{test}.py", **options)  # fmt: skip


def _dropped(name: str, layer: Any, test: str = "augment_images") -> System:
    build = of_image(lambda x: x >> layer)
    return _row(REGULAR, name, test, build)


REGULAR_ROWS = (
    _dropped("Dropout", dsl.Dropout(0.3), "random"),
    _dropped("SpatialDropout", dsl.SpatialDropout(0.3)),
    _dropped("DropPath", dsl.DropPath(0.3)),
    _dropped("AlphaDropout", dsl.AlphaDropout(0.3)),
    _dropped("GaussianDropout", dsl.GaussianDropout(0.3)),
    _dropped("GaussianNoise", dsl.GaussianNoise(0.3)),
    _row(REGULAR, "label noise", "augment_labels",
         of(lambda x: x >> dsl.LabelNoise(3, 0.5), i64["batch"]), order=0),
)  # fmt: skip


def _augmented(name: str, layer: Any) -> System:
    build = of_image(lambda x: x >> layer)
    return _row(AUGMENT, name, "augment_images", build)


def _mixed(name: str, layer: Any) -> System:
    def build(x: Any, label: Any) -> Any:
        mixed, soft = layer(x, label)
        return dsl.mean(mixed) + dsl.mean(soft)

    types = f32["batch", 2, "height", "width"], f32["batch", 3]
    return _row(AUGMENT, name, "augment_labels", of(build, *types),
                feeds=lambda rng: {"x1": np.eye(3, dtype=np.float32)})  # fmt: skip


def _masked(tokens: Any) -> Any:
    changed, chosen = dsl.MaskTokens(0, vocabulary=7, rate=0.4)(tokens)
    return changed + 100 * dsl.cast(chosen, i64)


AUGMENT_ROWS = (
    _augmented("RandomHorizontalFlip", dsl.RandomHorizontalFlip()),
    _augmented("RandomVerticalFlip", dsl.RandomVerticalFlip()),
    _augmented("RandomCrop", dsl.RandomCrop(1)),
    _augmented("RandomRotation", dsl.RandomRotation(15)),
    _augmented("Cutout", dsl.Cutout(2)),
    _augmented("ColorJitter", dsl.ColorJitter()),
    _mixed("Mixup", dsl.Mixup()),
    _mixed("CutMix", dsl.CutMix()),
    _row(AUGMENT, "token masking", "augment_labels", of(_masked, i64["batch", "time"]), order=0),
)  # fmt: skip

ROWS = (*REGULAR_ROWS, *AUGMENT_ROWS)
