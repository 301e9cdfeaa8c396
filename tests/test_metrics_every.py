"""Metrics that are read every so many steps: what a training gives is the same, bit for bit."""

from __future__ import annotations

import json
import pickle
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import Dense, binary_cross_entropy_with_logits, f32, model, relu, roc_auc, sgd, training
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import ModelError, TrainingError, TrainingWarning
from nncompile.runtime.ahead import AheadStepRunner
from nncompile.train import Event, JSONLog, ModelCheckpoint, Monitor, RunDirectory, Trainer
from nncompile.train.metrics_every import SMALL, steps_ahead
from tests.command_line import run, succeeds
from tests.read_together import LOST, Told, ahead, files
from tests.small_models import assert_same, data, trainer
from tests.thread_groups import in_threads


@pytest.mark.parametrize("every", [7, 100])
def test_a_training_is_the_same(every: int) -> None:
    one, ours = ahead(None), ahead(every)
    assert not isinstance(one._loop.runner, AheadStepRunner)
    expected, told = Told(may_lag=False), Told()
    examples, held_out = data(150), data(30, seed=1)
    history = one.fit(examples, epochs=2, validation_data=held_out, callbacks=expected)
    assert ours.fit(examples, epochs=2, validation_data=held_out, callbacks=told).epochs == (
        history.epochs
    )
    assert told.events == expected.events and len(told.events) == 20
    assert max(expected.behind) == 0 and max(told.behind) == min(every, 10) - 1
    assert_same(ours.state, one.state)


@model
def ranking(x=f32["batch", 4], y=f32["batch"]):
    scores = (x >> Dense(8, relu) >> Dense(1)).reshape(-1)
    return {"loss": binary_cross_entropy_with_logits(scores, y), "auc": roc_auc(scores, y)}


def test_rows_of_all_batches_are_pooled() -> None:
    """Results whose size is that of a batch."""
    compiled = compile_step(training(ranking, optimizer=sgd(0.1), batch_size=16))
    x = data(90)["x"]
    examples = {"x": x, "y": (x[:, 0] > 0).astype(np.float32)}
    several = [Trainer(compiled, metrics_every=every, threads=1) for every in (1, 4)]
    one, ours = (t.fit(examples, epochs=2, shuffle=True) for t in several)
    assert one.epochs == ours.epochs
    assert_same(several[0].state, several[1].state)


