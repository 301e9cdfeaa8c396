"""Interleaved timing: both sides take turns in one run, so that what the machine does meanwhile
hits both; results are checked equal before anything is timed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.peers import TorchEager
from benchmarks.workloads import Workload
from nncompile.compiler.compile import compile_step

ROUNDS = 41
ROUND_SECONDS = 0.04
BATCHES = 20


@dataclass(frozen=True)
class Row:
    """Medians over the rounds, in milliseconds a step, and the spread of the ratio."""

    workload: str
    batch: int
    optimizer: str
    threads: int
    peer: str
    ours_ms: float
    peer_ms: float
    ratio: float
    quartiles: tuple[float, float]
    target: float


def measure(workload: Workload, threads: int = 1) -> Row:
    """Raises `AssertionError` where the two sides compute different losses."""
    step = compile_step(workload.recipe())
    state = step.source.initial()
    batches = workload.batches(BATCHES)
    _check_equal(workload, step, state, batches, threads)
    runner = step.runner(state, threads=threads)
    peer = TorchEager(workload, state, threads)
    ours = [lambda batch=batch: runner.step(batch) for batch in batches]
    theirs = [peer.prepare(batch) for batch in batches]
    rounds = interleaved([ours, theirs])
    mine, other = map(statistics.median, rounds)
    low, _, high = statistics.quantiles([b / a for a, b in zip(*rounds, strict=True)], n=4)
    return Row(
        workload.name,
        workload.batch,
        workload.optimizer,
        threads,
        peer.name,
        mine * 1e3,
        other * 1e3,
        other / mine,
        (low, high),
        workload.target,
    )


def interleaved(sides: Sequence[Sequence[Callable[[], Any]]]) -> list[list[float]]:
    """The seconds that a call of each side took in each round, in which all take their turn."""
    for calls in sides:
        _seconds(calls, 3)  # warm up
    count = max(1, round(ROUND_SECONDS / _seconds(sides[-1], 5)))
    rounds = [[_seconds(calls, count) for calls in sides] for _ in range(ROUNDS)]
    return [list(times) for times in zip(*rounds, strict=True)]


def _check_equal(
    workload: Workload, step: Any, state: Any, batches: Sequence[Any], threads: int
) -> None:
    runner = step.runner(state, threads=threads)
    peer = TorchEager(workload, state, threads)
    ours, theirs = [], []
    for batch in batches[: workload.checked]:
        runner.step(batch)
        ours.append(float(runner.metrics()["loss"]))
        theirs.append(float(peer.prepare(batch)()))
    np.testing.assert_allclose(ours, theirs, rtol=workload.tolerance)


def _seconds(calls: Sequence[Callable[[], Any]], count: int) -> float:
    """The time of one call, over `count` of them in turn."""
    start = time.perf_counter()
    for i in range(count):
        calls[i % len(calls)]()
    return (time.perf_counter() - start) / count
