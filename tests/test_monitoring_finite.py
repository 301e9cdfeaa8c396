"""Numbers that are not finite are followed to where they began."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import numpy as np
import pytest

from dsl import Dense, exp, f32, log, model, relu, sgd, softmax, sqrt, sum, training, where
from nncompile.diagnostics.errors import TrainingError
from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.ir.graph import Graph, Input
from nncompile.ir.types import Array
from nncompile.program.recipe import Recipe
from nncompile.train import CheckFinite, JSONLog, Trainer, locate_nonfinite
from tests.small_models import data, perceptron
from tests.source_lines import line_of


def test_a_loss_that_is_lost_names_the_line_it_is_lost_at() -> None:
    @model
    def likelihood(x=f32["batch", 4]):
        rate = x >> Dense(1, relu, name="rate")
        return {"loss": (rate - log(rate)).mean()}

    with pytest.raises(TrainingError) as caught:
        Trainer(training(likelihood)).fit({"x": data()["x"]})
    text = str(caught.value)
    place = line_of(__file__, '"loss": (rate - log(rate))')
    assert "loss is inf at step 1 (epoch 1); the data are finite" in text
    first, given = (next(x for x in text.splitlines() if w in x) for w in ("first in", "given"))
    assert "log(a)" in first and "infinite" in first and place in first
    assert 'return {"loss": (rate - log(rate)).mean()}' in first
    assert "from 0 to" in given


def test_infinities_that_become_nan_are_followed_to_where_they_began() -> None:
    @model
    def growing(x=f32["batch", 4]):
        big = exp(100 * (x >> Dense(1, name="one")))
        return {"loss": (big - big.max()).mean()}

    ours = Trainer(training(growing))
    with pytest.raises(TrainingError) as caught:
        ours.fit({"x": data()["x"]})
    text = str(caught.value)
    first = next(x for x in text.splitlines() if "first in" in x)
    then = next(x for x in text.splitlines() if "then in" in x)
    assert line_of(__file__, "big = exp(100") in first and "infinite" in first
    assert line_of(__file__, "(big - big.max())") in then and "NaN" in then


def test_masks_of_infinities_are_no_finding() -> None:
    x = Input("x", f32["n", 3])()
    lost = Input("lost", f32["n"])()
    masked = where(x > 0, x, -math.inf)
    p = softmax(masked)
    graph = Graph("masked", {"p": p, "y": log(lost) + sum(p, 1)}, (x, lost))
    feeds = {"x": np.array([[1, -1, 2]], np.float32), "lost": np.ones(1, np.float32)}
    assert locate_nonfinite(graph, feeds) is None
    found = locate_nonfinite(graph, {**feeds, "lost": np.zeros(1, np.float32)})
    assert found is not None and found.what == "log(lost)"
    assert (found.output, found.kind, found.index, found.then) == ("y", "infinite", (0,), None)
    nothing = locate_nonfinite(graph, {**feeds, "x": -np.ones((1, 3), np.float32)}, ["p"])
    assert nothing is not None and nothing.then is not None
    assert (nothing.kind, nothing.then.what, nothing.then.kind) == (
        "infinite",
        "softmax(a, axis=1)",
        "NaN",
    )


def test_a_leaf_that_is_not_finite_is_called_by_its_name() -> None:
    with recording_locations(LocationTable()):  # other tests may have made these nodes, too
        x, w = Input("x", f32[2])(), Input("w", f32[2], "parameter")()
        graph = Graph("product", {"y": x * w}, (x, w))
    feeds = {"x": np.ones(2, np.float32), "w": np.array([1, np.nan], np.float32)}
    found = locate_nonfinite(graph, feeds)
    assert found is not None and found.is_state
    assert (found.name, found.what, found.index) == ("w", "parameter w", (1,))
    assert re.fullmatch(
        r"parameter w\[1\] is NaN at test_monitoring_finite\.py:\d+ \(1 of 2\)", str(found)
    )


def spoiled() -> Recipe:
    """The gradient of a norm is NaN at zero, where the loss is finite."""

    @model
    def norms(x=f32["batch", 4]):
        distance = sqrt(((x >> Dense(3, bias=False, name="one")) ** 2).sum(-1))
        return {"loss": distance.mean()}

    return training(norms, optimizer=sgd(0.01), batch_size=4)


def with_zeros() -> dict[str, Array]:
    x = data(12)["x"]
    x[6] = 0
    return {"x": x}


def test_a_state_that_an_earlier_step_spoiled_is_told() -> None:
    with pytest.raises(TrainingError) as caught:
        Trainer(spoiled()).fit(with_zeros(), shuffle=False)
    text = str(caught.value)
    assert "loss is nan at step 3" in text
    assert "first in  parameter one." in text
    assert "callbacks=[CheckFinite()]" in text


def test_a_step_that_spoils_the_state_is_told_to_nobody_else(tmp_path: Path) -> None:
    """Whatever the order: a log would have it twice, where it is made again."""
    for order in (1, -1):
        log = JSONLog(tmp_path / "log.jsonl", every=1)
        ours = Trainer(spoiled())
        with pytest.raises(TrainingError, match="after step 2"):
            ours.fit(with_zeros(), shuffle=False, callbacks=[log, CheckFinite()][::order])
        with pytest.raises(TrainingError, match="loss is nan at step 3"):
            ours.fit(with_zeros(), shuffle=False, callbacks=log)
        lines = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
        assert [line["step"] for line in lines] == [1, 2]


def test_check_finite_stops_at_the_step_that_spoils_the_state() -> None:
    ours = Trainer(spoiled())
    with pytest.raises(TrainingError) as caught:
        ours.fit(with_zeros(), shuffle=False, callbacks=CheckFinite())
    text = str(caught.value)
    assert ours.step == 1
    assert all(np.isfinite(x).all() for x in ours.state.values())
    assert "one.weight is not finite after step 2 (epoch 1)" in text
    first = next(x for x in text.splitlines() if "first in" in x)
    assert line_of(__file__, "distance = sqrt(") in first
    assert ours.locate({"x": with_zeros()["x"][4:8]}) is not None
    assert ours.locate({"x": with_zeros()["x"][:4]}) is None


def test_a_finite_training_has_nothing_to_locate() -> None:
    ours = Trainer(training(perceptron(), optimizer=sgd(0.1)))
    ours.fit([data(8)], epochs=1)
    assert ours.locate(data(8)) is None
