"""What `fit` adds to a step: the time of an epoch against that of its bare steps, in random order
in each round; beside what torch's own way to the batches costs."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers.base import Absent, installed
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
    """Medians over the rounds, in microseconds a step. `torch` is what a batch costs there before
    its step: a `DataLoader` of arrays, or a list of arrays that become tensors."""

    data: str
    bare: float
    fit: float
    target: float
    torch: float | None = None

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
    sides = {**sides, **_peers(data, batches)}
    times: dict[str, list[float]] = {name: [] for name in sides}
    draw = random.Random(0)
    for round_number in range(ROUNDS + 1):
        for name in draw.sample(list(sides), len(sides)):
            seconds = _seconds(sides[name])
            if round_number:  # the first warms up
                times[name].append(1e6 * seconds / len(batches))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return [
        FitRow(name, medians["bare"], medians[name], target, medians.get(_peer_of(name)))
        for name, target in TARGETS.items()
    ]


def _peer_of(data: str) -> str:
    return "DataLoader" if data == "arrays" else "tensors"


def _peers(data: Any, batches: Any) -> dict[str, Callable[[], Any]]:
    """torch's way to each batch, without a step; nothing where torch is not installed."""
    try:
        torch, utilities = installed("torch", "torch.utils.data")
    except Absent:
        return {}
    dataset = utilities.TensorDataset(*(torch.from_numpy(a) for a in data.values()))
    loader = utilities.DataLoader(dataset, batch_size=BATCH, shuffle=True)

    def loaded() -> None:
        for _ in loader:
            pass

    def turned() -> None:
        for batch in batches:
            for array in batch.values():
                torch.from_numpy(array)

    return {"DataLoader": loaded, "tensors": turned}


def _seconds(side: Callable[[], Any]) -> float:
    gc.collect()
    start = time.process_time()  # one thread works, whatever else the machine does
    side()
    return time.process_time() - start
