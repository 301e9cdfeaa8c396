"""Lengths and indices out of range are refused before anything runs, wherever data are fed."""

from __future__ import annotations

import numpy as np
import pytest

import dsl
from dsl import (
    GRU,
    LSTM,
    RNN,
    Dense,
    cross_entropy,
    ctc_loss,
    f32,
    i64,
    model,
    padding_mask,
    scaled_dot_product_attention,
)
from nncompile.diagnostics.errors import DTypeError, ModelError
from nncompile.ops import const, take
from nncompile.program.model import Model
from tests.size_checks import Feeds, data_without, told, trainer
from tests.source_lines import line_of

RECURRENT = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}


def of_lengths(lengths: list[int], time: int) -> Feeds:
    count = len(lengths)
    random = np.random.default_rng(0)
    return {
        "x": random.normal(size=(count, time, 4)).astype(np.float32),
        "lengths": np.array(lengths),
        "label": np.zeros(count, np.int64),
    }


def recurrent(kind: str) -> Model:
    @model
    def net(x=f32["batch", "time", 4], lengths=i64["batch"], label=i64["batch"]):
        start = const(np.full((1, 3), 0.5, np.float32)) + 0 * x[:, 0, :3]
        initial = (start, start) if kind == "LSTM" else start
        last = RECURRENT[kind](3, name="cell")(x, initial, lengths=lengths)
        return {"last": last, "loss": cross_entropy(last >> Dense(3), label)}

    return net


@pytest.mark.parametrize("kind", RECURRENT)
def test_lengths_of_recurrent_layers(kind: str) -> None:
    known = trainer(recurrent(kind))
    place = line_of(__file__, "RECURRENT[kind](3")
    assert told(lambda: known.fit(of_lengths([3, 4, 7, 9], 5))) == (
        f"input 'lengths' holds 7, the lengths of {kind} must be from 0 to 5\n"
        "  first at  lengths[2]\n"
        "  in all    2 of 4\n"
        "  size      time = 5\n"
        f"  at {place}, in net / cell\n"
        "  hint: a length counts the valid elements of a row: np.clip(lengths, 0, 5)"
    )
    assert "holds -1," in told(lambda: known.fit([of_lengths([3, -1], 5)]))
    assert "holds 5, " in told(lambda: known.fit([of_lengths([5, 5], 5), of_lengths([5, 5], 4)]))
    assert "holds 6, " in told(lambda: known.evaluate(of_lengths([6], 5)))
    assert "holds 6, " in told(lambda: known.predict(data_without(of_lengths([1, 6], 5), "label")))
    # A row of nothing keeps its first state.
    last = known.predict(data_without(of_lengths([5, 0], 5), "label"))["last"]
    np.testing.assert_array_equal(last[1], np.full(3, 0.5, np.float32))
    assert not np.allclose(last[0], 0.5)


def test_lengths_of_masks() -> None:
    @model
    def net(x=f32["batch", "time", 4], lengths=i64["batch"], label=i64["batch"]):
        mask = dsl.expand_dims(padding_mask(lengths, x.shape[1]), 1)
        seen = scaled_dot_product_attention(x, x, x, mask)
        return {"seen": seen, "loss": cross_entropy(seen.mean(1) >> Dense(3), label)}

    known = trainer(net)
    message = told(lambda: known.fit(of_lengths([2, 6], 5)))
    assert "input 'lengths' holds 6, the lengths of padding_mask must be from 0 to 5" in message
    seen = known.predict(data_without(of_lengths([5, 0], 5), "label"))["seen"]
    np.testing.assert_array_equal(seen[1], 0)  # nothing to look at
    with pytest.raises(
        ModelError, match=r"padding_mask must be from 0 to 4, got 5(.|\n)*clip\(len"
    ):
        padding_mask([4, 5], 4)
    with pytest.raises(DTypeError, match="lengths must be integers, got f32"):
        padding_mask(const([1.0]), 4)


def of_letters(length: list[int], letters: list[int]) -> Feeds:
    count = len(length)
    return {
        "x": np.random.default_rng(0).normal(size=(count, 6, 4)).astype(np.float32),
        "said": np.ones((count, 2), np.int64),
        "length": np.array(length),
        "letters": np.array(letters),
    }


def test_lengths_of_ctc() -> None:
    @model
    def net(
        x=f32["batch", "time", 4],
        said=i64["batch", "letters"],
        length=i64["batch"],
        letters=i64["batch"],
    ):
        losses = ctc_loss(x >> Dense(3), said, length, letters, reduction="none")
        return {"losses": losses, "loss": losses.mean()}

    known = trainer(net)
    message = told(lambda: known.evaluate(of_letters([6, 7], [1, 1])))
    assert "input 'length' holds 7, each length of ctc_loss must be from 0 to 6" in message
    message = told(lambda: known.evaluate(of_letters([6, 6], [1, 3])))
    assert "input 'letters' holds 3, each label_length of ctc_loss must be from 0 to 2" in message
    assert np.isfinite(known.evaluate(of_letters([6, 0], [0, 0]))["loss"])  # both mean something
    with pytest.raises(
        ModelError, match="each label_length of ctc_loss must be from 0 to 2, got -1"
    ):
        ctc_loss(const(np.zeros((1, 4, 3))), const([[1, 1]]), label_length=const([-1]))


def test_places_on_an_axis_of_unknown_size() -> None:
    @model
    def net(x=f32["n", 2], chosen=i64["edges"]):
        y = (take(x, chosen, 0) >> Dense(1)).sum()
        return {"loss": y * y}

    known = trainer(net)
    feeds = {"x": np.ones((4, 2), np.float32), "chosen": np.array([0, 3])}
    known.evaluate([feeds])
    message = told(lambda: known.evaluate([{**feeds, "chosen": np.array([0, 4])}]))
    assert "input 'chosen' holds 4: index 4 is out of range for an axis of size 4" in message
