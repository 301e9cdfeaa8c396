"""Models, data whose sizes may not fit them, and the messages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from dsl import (
    Conv2d,
    Dense,
    LearnedPositions,
    MaxPool2d,
    cross_entropy,
    f32,
    i64,
    model,
    relu,
    sgd,
    softmax,
    training,
)
from nncompile.diagnostics.errors import FeedError
from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.train import Trainer

Feeds = dict[str, Array]


def sequences() -> Model:
    @model
    def sequences(x=f32["batch", "time", 4], label=i64["batch"]):
        logits = x >> LearnedPositions(8, name="places") >> (lambda h: h.mean(1)) >> Dense(3)
        return {"probabilities": softmax(logits), "loss": cross_entropy(logits, label)}

    return sequences


def images() -> Model:
    @model
    def images(image=f32["batch", 1, "height", "width"], label=i64["batch"]):
        h = image >> Conv2d(2, (5, 3), activation=relu, name="stem") >> MaxPool2d(2, name="pool")
        logits = h.mean((2, 3)) >> Dense(3)
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return images


def of_sequences(time: int, batch: int = 6) -> Feeds:
    return {"x": np.ones((batch, time, 4), np.float32), "label": np.zeros(batch, np.int64)}


def of_images(height: int, width: int, batch: int = 6) -> Feeds:
    image = np.ones((batch, 1, height, width), np.float32)
    return {"image": image, "label": np.zeros(batch, np.int64)}


def trainer(net: Model) -> Trainer:
    return Trainer(training(net, optimizer=sgd(0.1), batch_size=4, epochs=1))


def told(act: Callable[[], object]) -> str:
    with pytest.raises(FeedError) as error:
        act()
    return str(error.value)


def data_without(feeds: Feeds, *names: str) -> Feeds:
    return {name: x for name, x in feeds.items() if name not in names}
