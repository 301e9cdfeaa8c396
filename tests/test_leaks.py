"""What a training leaves in memory when it is over: nothing."""

from __future__ import annotations

import gc
import sys
import weakref
from typing import Any

import pytest

from dsl import adam, training
from nncompile.train import Trainer
from tests.faults import leaks


@pytest.fixture(autouse=True)
def _others_are_kept() -> None:
    """What other tests have left is not searched each time that garbage is."""
    gc.collect()
    gc.freeze()


def _used() -> list[weakref.ref[Any]]:
    """A trainer that did everything, and is no longer held."""
    data = leaks.data()
    trainer = Trainer(training(leaks.classifier(2), optimizer=adam(1e-3), batch_size=32))
    trainer.fit(data, validation_data=data, verbose=0)
    trainer.fit(lambda: iter([data]), verbose=0)
    trainer.fit(data, class_weight="balanced", verbose=0)
    trainer.evaluate(data)
    trainer.predict({"x": data["x"]})
    held = (trainer, trainer.model, trainer.compiled, trainer._loop.runner.session)
    return [weakref.ref(x) for x in held]


def test_a_trainer_is_given_back_with_its_model_and_sessions() -> None:
    held = _used()
    gc.collect()
    assert [x() for x in held] == [None] * len(held)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the memory of the process from /proc")
def test_steps_and_models_do_not_fill_the_memory(capsys: pytest.CaptureFixture[str]) -> None:
    """A short part of `python -m tests.faults leaks`."""
    assert leaks.growth_by_models(3, warm=2) < 5
    assert "3 models" in capsys.readouterr().out
    assert leaks.growth_by_steps(2_000) < 5
