"""What is written outside of the package, and mistakes in it: see docs/extending.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl import Dense, Layer, cross_entropy, f32, i64, loss, model, training
from nncompile import StepRunner, Trainer
from nncompile.diagnostics.errors import CompileError, FeedError, ModelError
from nncompile.optim import Optimizer, accumulate, descend, resolve
from nncompile.program.model import Model
from nncompile.train.hooks.tracking import Tracking
from tests.small_models import data, perceptron
from tests.test_hooks import Service


class Momentum(Optimizer):
    """m' = g + 0.9·m, w' = w − η·m'."""

    @property
    def slots(self) -> tuple[str, ...]:
        return ("m",)

    def update(self, w: Any, g: Any, slots: Any, step: Any) -> Any:
        m = accumulate(slots["m"], g, 0.9)
        return descend(w, m, resolve(self.lr, step, w.dtype)), {"m": m}


class Short(Optimizer):
    def update(self, w: Any, g: Any) -> Any:  # type: ignore[override]  # the mistake
        return w - g, {}


class Failing(Optimizer):
    def update(self, w: Any, g: Any, slots: Any, step: Any) -> Any:
        return len(3), {}  # type: ignore[arg-type]  # the mistake


def test_an_optimizer_of_names_that_are_public() -> None:
    from dsl import sgd

    states = []
    for optimizer in (Momentum(0.1), sgd(0.1, momentum=0.9)):
        trainer = Trainer(training(perceptron(), optimizer=optimizer))
        trainer.fit(data(), epochs=2, verbose=0)
        states.append(trainer.params)
    for path, x in states[0].items():
        np.testing.assert_allclose(x, states[1][path], rtol=1e-5, atol=1e-6)


def test_an_update_of_other_parameters() -> None:
    with pytest.raises(
        ModelError, match=r"update of Short must take(.|\n)*self, w, g, slots, step"
    ):
        Trainer(training(perceptron(), optimizer=Short()))
    with pytest.raises(TypeError, match="has no len"):  # its own mistake is its own
        Trainer(training(perceptron(), optimizer=Failing()))


def test_a_layer_with_an_init_of_its_own() -> None:
    class Wide(Layer):
        def __init__(self, width: int) -> None:
            self.width = width

        def __call__(self, x: Any) -> Any:
            return Dense(self.width)(x)

    with pytest.raises(ModelError, match=r"Wide: cannot assign(.|\n)*annotated fields"):
        Wide(3)


def test_a_callback_that_takes_no_event() -> None:
    class Blind:
        def on_epoch(self) -> None: ...

    trainer = Trainer(training(perceptron()))
    with pytest.raises(
        ModelError, match=r"on_epoch of Blind must take the event(.|\n)*self, event"
    ):
        trainer.fit(data(), epochs=1, callbacks=Blind(), verbose=0)
    assert trainer.step == 0


def test_a_batch_that_is_none() -> None:
    runner = StepRunner(training(perceptron()))
    for wrong in (3, None, [data()], "x"):
        with pytest.raises(FeedError, match="a step takes a dict of arrays by input name"):
            runner.step(wrong)  # type: ignore[arg-type]  # the mistake
    assert runner.state()["step"] == 0


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: loss(3), "function must be a function, got 3"),
        (lambda: loss(lambda p, t: p - t), r"does not take the options that all losses share"),
    ],
)
def test_losses_that_are_none(made: Callable[[], Any], words: str) -> None:
    with pytest.raises(CompileError, match=words):
        made()


def test_one_hot_labels_are_told_the_number_of_the_class() -> None:
    @model
    def net(x: Any = f32["batch", 4], label: Any = i64["batch"]) -> dict[str, Any]:
        return {"loss": cross_entropy(x >> Dense(3), label)}

    assert isinstance(net, Model)
    batch = {"x": np.zeros((6, 4), "f4"), "label": np.eye(3)[[0, 1, 2, 0, 1, 2]]}
    with pytest.raises(FeedError, match=r"label\.argmax\(axis=1\)"):
        Trainer(training(net)).fit(batch, epochs=1)


def test_a_log_goes_on_with_its_run_from_a_checkpoint(tmp_path: Any) -> None:
    first, second = Service(), Service()
    assert isinstance(first, Tracking)
    trainer = Trainer(training(perceptron()))
    trainer.fit(data(), epochs=1, callbacks=first, verbose=0)
    path = trainer.save(tmp_path / "state.safetensors")
    resumed = Trainer(training(perceptron()))
    resumed.load(path)
    resumed.fit(data(), epochs=1, callbacks=second, verbose=0)
    assert second.got[0] == ("begin", "r1")
    assert [x[1] for x in second.got if x[0] == "log"] == [resumed.step]
