"""A model of many processes: what a step of a data-parallel training takes on p of them, each with
as many rows as one alone (weak scaling). Nothing here is measured but what is put in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

JITTER = 0.03
"""Standard deviation of the time that a process computes: all wait for the slowest."""

HIDING = 2 / 3
"""The part of the computation that goes on while the first gradients are reduced already."""

BUCKETS = 16
COUNTS = (2, 16, 256, 1024, 4096)
ALGORITHMS = ("ring", f"ring, {BUCKETS} buckets", f"halving and doubling, {BUCKETS} buckets")


@dataclass(frozen=True)
class Link:
    """What a message takes: `alpha` seconds, and `beta` for each byte."""

    alpha: float
    beta: float


NETWORKS: Mapping[str, Link] = {
    "10 Gb/s": Link(30e-6, 8 / 10e9),
    "100 Gb/s": Link(5e-6, 8 / 100e9),
}
"""Assumed, not measured."""


def fitted(seconds: Mapping[int, float]) -> Link:
    """The link of two processes that explains what sums of so many bytes took: 2·α + bytes·β, by
    least squares of the relative errors."""
    sizes = np.array([*seconds], float)
    times = np.array([*seconds.values()])
    rows = np.stack([2 / times, sizes / times], 1)
    (alpha, beta), *_ = np.linalg.lstsq(rows, np.ones(len(times)), rcond=None)
    if alpha < 0 or beta < 0:  # one of them explains nothing here
        alpha, beta = max(alpha, 0.0), max(beta, 0.0)
        column = rows[:, 0 if alpha else 1]
        value = float(column.sum() / (column @ column))
        alpha, beta = (value, 0.0) if alpha else (0.0, value)
    return Link(float(alpha), float(beta))


def reduction(algorithm: str, link: Link, count: int, size: float, buckets: int = 1) -> float:
    """Seconds in which so many processes add up so many bytes, in buckets one after the other."""
    messages = 2 * math.ceil(math.log2(count)) if "halving" in algorithm else 2 * (count - 1)
    return buckets * messages * link.alpha + 2 * (count - 1) / count * size * link.beta


def efficiency(algorithm: str, link: Link, count: int, size: float, compute: float) -> float:
    """The speed of each of so many processes by that of one alone, whose step takes `compute`
    seconds."""
    buckets = BUCKETS if "buckets" in algorithm else 1
    takes = reduction(algorithm, link, count, size, buckets)
    # The last bucket is there when nothing is left to compute.
    hidden = min(takes * (buckets - 1) / buckets, HIDING * compute) if buckets > 1 else 0.0
    slowest = 1 + JITTER * greatest(count)
    return 1 / (slowest + (takes - hidden) / compute)


def greatest(count: int) -> float:
    """The expected greatest of so many normal numbers."""
    width = 18 / 4000
    grid = width * (np.arange(4000) + 0.5) - 9
    below = np.array([0.5 * math.erfc(-x / math.sqrt(2)) for x in grid])
    # E = ∫ (1 − Φⁿ) over the positive numbers − ∫ Φⁿ over the negative ones.
    power = below**count
    values = np.where(grid > 0, 1 - power, -power)
    return float(values.sum() * width)


def efficiencies(
    link: Link, size: float, compute: float, counts: Iterable[int] = COUNTS
) -> dict[str, Sequence[float]]:
    """Those of each algorithm."""
    counts = list(counts)
    return {a: [efficiency(a, link, p, size, compute) for p in counts] for a in ALGORITHMS}
