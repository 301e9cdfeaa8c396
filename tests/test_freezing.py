"""Frozen parameters, and parameters taken from another model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import BatchNorm, Dense, Dropout, Layer, f32, model, mse, relu
from nncompile.diagnostics.errors import ModelError
from nncompile.optim import adam
from nncompile.program.model import Model
from nncompile.program.recipe import ema, frozen_layers, swa, training
from nncompile.train import Trainer
from nncompile.train.transfer import transfer
from tests.small_models import data


class Backbone(Layer):
    def __call__(self, x: Any) -> Any:
        return x >> Dense(8) >> BatchNorm() >> relu >> Dropout(0.5)


def with_backbone(head: str = "head", name: str = "backbone") -> Model:
    def net(x: Any = f32["batch", 4], target: Any = f32["batch", 2]) -> Any:
        features = x >> Backbone(name=name)
        return {"features": features, "loss": mse(features >> Dense(2, name=head), target)}

    return model(net)


def test_what_is_frozen_stays_statistics_included() -> None:
    trainer = Trainer(training(with_backbone(), freeze="backbone.*", optimizer=adam(0.1)))
    start = trainer.state
    trainer.fit([data(16, i) for i in range(4)], epochs=1)
    for path, x in trainer.state.items():
        same = np.array_equal(x, start[path])
        assert same == (path.startswith("backbone.") or path == "seed"), path
    # Trained as it is used: the loss of the step is that of evaluation, without dropout.
    loss = trainer.evaluate(data(16, 9))["loss"]
    history = trainer.fit([data(16, 9)], epochs=1)
    assert history.epochs[0]["loss"] == pytest.approx(loss, rel=1e-5)


def test_what_is_not_frozen_learns_statistics_included() -> None:
    trainer = Trainer(training(with_backbone(), freeze="backbone.dense.*"))
    start = trainer.state
    trainer.fit([data(16)], epochs=1)
    moved = {path for path, x in trainer.state.items() if not np.array_equal(x, start[path])}
    assert not any(path.startswith("backbone.dense") for path in moved)
    assert {path for path in start if path.startswith("backbone.batch_norm")} <= moved


def test_one_statistic_can_be_frozen_by_its_name() -> None:
    trainer = Trainer(training(with_backbone(), freeze="backbone.batch_norm.running_mean"))
    start = trainer.state
    trainer.fit([data(16)], epochs=1)
    for name in ("running_mean", "running_var"):
        path = f"backbone.batch_norm.{name}"
        assert np.array_equal(trainer.state[path], start[path]) == (name == "running_mean"), name


def test_frozen_layers_are_those_of_which_nothing_is_free() -> None:
    paths = ["a.w", "a.b.w", "a.b.c.w", "d.w", "d.e.w", "w"]
    assert frozen_layers(paths, ["a.*"]) == ["a"]
    assert frozen_layers(paths, ["a.b.*", "d.e.w"]) == ["a.b", "d.e"]
    assert frozen_layers(paths, ["*.w"]) == ["a", "d"]
    assert frozen_layers(paths, ["a.w"]) == []


@pytest.mark.parametrize(
    ("declare", "words"),
    [
        (
            lambda m: training(m, freeze="backbon.*"),
            "training: freeze='backbon.*' matches no",
        ),
        (lambda m: training(m, freeze="*"), r"all parameters that '\*' matches are frozen"),
        (lambda m: training(m, freeze=3), "freeze must be one or more patterns"),
        (lambda m: training(m, accumulate=0), "accumulate must be"),
        (lambda m: training(m, max_norm=0.0), "max_norm must be positive"),
        (lambda m: training(m, noise=-1.0), "noise must be positive"),
        (lambda m: training(m, average=ema(1.0)), "decay must be"),
        (lambda m: training(m, average=swa(params="tail.*")), "matches 'tail"),
        (lambda m: training(m, average=3), "3 is not an update"),
    ],
)
def test_a_recipe_that_cannot_be_met_is_told(declare: Any, words: str) -> None:
    with pytest.raises(ModelError, match=words):
        declare(with_backbone())


def test_parameters_of_another_model_by_name() -> None:
    source = Trainer(training(with_backbone("other_head", "encoder"), seed=1))
    source.fit([data(16)], epochs=1)
    target = Trainer(training(with_backbone(), seed=2))
    before = target.state
    report = target.load_params(source, rename={"encoder.": "backbone."})
    assert report.loaded == tuple(p for p in target.state if p.startswith("backbone."))
    assert report.missing == ("head.weight", "head.bias")
    assert report.unused == ("other_head.weight", "other_head.bias")
    assert not report.whole
    assert str(report).startswith(f"{len(report.loaded)} loaded; 2 missing (head.weight")
    for path, x in target.state.items():
        old = path.replace("backbone.", "encoder.")
        known = source.state[old] if path.startswith("backbone.") else before[path]
        np.testing.assert_array_equal(x, known, err_msg=path)
    np.testing.assert_array_equal(
        target.predict(data(4)["x"])["features"], source.predict(data(4)["x"])["features"]
    )
    with pytest.raises(
        ModelError, match=f"do not fit: {len(report.loaded)} loaded, 2 missing, 2 unused"
    ):
        target.load_params(source, strict=True, rename={"encoder.": "backbone."})
    with pytest.raises(ModelError, match="0 loaded"):
        target.load_params({"x": np.zeros(3)})


def test_transfers_tell_what_differs(tmp_path: Path) -> None:
    trainer = Trainer(training(with_backbone(), seed=1))
    file = trainer.save(tmp_path / "a.safetensors")
    other = Trainer(training(with_backbone(), seed=2))
    assert other.load_params(file, strict=True).whole
    source = {"a": np.zeros(2), "b": np.zeros(2), "c": np.zeros(1, np.float32)}
    target = {"a": np.zeros(2), "b": np.zeros(3), "d": np.zeros(1)}
    found, report = transfer(source, target, lambda path: None if path == "c" else path)
    assert list(found) == ["a"]
    assert (report.missing, report.unused, report.different) == (("d",), ("c",), ("b",))
    with pytest.raises(ModelError, match="two arrays the path 'a'"):
        transfer(source, target, {"b": "a"})
    assert transfer({"e.f.a": np.ones(2)}, target, {"e.": "x.", "e.f.": ""})[1].loaded == ("a",)


def test_what_differs_in_shape_or_element_type_is_not_transferred() -> None:
    target = {"a": np.zeros(2, np.float32), "b": np.zeros(2, np.float32), "c": np.zeros(2)}
    source = {"a": np.ones(2, np.float32), "b": np.ones(2), "c": np.ones((2, 1))}
    found, report = transfer(source, target)
    assert found.keys() == {"a"}
    assert (report.loaded, report.different) == (("a",), ("b", "c"))
    with pytest.raises(ModelError, match="2 of another type"):
        transfer(source, target, strict=True)
