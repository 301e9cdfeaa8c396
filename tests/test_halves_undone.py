"""Steps in two runs that are undone, interrupted or fail."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from dsl import (
    Dense,
    Value,
    adam,
    f32,
    model,
    sgd,
    training,
)
from nncompile import TrainingError
from nncompile.compiler import compile as compile_module
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import BackendError, FeedError
from nncompile.runtime.runner import StepRunner
from nncompile.train import CheckFinite
from tests.halved_steps import assert_near, examples, of, recipe
from tests.small_models import assert_same, data, perceptron
from tests.test_interrupts import interrupting


@pytest.fixture(autouse=True)
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_module, "LARGE", 0)


def test_a_step_is_undone_until_its_update_is_made() -> None:
    runner = compile_step(recipe()).runner(threads=1)
    batch = examples(8)
    start = runner.state()
    assert (runner.undo(), runner.steps, runner.metrics()) == (False, 0, {})
    runner.step(batch)
    after, metrics = runner.state(), runner.metrics()
    assert runner.can_undo and runner.steps == 1  # also when a copy was looked at
    assert_same(runner.before(), start)
    assert runner.undo() and not runner.undo() and runner.steps == 0
    assert_same(runner.state(), start)
    assert_same(runner.before(), start)
    assert_same(runner.metrics(), metrics)
    runner.step(batch)
    assert_same({**runner.views()}, after)
    assert not runner.can_undo and not runner.knows_before and not runner.undo()
    assert runner.steps == 1
    runner.step(batch)
    runner.step(batch)
    assert runner.steps == 3 and runner.state()["step"] == 3


def test_values_that_are_given_are_those_after_the_step() -> None:
    """Also where its update is yet to be made, with what was there before."""
    one, ours = of(recipe()), of(recipe())
    for trainer in (one, ours):
        trainer.learning_rate = 0.02
        trainer.fit(examples(8), steps=1, verbose=0)
    rate = {"training.adjustable.rate": np.array(0.5)}
    one._loop.runner.views()
    for trainer in (one, ours):
        runner = trainer._loop.runner
        assert runner.can_undo == (trainer is ours)
        runner.put(rate)
        rate["training.adjustable.rate"][...] = 0.5
        assert runner.look(rate)["training.adjustable.rate"] == 0.5
    rate["training.adjustable.rate"][...] = 7.0  # which is the caller's
    assert_same(one.state, ours.state)
    for trainer in (one, ours):
        trainer.fit(examples(8), steps=2, verbose=0)
    assert_same(one.state, ours.state)
    runner = ours._loop.runner
    runner.put(rate)
    assert runner.undo() and runner.look(rate)["training.adjustable.rate"] == 0.5
    with pytest.raises(FeedError):
        runner.put({"training.adjustable.rate": np.zeros(2)})


def test_another_state_is_loaded() -> None:
    ours, other = of(recipe()), of(recipe())
    ours.fit(examples(), verbose=0)
    other.fit(examples(), steps=2, verbose=0)
    ours._loop.runner.step(examples(8))
    runner = ours._loop.runner
    runner.load(other.state)
    assert_same(runner.state(), other.state)
    assert not runner.can_undo
    with pytest.raises(FeedError):
        runner.load({**other.state, "step": np.zeros(2, np.int64)})
    assert_same(runner.state(), other.state)
    for trainer in (ours, other):
        trainer._loop.runner.step(examples(8))
    assert_same(runner.state(), other._loop.runner.state())


def _lines(run: Any, files: tuple[str, ...], most: int = 2000) -> Iterator[None]:
    """Runs it with an interrupt before the first line, the second, and so on."""
    for line in range(1, most):
        trace, outer = interrupting(line, files), sys.gettrace()
        sys.settrace(trace)
        try:
            run()
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(outer)
        yield
        if trace.seen < line:  # type: ignore[attr-defined]
            return
    pytest.fail("it takes more lines than were tried")


FILES = ("runner.py", "halves.py")


def test_an_interrupt_in_a_step_leaves_whole_ones() -> None:
    """Each step is made once or not at all, and counted if it is made."""
    ours = compile_step(recipe()).runner(threads=1)
    batch, states = examples(8), [ours.state()]
    alone = compile_step(recipe()).runner(threads=1)
    for _ in range(2000):
        alone.step(batch)
        states.append(alone.state())
    ours.step(batch)

    def step() -> None:
        ours.step(batch)

    for _ in _lines(step, FILES):
        now = ours.state()
        assert ours.steps == now["step"]
        assert_same(now, states[ours.steps])


def test_an_interrupt_in_loading_leaves_one_state_or_the_other() -> None:
    ours = compile_step(recipe()).runner(threads=1)
    first = ours.state()
    ours.step(examples(8))
    ours.step(examples(8))
    second = ours.state()
    for _ in _lines(lambda: ours.load(first), FILES):
        now = ours.state()
        assert any(all(np.array_equal(now[n], s[n]) for n in now) for s in (first, second))
        ours.load(second)


def test_an_interrupt_between_an_update_and_its_note_is_no_second_update() -> None:
    """That is where Python looks for signals."""
    ours, alone = (compile_step(recipe()).runner(threads=1) for _ in range(2))
    batch = examples(8)
    for runner in (ours, alone):
        runner.step(batch)
        runner.step(batch)
    run = ours._runs[ours._turn]

    def interrupted() -> None:
        run()
        raise KeyboardInterrupt

    ours._runs = (interrupted, interrupted)
    with pytest.raises(KeyboardInterrupt):
        ours.views()
    assert not ours.can_undo and not ours.undo()
    assert ours.steps == 2
    assert_same(ours.state(), alone.state())
    assert_same({**ours.views()}, {**alone.views()})


@pytest.mark.parametrize("error", [RuntimeError("Failed to allocate memory"), MemoryError()])
def test_an_update_that_fails_halfway_is_told_until_a_state_is_loaded(error: Exception) -> None:
    """And is not made a second time on what the first has written."""
    ours = compile_step(recipe()).runner(threads=1)
    start, batch = ours.state(), examples(8)
    ours.step(batch)
    ours.views()
    ours.step(batch)

    def failing() -> None:
        raise error

    runs, ours._runs = ours._runs, (failing, failing)
    with pytest.raises(BackendError, match="this was while the state was written, which is lost"):
        ours.views()
    ours._runs = runs
    for again in (ours.views, ours.state, ours.before, lambda: ours.step(batch)):
        with pytest.raises(BackendError, match="go on from a checkpoint"):
            again()
    assert not (ours.can_undo or ours.knows_before or ours.undo())
    ours.load(start)
    assert_same(ours.state(), start)
    ours.step(batch)
    assert ours.can_undo


def test_an_interrupt_in_undoing_leaves_one_state_or_the_other() -> None:
    """Also of the step that another runner made."""
    for first in (False, True):
        ours = of(recipe())
        if not first:
            ours.learning_rate = 0.02
        for line in range(1, 200):
            ours._loop.runner.step(examples(8))
            if first:
                ours.learning_rate = 0.01 + line / 1000
            runner = ours._loop.runner
            steps = int(runner.state()["step"])
            trace, outer = interrupting(line, FILES), sys.gettrace()
            sys.settrace(trace)
            try:
                runner.undo()
            except KeyboardInterrupt:
                pass
            finally:
                sys.settrace(outer)
            assert runner.state()["step"] == runner.steps in (steps, steps - 1)
            if trace.seen < line:  # type: ignore[attr-defined]
                assert runner.state()["step"] == steps - 1
                break
            first = False  # a rate is set for the first time once


def test_a_loss_that_is_lost_is_undone_and_told() -> None:
    bad = examples()
    bad["x"][20] = np.inf
    ours = of(recipe())
    with pytest.raises(TrainingError, match="loss is nan at step 3") as caught:
        ours.fit(bad, shuffle=False, verbose=0)
    assert "not finite" in str(caught.value) or "inf" in str(caught.value)
    assert ours.step == 2 and ours.state["step"] == 2
    assert all(np.isfinite(x).all() for x in ours.params.values())


def test_check_finite_undoes_the_step_that_it_refuses() -> None:
    """Though it has looked at the state after it."""

    @model
    def norms(x: Value = f32["batch", 4]) -> dict[str, Value]:
        distance = ((x >> Dense(3, bias=False, name="one")) ** 2).sum(-1) ** 0.5
        return {"loss": distance.mean()}

    x = data(24)["x"]
    x[6] = 0
    ours = of(training(norms, optimizer=sgd(0.01), batch_size=4))
    with pytest.raises(TrainingError, match=r"one\.weight is not finite after step 2"):
        ours.fit({"x": x}, shuffle=False, callbacks=[CheckFinite()], verbose=0)
    assert ours.step == 1
    assert np.isfinite(ours.params["one.weight"]).all()


@pytest.mark.parametrize("first", [False, True])
def test_a_rate_is_taken_back_with_its_step(first: bool) -> None:
    """Also the first that is set, which makes another step of the recipe."""
    ours, whole = of(recipe()), of(recipe())
    if not first:
        for trainer in (ours, whole):
            trainer.learning_rate = 0.02

    def failing(event: Any) -> None:
        if event.kind == "step" and event.step == 3:
            ours.learning_rate = 0.5
            raise TrainingError("enough")

    before = ours.learning_rate
    with pytest.raises(TrainingError, match="enough"):
        ours.fit(examples(), callbacks=[failing], shuffle=False, verbose=0)
    assert (ours.step, ours.learning_rate) == (2, before)
    for trainer in (ours, whole):
        trainer.fit(examples(), epochs=2 - trainer.epoch, shuffle=False, verbose=0)
    state = {n: x for n, x in ours.state.items() if n in whole.state}
    assert_near(state, whole.state)


def test_a_signal_ends_a_training_after_a_whole_step() -> None:
    ours = of(training(perceptron(), optimizer=adam(1e-2), batch_size=8))

    def interrupt(event: Any) -> None:
        if event.kind == "step" and event.step == 3:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ours.fit(data(), epochs=9, callbacks=[interrupt], verbose=0)
    assert ours.state["step"] == ours.step
    assert StepRunner.knows_before
