"""Recurrent layers to test: the kinds, a graph of one, and data for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import GRU, LSTM, RNN, f64, i64, model
from nncompile.ir.op import Value
from nncompile.ir.types import DType
from nncompile.program.model import Model

KINDS = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
HIDDEN, FEATURES = 5, 4
Feeds = dict[str, np.ndarray]

each_kind = pytest.mark.parametrize("kind", KINDS)


def built(kind: str, dtype: DType = f64, **options: Any) -> Model:
    """The outputs and the last states of a layer, and a loss of both."""
    masked = options.pop("masked", False)
    started = options.pop("started", False)
    layer = KINDS[kind](HIDDEN, return_sequences=True, return_state=True, name="r", **options)
    count = layer.num_layers * (2 if layer.bidirectional else 1)

    @model
    def net(
        x: Value = dtype["batch", "time", FEATURES],  # type: ignore[assignment]
        lengths: Value = i64["batch"],  # type: ignore[assignment]
        h: Value = dtype[count, "batch", HIDDEN],  # type: ignore[assignment]
        c: Value = dtype[count, "batch", HIDDEN],  # type: ignore[assignment]
    ) -> dict[str, Value]:
        initial = ((h, c) if kind == "LSTM" else h) if started else None
        out, *last = layer(x, initial, lengths=lengths if masked else None)
        loss = (out * out * out).sum() + sum((s * s).sum() for s in last)
        return {"out": out, **{f"last{i}": s for i, s in enumerate(last)}, "loss": loss}

    return net


def data(dtype: str = "float64", time: int = 6, batch: int = 3, states: int = 4) -> Feeds:
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(batch, time, FEATURES)).astype(dtype),
        "lengths": np.array([time, 2, 1][:batch]),
        "h": rng.normal(size=(states, batch, HIDDEN)).astype(dtype),
        "c": rng.normal(size=(states, batch, HIDDEN)).astype(dtype),
    }
