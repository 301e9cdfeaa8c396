"""Whether a process grows by training long, or by compiling many models: a notebook that is open
for days, a search over hyper-parameters."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from dsl import Dense, accuracy, adam, cross_entropy, f32, i64, model, relu, training
from nncompile import Trainer
from nncompile.program.model import Model

STEPS_OF_A_MODEL = 100  # for each model, that many steps of one training
ALLOWED = 20.0  # MB, for 1,000 models and for 100,000 steps
WARM = 5_000, 50  # steps and models before the memory is measured
_EVERY = 10  # lines of progress


def classifier(number: int) -> Model:
    """A perceptron of another width and depth for each number."""
    width, depth = 8 + number // 4, 1 + number % 4

    @model(name=f"net_{number}")
    def net(x: Any = f32["batch", 4], label: Any = i64["batch"]) -> Any:
        hidden = x
        for i in range(depth):
            hidden = hidden >> Dense(width, relu, name=f"hidden_{i}")
        logits = hidden >> Dense(3, name="head")
        loss = cross_entropy(logits, label)
        return {"logits": logits, "loss": loss, "accuracy": accuracy(logits, label)}

    return net


def data() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(320, 4)).astype(np.float32)
    return {"x": x, "label": (x[:, 0] > 0).astype(np.int64)}


def megabytes() -> float:
    """What the process holds in memory, without what only waits to be given back."""
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def growth_by_steps(count: int) -> float:
    """Megabytes by which a training of so many steps grows, after others."""
    trainer = Trainer(training(classifier(0), optimizer=adam(1e-3), batch_size=32))
    batches = [{n: x[i : i + 32] for n, x in data().items()} for i in range(0, 320, 32)]
    trainer.fit(data(), steps=WARM[0] // 2, verbose=0)
    trainer.fit(batches, steps=WARM[0] // 2, validation_data=data(), verbose=0)
    before = megabytes()
    trainer.fit(data(), steps=count // 2, validation_data=data(), verbose=0)
    trainer.fit(batches, steps=count - count // 2, verbose=0)
    return megabytes() - before


def growth_by_models(count: int, warm: int = WARM[1]) -> float:
    """Megabytes by which compiling and training so many models grows, after others."""
    before, start = 0.0, time.perf_counter()
    for number in range(warm + count):
        if number == warm:
            before = megabytes()
        trainer = Trainer(training(classifier(number), optimizer=adam(1e-3), batch_size=32))
        trainer.fit(data(), steps=3, verbose=0)
        trainer.evaluate(data())
        trainer.predict({"x": data()["x"]})
        del trainer
        if number >= warm and (number - warm + 1) % max(count // _EVERY, 1) == 0:
            seconds = time.perf_counter() - start
            made = number - warm + 1
            print(f"{made:,} models: {megabytes() - before:+.1f} MB, {seconds:.0f} s", flush=True)
    return megabytes() - before


def main(count: int, seed: int = 0) -> int:
    """Measures both, for so many models; 1 where one of them grows by more than is allowed."""
    steps = count * STEPS_OF_A_MODEL
    by_steps = growth_by_steps(steps)
    print(f"{steps:,} steps: {by_steps:+.1f} MB", flush=True)
    by_models = growth_by_models(count)
    print(f"{count:,} models: {by_models:+.1f} MB")
    return int(max(by_steps, by_models) > ALLOWED)
