"""Sequences of different lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import GRU, Dense, cross_entropy, f32, i64, model
from nncompile.diagnostics.errors import FeedError, ModelError
from nncompile.optim import adam
from nncompile.program.recipe import training
from nncompile.train import LengthBuckets, Trainer, padded

RNG = np.random.default_rng(0)
LINES = [RNG.normal(size=(n, 2)).astype(np.float32) for n in RNG.integers(1, 9, 40)]
LABELS = np.array([len(x) > 4 for x in LINES], np.int64)


def test_lists_are_padded() -> None:
    x, lengths = padded([[1, 2, 3], [], [4]])
    assert x.tolist() == [[1, 2, 3], [0, 0, 0], [4, 0, 0]] and lengths.tolist() == [3, 0, 1]
    assert x.dtype.kind == "i" and lengths.dtype == np.int64
    assert padded([[1], [2, 3]], side="left", value=-1)[0].tolist() == [[-1, 1], [2, 3]]
    assert padded([[1], [2, 3]], multiple_of=4)[0].shape == (2, 4)
    shortened, counts = padded([[1, 2, 3], [4]], length=2, truncate=True)
    assert shortened.tolist() == [[1, 2], [4, 0]] and counts.tolist() == [2, 1]
    arrays, _ = padded(LINES, dtype=np.float64)
    assert arrays.shape == (40, max(map(len, LINES)), 2) and arrays.dtype == np.float64


def test_what_cannot_be_padded_is_told() -> None:
    with pytest.raises(FeedError, match=r"sequence 0 has 3 elements, more than(.|\n)*truncate"):
        padded([[1, 2, 3], [4]], length=2)
    with pytest.raises(FeedError, match="sequence 1 is no list of numbers"):
        padded([[1], ["a"]])
    with pytest.raises(FeedError, match="elements of another shape"):
        padded([np.zeros((2, 3)), np.zeros((2, 4))])
    with pytest.raises(FeedError, match="no sequences"):
        padded([])
    with pytest.raises(ModelError, match='"right" or "left"'):
        padded([[1]], side="middle")  # type: ignore[arg-type]  # that is the mistake


@model
def reader(
    x: Any = f32["batch", "time", 2], lengths: Any = i64["batch"], y: Any = i64["batch"]
) -> Any:
    last = GRU(4, return_sequences=False)(x, lengths=lengths)
    logits = last >> Dense(2)
    return {"logits": logits, "loss": cross_entropy(logits, y)}


def test_buckets_hold_like_lengths_and_every_example_once() -> None:
    buckets = LengthBuckets({"x": LINES, "y": np.arange(40)}, "x", batch_size=8)
    batches = list(buckets.epoch((0, 0)))
    assert len(batches) == len(buckets) == 5
    assert sorted(np.concatenate([b["y"] for b in batches])) == list(range(40))
    assert all(b["x"].shape[1] == b["lengths"].max() for b in batches)
    assert max(np.ptp(b["lengths"]) for b in batches) <= 3 < np.ptp([len(x) for x in LINES])
    other = [b["y"].tolist() for b in buckets.epoch((0, 1))]
    assert other != [b["y"].tolist() for b in batches]
    assert [b["y"].tolist() for b in buckets.epoch((0, 0), 2)] == [
        b["y"].tolist() for b in batches
    ][2:]
    in_order = np.concatenate([b["y"] for b in buckets.epoch(None)])
    assert in_order.tolist() == list(range(40))


def test_a_model_with_lengths_is_trained_on_buckets() -> None:
    trainer = Trainer(training(reader, optimizer=adam(3e-2)))
    buckets = LengthBuckets({"x": LINES, "y": LABELS}, "x", batch_size=8)
    history = trainer.fit(buckets, epochs=6, verbose=0)
    assert history["loss"][-1] < history["loss"][0]
    x, lengths = padded(LINES)
    together = trainer.predict({"x": x, "lengths": lengths})["logits"]
    apart = trainer.predict(buckets)["logits"]
    np.testing.assert_allclose(apart, together, rtol=1e-5, atol=1e-6)


def test_buckets_tell_what_is_wrong() -> None:
    with pytest.raises(ModelError, match="no 'z'"):
        LengthBuckets({"x": LINES}, "z")
    with pytest.raises(FeedError, match="different numbers of rows"):
        LengthBuckets({"x": LINES, "y": LABELS[:3]}, "x")
