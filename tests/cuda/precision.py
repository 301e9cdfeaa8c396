"""Steps with products of 16 bits on a device, against float32 there, and their speed."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from dsl import Dense, adamw, cross_entropy, f32, i64, model, relu, training
from nncompile import Trainer
from tests.test_precision import BOUNDS, cnn, data_of, gpt, mlp, recurrent

STEPS = 9


@model(predict="logits")
def wide(x=f32["batch", 2048], label=i64["batch"]):  # type: ignore[no-untyped-def]
    logits = x >> Dense(4096, relu) >> Dense(4096, relu) >> Dense(10)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


def lines(provider: str) -> Iterator[tuple[str, bool]]:
    """A line for each network and precision, and whether it is as it should be."""
    for net in (mlp, cnn, gpt, recurrent):
        exact = _losses(net, provider, "f32")
        for name, bounds in BOUNDS.items():
            found = _losses(net, provider, name)
            apart = [abs(found[i] / exact[i] - 1) for i in (0, -1)]
            holds = all(a <= bound for a, bound in zip(apart, bounds, strict=True))
            yield f"{net.name} {name}: first loss {apart[0]:.1e}, last {apart[1]:.1e}", holds
    usual = _milliseconds(provider, "f32")
    yield f"wide f32: {usual:.2f} ms a step", True
    for name in BOUNDS:
        taken = _milliseconds(provider, name)
        yield f"wide {name}: {taken:.2f} ms a step, {usual / taken:.2f} times as fast", True


def _trainer(net: Any, provider: str, precision: str, size: int) -> Trainer:
    emulated = provider == "cpu" and precision != "f32"
    options = {"precision": precision, "emulate": emulated, "batch_size": size}
    return Trainer(training(net, optimizer=adamw(2e-3), **options), provider)


def _losses(net: Any, provider: str, precision: str) -> list[float]:
    data = data_of(net)
    trainer = _trainer(net, provider, precision, len(data["label"]))
    losses: list[float] = trainer.fit(data, epochs=STEPS, verbose=0)["loss"]
    return losses


def _milliseconds(provider: str, precision: str) -> float:
    """The median time of a step of the wide network, on 512 examples."""
    random = np.random.default_rng(0)
    x = random.normal(size=(512, 2048)).astype(np.float32)
    batch = {"x": x, "label": random.integers(0, 10, 512)}
    runner = _trainer(wide, provider, precision, 512)._loop.runner
    times = []
    for _ in range(3 if provider == "cpu" else 50):
        start = time.perf_counter()
        runner.step(batch)
        runner.metrics()
        times.append(time.perf_counter() - start)
    return 1e3 * float(np.median(times[1:]))