def lines(file: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
    for line in found:
        del line["seconds"]
    return found


def test_files_are_the_same_and_go_on_to_the_same_bits(tmp_path: Path) -> None:
    found = []
    for every in (1, 7):
        folder = tmp_path / str(every)
        folder.mkdir()
        ours = ahead(every)
        callbacks = [
            RunDirectory(folder / "run", checkpoint_every="4steps", keep=9, exports=False),
            JSONLog(folder / "log.jsonl", every=1),
            ModelCheckpoint(folder / "{epoch}.safetensors"),
            monitor := Monitor(every=3, warn=False),
        ]
        ours.fit(data(150), steps=17, callbacks=callbacks)
        measured = [m.stored() for m in monitor.measurements]
        resumed = ahead(8 - every)
        resumed.load(folder / "run" / "checkpoints" / "step-000000012.safetensors")
        with pytest.warns(TrainingWarning, match="JSONLog, ModelCheckpoint, Monitor had a state"):
            history = resumed.fit(data(150), epochs=1)
        rest = resumed.state, history.epochs
        found.append((lines(folder / "log.jsonl"), files(folder), measured, rest))
    (log, states, measured, rest), others = found
    assert log == others[0] and len(log) == 19
    assert states.keys() == others[1].keys() and len(states) >= 7
    for name, (state, position) in states.items():
        assert_same(state, others[1][name][0])
        assert position == others[1][name][1]
    assert measured == others[2] and len(measured) == 5
    assert_same(rest[0], others[3][0])
    assert rest[1] == others[3][1]


class Choosing(Told):
    """Is to be told of some steps before the next is made."""

    def __init__(self) -> None:
        super().__init__(may_lag=False)
        self.states: dict[int, Any] = {}

    def wants_step(self, step: int) -> bool:
        return step in (2, 9)

    def on_step(self, event: Event) -> None:
        super().on_step(event)
        self.states[event.step] = event.trainer.state


def test_a_callback_is_told_of_the_steps_it_wants_before_the_next() -> None:
    one, every = ahead(None), Following()
    one.fit(data(150), epochs=1, callbacks=every)
    ours, choosing, told = ahead(4), Choosing(), Told()
    ours.fit(data(150), epochs=1, callbacks=[told, choosing])
    assert list(choosing.states) == [2, 9] and choosing.behind == [0, 0]
    for step, state in choosing.states.items():
        assert_same(state, every.states[step])
    assert told.behind == [1, 0, 3, 2, 1, 0, 2, 1, 0, 0]


class Following:
    """Keeps the state after each step."""

    def __init__(self) -> None:
        self.states: dict[int, Any] = {}

    def on_step(self, event: Event) -> None:
        self.states[event.step] = event.trainer.state


def test_others_are_told_of_each_step_at_once() -> None:
    told, ours = Told(), ahead(4)
    ours.fit(data(150), epochs=1, callbacks=[told, Told(may_lag=False)])
    assert told.behind == [0] * 10
    ours.fit(data(150), epochs=1, callbacks=[told, lambda event: None])
    assert told.behind == [0] * 20


def test_a_callback_may_end_or_undo_at_the_step_that_it_wants() -> None:
    class Stopping(Choosing):
        def on_step(self, event: Event) -> None:
            event.trainer.stop()

    class Undoing(Choosing):
        def on_step(self, event: Event) -> None:
            raise TrainingError("a number")

    one, ours = ahead(None), ahead(4)
    one.fit(data(150), steps=9)
    ours.fit(data(150), callbacks=Stopping())
    assert ours.step == 2
    ours.fit(data(150), steps=5)
    with pytest.raises(TrainingError, match="a number"):
        ours.fit(data(150), callbacks=(undoing := Undoing()))
    assert ours.step == 8 and ours._loop.epoch.sums.added.batches == 8
    ours.fit(data(150), steps=1)
    assert_same(ours.state, one.state)
    assert not undoing.events


def test_a_late_callback_that_fails_is_told_of_the_rest() -> None:
    class Failing(Told):
        def on_step(self, event: Event) -> None:
            super().on_step(event)
            if event.step in (2, 3):
                raise ValueError(f"no room at {event.step}")

    ours, failing, told, one = ahead(4), Failing(), Told(), ahead(1)
    with pytest.raises(ValueError, match="no room at 2"):
        ours.fit(data(150), callbacks=[failing, told])
    assert [x[1] for x in told.events] == [x[1] for x in failing.events] == [1, 2, 3, 4]
    assert ours.step == 4 == ours._loop.epoch.sums.added.batches
    history = ours.fit(data(150), epochs=1, callbacks=[failing, told])
    assert history.epochs == one.fit(data(150), epochs=1).epochs
    assert_same(ours.state, one.state)


@pytest.mark.parametrize("every", [0, -1, 2.5, "all"])
def test_wrong_options(every: Any) -> None:
    with pytest.raises(ModelError, match=r"metrics_every must be (at least 1|a whole number), got"):
        Trainer(trainer().compiled, metrics_every=every)


def test_the_default_is_one_on_the_cpu_and_more_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    from nncompile.runtime import providers

    small, large = {"w": np.zeros(4)}, {"w": np.broadcast_to(np.float64(0), (SMALL // 8 + 1,))}
    assert steps_ahead(None, "cpu", small, in_place=False) == 1 == Trainer(LOST).steps_ahead
    names = ["CUDAExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(providers.ort, "get_available_providers", lambda: names)
    cuda = ("cuda", {"device_id": 1})
    assert steps_ahead(None, cuda, small, in_place=False) == 16
    assert steps_ahead(None, cuda, large, in_place=False) == 1
    assert steps_ahead(3, cuda, large, in_place=False) == 3
    assert steps_ahead(3, cuda, small, in_place=True) == 1


def test_a_trainer_keeps_the_option_where_it_is_pickled() -> None:
    ours, one = ahead(4), ahead(1)
    ours.fit(data(150), steps=3)
    again = pickle.loads(pickle.dumps(ours))
    assert again.steps_ahead == 4 and again.step == 3
    for t in (again, one):
        t.fit(data(150), steps=6 if t is again else 9)
    assert_same(again.state, one.state)


def test_train_says_how_many_steps_and_a_run_keeps_it(good: Path, unmeasured: None) -> None:
    output = good.parent / "run"
    printed = succeeds("train", good, "--output", output, "--epochs", 1, "--metrics-every", 3)
    assert "on cpu (metrics every 3 steps)" in printed
    printed = succeeds("train", good, "--resume", output, "--epochs", 1)
    assert "with the options it began with: --metrics-every 3" in printed
    assert "on cpu (metrics every 3 steps)" in printed


def test_wrong_options_of_train_are_told(good: Path) -> None:
    for wrong in (0, -2, 1.5):
        result = run("train", good, "--metrics-every", wrong)
        assert result.exit_code == 2 and "metrics-every" in result.stderr


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_what_was_made_is_told_when_something_ends_the_training(error: type[Exception]) -> None:
    examples, told, ours = data(160), Told(), ahead(100)

    def batches() -> Iterator[dict[str, Any]]:
        for first in range(0, 160, 16):
            if first == 64:
                raise error
            yield {n: x[first : first + 16] for n, x in examples.items()}

    with pytest.raises(error):
        ours.fit(batches, prefetch=0, callbacks=told)
    assert [x[1] for x in told.events] == [1, 2, 3, 4] and ours.step == 4
    one, expected = ahead(1), Told()
    one.fit(examples, shuffle=False, steps=4, callbacks=expected)
    assert told.events == expected.events
    assert_same(ours.state, one.state)


def test_ctrl_c_ends_a_run_after_the_step_and_keeps_it(tmp_path: Path) -> None:
    examples, found = data(160), []
    for every in (1, 100):

        def batches() -> Iterator[dict[str, Any]]:
            for first in range(0, 160, 16):
                if first == 64:
                    signal.raise_signal(signal.SIGINT)
                yield {n: x[first : first + 16] for n, x in examples.items()}

        folder, told = tmp_path / str(every), Told()
        with pytest.raises(KeyboardInterrupt):
            callbacks = [told, RunDirectory(folder, exports=False)]
            ahead(every).fit(batches, prefetch=0, callbacks=callbacks)
        found.append((told.events, files(folder)))
    assert found[0][0] == found[1][0] and len(found[0][0]) == 5
    ((name, (state, position)),) = found[0][1].items()
    assert name.endswith("step-000000005.safetensors")
    assert_same(state, found[1][1][name][0])
    assert position == found[1][1][name][1]


def test_several_processes_read_the_metrics_of_each_step() -> None:
    """They have them in main memory, with the gradients that they reduce."""

    def work(processes: Any) -> tuple[int, list[dict[str, float]]]:
        ours = Trainer(LOST, threads=1, parallel=processes, metrics_every=8)
        return ours.steps_ahead, ours.fit(data(40), epochs=1, verbose=0).epochs

    found = in_threads(2, work)
    assert found[0][0] == 1 and found[0] == found[1]
