"""Interrupts and errors at any moment of a training: the state is that of a whole step, and what
goes on from there ends as if nothing had happened."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Callable, Collection
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import dsl
from nncompile.diagnostics.errors import FeedError, ModelError, TrainingError
from nncompile.ir.broadcasting import full
from nncompile.ir.graph import Graph
from nncompile.ir.types import f32
from nncompile.program.model import Model
from nncompile.program.recipe import training
from nncompile.train import Event, Trainer
from tests.leaves import leaf
from tests.small_models import assert_same, data, trainer

# Where a step and its metrics are put together.
LOOP = ("loop.py", "stepping.py", "unread.py", "runner.py", "ahead.py", "sums.py")


def interrupting(at_line: int, files: Collection[str] = LOOP) -> Callable[..., Any]:
    """A trace function that raises `KeyboardInterrupt` before that line of the files; the number
    of lines that it has seen is its attribute `seen`."""

    endings = tuple(f"/{name}" for name in files)

    def trace(frame: FrameType, kind: str, _: object) -> Any:
        if not frame.f_code.co_filename.endswith(endings):
            return None
        if kind == "line":
            trace.seen += 1  # type: ignore[attr-defined]
            if trace.seen == at_line:  # type: ignore[attr-defined]
                raise KeyboardInterrupt
        return trace

    trace.seen = 0  # type: ignore[attr-defined]
    return trace


def interrupted_fit(
    ours: Trainer, examples: dict[str, Any], at_line: int, files: Collection[str] = LOOP
) -> int:
    """Fits until the interrupt; the number of lines that ran."""
    trace = interrupting(at_line, files)
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        ours.fit(examples, epochs=1)
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(before)
    return int(trace.seen)  # type: ignore[attr-defined]


@pytest.mark.parametrize(("every", "count", "apart"), [(1, 20, 1), (2, 40, 23)])
def test_an_interrupt_before_any_line_leaves_a_whole_step(
    every: int, count: int, apart: int, tmp_path: Path
) -> None:
    compiled = trainer(0.5).compiled
    whole = Trainer(compiled)
    ours, saved = (Trainer(compiled, metrics_every=every) for _ in range(2))
    start = ours.save(tmp_path / "start.safetensors")
    states, examples = [whole.state], data(count)
    steps = -(-count // 16)
    history = whole.fit(examples, epochs=1, callbacks=Following(states))
    reached = set()
    for line in itertools.count(1, apart):
        ours.load(start)
        seen = interrupted_fit(ours, examples, line)
        reached.add(ours.step)
        assert_same(ours.state, states[ours.step])
        step = ours.step
        ours.snapshot()
        assert ours.step == step  # what counts is settled, with the error that ended the fit
        if line % 7 == 0:
            saved.load(ours.save(tmp_path / "then.safetensors"))
        for resumed in (ours, saved) if line % 7 == 0 else (ours,):
            if resumed.epoch == 0:
                assert resumed.fit(examples, epochs=1).last == history.last
            assert_same(resumed.state, states[-1])
            assert (resumed.step, resumed.epoch) == (steps, 1)
        if seen < line:
            break
    assert reached == {*range(steps + 1)}


class Following:
    """Adds the state after each step to a list."""

    def __init__(self, states: list[dict[str, Any]]) -> None:
        self.states = states

    def on_step(self, event: Event) -> None:
        self.states.append(event.trainer.state)


def test_an_interrupt_while_a_state_is_loaded_leaves_one_or_the_other(tmp_path: Path) -> None:
    ours, other = trainer(), trainer()
    other.fit(data(), steps=3)
    states = (ours.state, other.state)
    for line in range(1, 400):
        trace = interrupting(line)
        sys.settrace(trace)
        try:
            ours.set_params({p: x for p, x in states[1].items() if p != "step"})
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(None)
        now = {p: x for p, x in ours.state.items() if p != "step"}
        assert any(all(np.array_equal(now[p], s[p]) for p in now) for s in states)
        if trace.seen < line:  # type: ignore[attr-defined]
            break
        ours.set_params({p: x for p, x in states[0].items() if p != "step"})
    else:
        pytest.fail("loading takes more lines than were tried")


class Raising:
    """Raises an error at that step."""

    def __init__(self, error: BaseException, step: int) -> None:
        self.error, self.step = error, step

    def on_step(self, event: Event) -> None:
        if event.step == self.step:
            self.step = -1
            raise self.error


@pytest.mark.parametrize(
    ("error", "left"),
    [(KeyboardInterrupt(), 2), (OSError("a disk"), 2), (TrainingError("a number"), 1)],
    ids=["interrupt", "error", "training error"],
)
def test_an_error_of_a_callback_leaves_a_whole_step(error: BaseException, left: int) -> None:
    whole, ours = trainer(0.5), trainer(0.5)
    history = whole.fit(data(), epochs=1)
    raising = Raising(error, 2)
    with pytest.raises(type(error)):
        ours.fit(data(), epochs=1, callbacks=raising)
    assert ours.step == left
    assert ours.fit(data(), epochs=1, callbacks=raising).last == history.last
    assert_same(ours.state, whole.state)


def test_a_batch_that_fails_leaves_the_step_before() -> None:
    ours, whole = trainer(), trainer()
    rows = data()
    batches = [{n: x[i : i + 10] for n, x in rows.items()} for i in range(0, 50, 10)]
    expected = whole.fit(batches, epochs=1)
    wrong = [*batches[:2], {"x": batches[2]["x"]}, *batches[3:]]
    with pytest.raises(FeedError, match="'target'"):
        ours.fit(wrong, epochs=1)
    assert ours.step == 2
    assert ours.fit(batches, epochs=1).last == expected.last
    assert_same(ours.state, whole.state)


def test_a_batch_whose_metrics_are_added_in_part_is_added_once() -> None:
    scores, target = leaf("scores", f32["n"]), leaf("target", f32["n"])
    outputs = {"first": scores.mean(), "auc": dsl.roc_auc(scores, target), "last": target.mean()}
    w = leaf("w", f32[()], "parameter")
    graph = Graph("pooling", outputs | {"loss": (w * scores).mean()}, (scores, target, w))
    model = Model("pooling", graph, {"w": full((), 1.0)})
    random = np.random.default_rng(0)
    rows = {n: random.integers(0, 2, 12).astype(np.float32) for n in ("scores", "target")}
    ours, whole = (Trainer(training(model, batch_size=8)) for _ in range(2))
    expected = whole.fit(rows, epochs=1).last
    loop = ours._loop
    for line in itertools.count(1):
        ours.set_params({**whole.params, "step": 0})
        loop.epoch.number = 0
        seen = interrupted_fit(ours, rows, line, ("sums.py",))
        if loop.epoch.number == 0:
            assert ours.fit(rows, epochs=1).last["auc"] == expected["auc"]
        if seen < line:
            break


def test_a_fit_within_a_fit_is_an_error() -> None:
    ours = trainer()

    def fits(event: Event) -> None:
        event.trainer.fit(data())  # type: ignore[attr-defined]

    with pytest.raises(ModelError, match=r"fit is running on this trainer already(.|\n)*evaluate"):
        ours.fit(data(), callbacks=fits)
    assert ours.step == 1
    ours.fit(data(), epochs=1)  # it is free again
    assert ours.step == 4


def test_a_fit_in_another_thread_is_an_error_and_predicting_in_a_callback_is_not() -> None:
    ours = trainer()
    errors: list[Exception] = []

    def elsewhere() -> None:
        try:
            ours.fit(data())
        except ModelError as error:
            errors.append(error)

    def begins(event: Event) -> None:
        if event.step == 1:
            thread = threading.Thread(target=elsewhere)
            thread.start()
            thread.join()
        assert event.trainer.predict(data()["x"])["y"].shape == (50, 2)
        assert event.trainer.evaluate(data())["loss"] > 0

    ours.fit(data(), epochs=1, callbacks=begins)
    assert len(errors) == 1
    assert ours.step == 4


def test_a_callback_may_go_on_from_another_state(tmp_path: Path) -> None:
    ours, whole = trainer(), trainer()
    whole.fit(data(), epochs=3)
    ours.fit(data(), epochs=1)
    path = ours.save(tmp_path / "one.safetensors")
    returned: list[int] = []

    def returns(event: Event) -> None:
        if event.kind == "step" and event.step == 6 and not returned:
            returned.append(event.step)
            event.trainer.load(path)

    ours.fit(data(), epochs=2, callbacks=returns)
    assert returned
    assert (ours.step, ours.epoch) == (12, 3)
    assert_same(ours.state, whole.state)
