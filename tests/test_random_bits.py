"""Random bits: even, and independent between neighbours, streams, steps and salts."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from nncompile.ir.interpreter import evaluate
from nncompile.ops.random.generator import Hash, random_bits, random_key, seed_leaf
from tests.random_checks import COUNT, SIGMAS


def bits(counter: Any, key: Any) -> np.ndarray:
    """The generator by itself, on vectors of counters and keys."""
    counters, keys = np.broadcast_arrays(
        *(np.atleast_1d(x).astype(np.uint32) for x in (counter, key))
    )
    return Hash().numpy(counters, keys)


def keys_of_steps(count: int) -> np.ndarray:
    """The keys of consecutive steps, as `random_key` makes them."""
    return bits(7, bits(np.arange(count), 3))


COUNTERS = np.arange(COUNT, dtype=np.uint32)
STREAMS = {
    "key 0": bits(COUNTERS, 0),
    "key 1": bits(COUNTERS, 1),
    "key 2": bits(COUNTERS, 2),
    "golden key": bits(COUNTERS, 0x9E3779B9),
    "last key": bits(COUNTERS, 2**32 - 1),
    "far counters": bits(COUNTERS + np.uint32(2**31), 5),
    "every 64th": bits(COUNTERS * np.uint32(64), 5),
    "every 784th": bits(COUNTERS * np.uint32(784), 5),
    "keys in a row": bits(0, COUNTERS),
    "steps in a row": keys_of_steps(COUNT),
}


@pytest.mark.parametrize("name", STREAMS)
def test_bits_are_even(name: str) -> None:
    stream = STREAMS[name]
    n = len(stream)
    for bit in range(32):
        ones = int(((stream >> np.uint32(bit)) & np.uint32(1)).sum())
        assert abs(ones - n / 2) < SIGMAS * math.sqrt(n / 4), f"bit {bit}"
    for shift in (0, 8, 16, 24):
        counts = np.bincount((stream >> np.uint32(shift)) & np.uint32(255), minlength=256)
        statistic = ((counts - n / 256) ** 2 / (n / 256)).sum()
        assert abs(statistic - 255) < SIGMAS * math.sqrt(2 * 255), f"byte at {shift}"
    unit = stream / 2**32
    assert abs(unit.mean() - 0.5) < SIGMAS / math.sqrt(12 * n)
    assert abs(unit.var() - 1 / 12) < SIGMAS / math.sqrt(180 * n)


@pytest.mark.parametrize("name", STREAMS)
def test_neighbours_are_independent(name: str) -> None:
    stream = STREAMS[name]
    centred = stream / 2**32 - 0.5
    for lag in (1, 2, 3, 4, 5, 7, 8, 10, 16, 32, 64, 100, 128, 256, 784, 1024):
        n = len(stream) - lag
        correlation = 12 * (centred[:-lag] * centred[lag:]).mean()
        assert abs(correlation) < SIGMAS / math.sqrt(n), f"lag {lag}"
    for shift in (4, 26):  # pairs of six bits, the low and the high ones
        six = ((stream >> np.uint32(shift)) & np.uint32(63)).astype(np.int64)
        cells, expected = 4096, (len(six) - 1) / 4096
        counts = np.bincount(six[:-1] * 64 + six[1:], minlength=cells)
        statistic = ((counts - expected) ** 2 / expected).sum()
        assert abs(statistic - cells) < SIGMAS * math.sqrt(2 * cells) * 1.2


def test_one_changed_bit_changes_half_of_all() -> None:
    rng = np.random.default_rng(1)
    counters, keys = rng.integers(0, 2**32, (2, 4096), dtype=np.uint32)
    base = bits(counters, keys)
    for bit in range(32):
        mask = np.uint32(1 << bit)
        for other in (bits(counters ^ mask, keys), bits(counters, keys ^ mask)):
            flipped = np.unpackbits((base ^ other).view(np.uint8).reshape(-1, 4), axis=1)
            assert np.abs(flipped.mean(0) - 0.5).max() < SIGMAS * 0.5 / math.sqrt(4096)


def test_streams_are_independent_and_not_shifted() -> None:
    streams = np.array([bits(COUNTERS, key) for key in [*range(6), *keys_of_steps(6)]])
    centred = streams / 2**32 - 0.5
    for lag in (0, 1, 2, 32):
        first, second = centred[:, lag:], centred[:, : COUNT - lag]
        correlation = 12 * first @ second.T / first.shape[1]
        if lag == 0:
            np.fill_diagonal(correlation, 0)
        assert np.abs(correlation).max() < SIGMAS / math.sqrt(first.shape[1])
    for a in range(len(streams)):  # a shift would have runs of common numbers
        for b in range(a):
            common = np.intersect1d(streams[a], streams[b])
            assert len(common) < 20  # one is expected


def test_seeds_steps_and_salts_are_different_streams() -> None:
    def drawn(*key: Any) -> bytes:
        return evaluate(random_bits(random_key(*key), (4,)), {}).tobytes()

    keys = [("a", 1, 2), ("b", 1, 2), ("a", 2, 1), ("a", 1, 3), ("a", 2, 2), (0, 1, 2), ("a", 1)]
    assert len({drawn(*key) for key in keys}) == len(keys)
    assert drawn("a", 1, 2) == drawn("a", 1, 2)
    assert random_key("a", seed_leaf()) is random_key("a", seed_leaf())


def test_streams_of_keys_that_differ_as_counters_do_are_no_shifts_of_each_other() -> None:
    """The first word of a hash is golden·counter + key: without the key in the second one, too, a
    key that is greater by golden would give the same stream, one place on."""
    golden = 0x9E3779B9
    for key in (0, 1, 12345, 2**31):
        stream, other = bits(COUNTERS, key), bits(COUNTERS, (key + golden) % 2**32)
        for shift in (0, 1, 2):
            assert np.mean(stream[shift:] == other[: COUNT - shift]) < 1e-3
            assert np.mean(other[shift:] == stream[: COUNT - shift]) < 1e-3
