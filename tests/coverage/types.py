"""Rows: element types, each computed with on numbers at both ends of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import dsl
from dsl import bf16, f16, f32, f64, i8, i16, i32, i64, model, u8, u16, u32, u64
from nncompile.ir.types import DType
from nncompile.program.composition import compose
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from tests.coverage.checks import Feeds, System
from tests.coverage.stepping import STEPS

TYPES = "Element types"


def _real(dtype: DType) -> Callable[[], Model]:
    """A layer of weights of that type; two roundings to it would differ from one."""

    def build() -> Model:
        @model
        def net(x: Any = dtype["batch", 4]) -> dict[str, Any]:
            return {"y": x >> dsl.Dense(5, dsl.tanh), "total": dsl.sum(x * x)}

        return net

    return build


def _whole(dtype: DType) -> Callable[[], Model]:
    """What integers are for: arithmetic that wraps round, orders, places, sums, conversions."""

    def build() -> Model:
        @model
        def net(x: Any = dtype["batch", 4], y: Any = dtype["batch", 4]) -> dict[str, Any]:
            return {
                "wrapped": x * 3 + y - x * y,
                "quotient": x // y,
                "remainder": x % y,
                "bits": (x & y) | (x >> 1) ^ (y << 2),
                "real": x / 2 + y,
                "ordered": dsl.sort(x, 1),
                "greatest": dsl.max(dsl.where(x > y, x, y), 0),
                "place": dsl.argmax(x, 1),
                "total": dsl.sum(x),
                "products": x @ y.T,
                "taken": dsl.take(x, y.astype(i64) % 4, 1),
                "converted": dsl.cast(x, i32) + dsl.cast(dsl.cast(y, i8), i32),
            }

        return net

    return build


def _ends(dtype: DType) -> Callable[[np.random.Generator], Feeds]:
    """Numbers of the whole range of the type, its ends, 0 and those beside it among them."""

    def feeds(rng: np.random.Generator) -> Feeds:
        low, high = np.iinfo(dtype.numpy).min, np.iinfo(dtype.numpy).max
        some = np.array([low, high, low + 1, high - 1, 0, 1, 2, max(low, -1)], dtype.numpy)
        drawn = rng.integers(low, high, (2, 3, 4), dtype.numpy, endpoint=True)
        drawn[0].flat[:8], drawn[1].flat[-8:] = some, rng.permutation(some)
        return {"x": drawn[0], "y": drawn[1]}

    return feeds


def _images() -> Recipe:
    """Images of bytes, fed as they are and cast in the model."""

    @model
    def net(image: Any = u8["batch", 1, 6, 6], label: Any = u8["batch"]) -> dict[str, Any]:
        x = dsl.cast(image, f32) / 255 >> dsl.Conv2d(2, 3, activation=dsl.tanh)
        logits = x >> dsl.flatten >> dsl.Dense(3)
        return {"logits": logits, "loss": dsl.cross_entropy(logits, label)}

    return dsl.training(net, optimizer=dsl.sgd(0.1))


def _bytes(rng: np.random.Generator, size: int = 3) -> Feeds:
    return {
        "image": rng.integers(0, 256, (size, 1, 6, 6), np.uint8),
        "label": rng.integers(0, 3, size, np.uint8),
    }


def _batches(_: Recipe) -> list[Feeds]:
    rng = np.random.default_rng(7)
    return [_bytes(rng, 5 if i % 2 else 8) for i in range(STEPS)]


def _short(dtype: DType) -> Callable[[], Recipe]:
    """Data of that type, which a model of float32 is trained with."""

    def recipe() -> Recipe:
        @model
        def net(x: Any = dtype["batch", 4], label: Any = i64["batch"]) -> dict[str, Any]:
            logits = dsl.cast(x, f32) >> dsl.Dense(6, dsl.tanh) >> dsl.Dense(3)
            return {"logits": logits, "loss": dsl.cross_entropy(logits, label)}

        return dsl.training(net, optimizer=dsl.sgd(0.1))

    return recipe


ROWS = (
    *(
        System(dtype.short, TYPES, _real(dtype), _short(dtype), agrees="numpy",
               test="tests/test_element_types.py")
        for dtype in (f16, bf16, f32)
    ),
    System(f64.short, TYPES, _real(f64), agrees="numpy", test="tests/test_double.py"),
    *(
        System(dtype.short, TYPES, _whole(dtype), order=0, feeds=_ends(dtype), agrees="numpy",
               test="tests/test_integers_of_all_widths.py")
        for dtype in (i8, i16, i32, i64, u8, u16, u32, u64)
    ),
    System("images of bytes, cast in the model", TYPES, lambda: compose(_images()).step, _images,
           feeds=_bytes, batches=_batches),
)  # fmt: skip
