"""Interleaved timing: all sides take turns in each round, in another order each time, so that what
the machine does meanwhile hits all; results are checked equal before anything is timed."""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

WINDOW = 0.01  # seconds that one turn takes at least
LEAST = 7  # rounds, however long they take


class Clock(Protocol):
    """What measures: two counters of seconds."""

    def wall(self) -> float: ...
    def processor(self) -> float: ...


class SystemClock:
    """The time that passes, and that of the processor for all threads of this process."""

    def wall(self) -> float:
        return time.perf_counter()

    def processor(self) -> float:
        return time.process_time()


@dataclass(frozen=True)
class Effort:
    """How long a row is measured: `rounds` at most, and `seconds` about, but never fewer than
    `LEAST` rounds."""

    rounds: int = 41
    seconds: float = 8.0


class Turn(NamedTuple):
    """What one side does in its turn: its calls one after the other, and what waits for them."""

    calls: Sequence[Callable[[], Any]]
    wait: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class Timing:
    """Seconds a call of one side in each round."""

    wall: tuple[float, ...]
    processor: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.wall)

    @property
    def processor_median(self) -> float:
        return statistics.median(self.processor)

    def ratio(self, ours: Timing) -> tuple[float, tuple[float, float]]:
        """The median of this time by ours, round by round, and the quartiles."""
        return _ratio(self.wall, ours.wall)

    def processor_ratio(self, ours: Timing) -> float:
        """The median of the processor's time by that of ours, which is never below 1 ns."""
        return _ratio(self.processor, [max(seconds, 1e-9) for seconds in ours.processor])[0]


def _ratio(a: Sequence[float], b: Sequence[float]) -> tuple[float, tuple[float, float]]:
    low, middle, high = statistics.quantiles([x / y for x, y in zip(a, b, strict=True)], n=4)
    return middle, (low, high)


def interleaved(
    sides: Mapping[str, Turn],
    effort: Effort = Effort(),
    clock: Clock = SystemClock(),
    seed: int = 0,
) -> dict[str, Timing]:
    """The times of the sides, each of which has its turn in each round, in random order."""
    once = {}
    for name, turn in sides.items():
        _turn(turn, 3, clock)  # warms up
        once[name] = max(_turn(turn, 2, clock).wall, 1e-9)
    # The same number of calls for all: so each sees the same batches.
    count = max(1, round(WINDOW / min(once.values())))
    count = min(count, max(1, round(10 * WINDOW / max(once.values()))))
    rounds = int(effort.seconds / (count * sum(once.values())))
    rounds = min(max(rounds, LEAST), effort.rounds)
    draw = random.Random(seed)
    taken: dict[str, list[_Spent]] = {name: [] for name in sides}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name in draw.sample(list(sides), len(sides)):
                taken[name].append(_turn(sides[name], count, clock))
    finally:
        gc.enable()
    return {
        name: Timing(tuple(t.wall for t in turns), tuple(t.processor for t in turns))
        for name, turns in taken.items()
    }


class _Spent(NamedTuple):
    wall: float
    processor: float


def _turn(turn: Turn, count: int, clock: Clock) -> _Spent:
    """The time of one call, over `count` of them in turn."""
    calls, wait = turn
    wall, processor = clock.wall(), clock.processor()
    for i in range(count):
        calls[i % len(calls)]()
    wait()
    return _Spent((clock.wall() - wall) / count, (clock.processor() - processor) / count)
