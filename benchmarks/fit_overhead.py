"""What `fit` adds to a step: the time of an epoch against that of its bare steps, interleaved."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from dsl import Dense, accuracy, adam, cross_entropy, f32, i64, model, relu, training
from nncompile import Trainer

EXAMPLES, BATCH, ROUNDS = 32 * 200, 32, 31
TARGETS = {
    "arrays": 25.0,
    "list of batches": 40.0,
    "list of tuples": 40.0,
}
"""Microseconds that `fit` may add to a step, by the kind of the data."""


@dataclass(frozen=True)
class FitRow:
    """Medians over the rounds, in microseconds a step."""

    data: str
    bare: float
    fit: float
    target: float

    @property
    def added(self) -> float:
        """What `fit` adds to a bare step."""
        return self.fit - self.bare


@model
def tiny(x: Any = f32["batch", 4], label: Any = i64["batch"]) -> Any:
    """A perceptron of which a step is next to nothing."""
    logits = x >> Dense(8, relu) >> Dense(3)
    return {
        "logits": logits,
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
    }


def measure_fit(threads: int = 1) -> list[FitRow]:
    """`fit` of arrays and of a list of batches, against steps on batches that are ready."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(EXAMPLES, 4)).astype(np.float32)
    data = {"x": x, "label": rng.integers(0, 3, EXAMPLES)}
    batches = [
        {name: a[i : i + BATCH].copy() for name, a in data.items()}
        for i in range(0, EXAMPLES, BATCH)
    ]
    tuples = [tuple(batch.values()) for batch in batches]
    trainer = Trainer(training(tiny, optimizer=adam(1e-3), batch_size=BATCH), threads=threads)
    runner = trainer.compiled.runner(trainer.state, threads=threads)

    def bare() -> None:
        for batch in batches:
            runner.step(batch)
            runner.metrics()

    sides: Mapping[str, Callable[[], Any]] = {
        "bare": bare,
        "arrays": lambda: trainer.fit(data, epochs=1, verbose=0),
        "list of tuples": lambda: trainer.fit(tuples, epochs=1, verbose=0),
        "list of batches": lambda: trainer.fit(batches, epochs=1, verbose=0),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    for round_number in range(ROUNDS + 1):
        for name, side in sides.items():
            seconds = _seconds(side)
            if round_number:  # the first warms up
                times[name].append(1e6 * seconds / len(batches))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return [FitRow(name, medians["bare"], medians[name], TARGETS[name]) for name in TARGETS]


def _seconds(side: Callable[[], Any]) -> float:
    gc.collect()
    start = time.process_time()  # one thread works, whatever else the machine does
    side()
    return time.process_time() - start
