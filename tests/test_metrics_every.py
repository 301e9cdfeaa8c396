"""Metrics that are read every so many steps: what a training gives is the same, bit for bit."""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import (
    Dense,
    binary_cross_entropy_with_logits,
    f32,
    log,
    model,
    relu,
    roc_auc,
    sgd,
    sqrt,
    training,
)
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import ModelError, TrainingError, TrainingWarning
from nncompile.runtime.ahead import AheadStepRunner
from nncompile.runtime.checkpoint import load_checkpoint
from nncompile.train import (
    CheckFinite,
    Event,
    JSONLog,
    ModelCheckpoint,
    Monitor,
    RunDirectory,
    Trainer,
)
from nncompile.train.metrics_every import SMALL, steps_ahead
from tests.command_line import run, succeeds
from tests.small_models import assert_same, data, trainer


def ahead(every: int | None, drop: float = 0.5, **options: Any) -> Trainer:
    return Trainer(trainer(drop, **options).compiled, metrics_every=every, threads=1)


class Told:
    """Notes the steps that it is told of, later or at once."""

    def __init__(self, may_lag: bool = True) -> None:
        self.may_lag = may_lag
        self.events: list[tuple[Any, ...]] = []
        self.behind: list[int] = []

    def on_step(self, event: Event) -> None:
        first = float(event.batch["x"].flat[0])
        self.events.append((event.epoch, event.step, tuple(event.metrics.items()), first))
        self.behind.append(event.trainer.step - event.step)


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


def files(folder: Path) -> dict[str, tuple[Any, Any]]:
    """The states in a directory: arrays, and the position."""
    found = {}
    for file in sorted(folder.rglob("*.safetensors")):
        checkpoint = load_checkpoint(file)
        position = checkpoint.metadata["nncompile.position"]
        found[str(file.relative_to(folder))] = (checkpoint.state, position)
    return found


@pytest.mark.slow
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


@model
def lost(x=f32["batch", 4], target=f32["batch", 2]):
    y = x >> Dense(8, relu, name="hidden") >> Dense(2, name="out")
    return {"loss": ((y - target) ** 2).mean() + log(x[:, 0].min() + 9)}


LOST = compile_step(training(lost, optimizer=sgd(0.01), batch_size=16))


def diverging(at: int, value: float = -50.0) -> dict[str, Any]:
    """Examples of which those of that step make its loss NaN, or minus infinity."""
    examples = data(160)
    examples["x"][16 * at - 5, 0] = value
    return examples


@pytest.mark.parametrize("at", [1, 3, 4, 9])
def test_a_loss_that_is_lost_is_that_of_its_step(at: int, tmp_path: Path) -> None:
    found = []
    for every in (1, 4):
        ours, told = Trainer(LOST, metrics_every=every, threads=1), Told()
        run = RunDirectory(tmp_path / str(every), exports=False)
        with pytest.raises(TrainingError) as caught:
            ours.fit(diverging(at), shuffle=False, callbacks=[run, told])
        text = str(caught.value).replace(str(tmp_path / str(every)), "")
        saved = files(tmp_path / str(every))
        found.append((text, told.events, ours.step, ours.state, saved))
        with pytest.raises(TrainingError) as again:
            ours.fit(diverging(at), shuffle=False)
        assert str(again.value).splitlines()[0] == str(caught.value).splitlines()[0]
        ours.fit(data(160), shuffle=False)  # the step is made again, of other data
        found[-1] = (*found[-1], ours.state)
    one, ours = found
    assert (
        one[:3] == ours[:3] and f"loss is nan at step {at} (epoch 1); the data are finite" in one[0]
    )
    assert "first in" in one[0] and one[2] == at - 1
    for i in (3, 5):
        assert_same(one[i], ours[i])
    assert one[4].keys() == ours[4].keys() and len(one[4]) == (at > 1)
    for name, (state, position) in one[4].items():
        assert_same(state, ours[4][name][0])
        assert position == ours[4][name][1]


@pytest.mark.parametrize("at", [1, 4, 5])
def test_infinite_data_are_those_of_the_step(at: int) -> None:
    texts = []
    batches = [
        {n: x[i : i + 16] for n, x in diverging(at, -np.inf).items()} for i in range(0, 160, 16)
    ]
    for every in (1, 4):
        with pytest.raises(TrainingError) as caught:
            Trainer(LOST, metrics_every=every, threads=1).fit(batches)
        texts.append(str(caught.value))
    assert texts[0] == texts[1] and "input 'x'  1 infinite" not in texts[0]
    assert "of this batch and the one before are not all finite" in texts[0]


@pytest.mark.parametrize("at", [3, 4, 5])
def test_infinite_data_of_the_step_before_are_found(at: int) -> None:
    """They pass the activation, and spoil a weight."""
    examples = data(160)
    examples["x"][16 * at - 5, 0] = np.inf
    batches = [{n: x[i : i + 16] for n, x in examples.items()} for i in range(0, 160, 16)]
    texts = []
    for every in (1, 4):
        with pytest.raises(TrainingError, match=f"loss is nan at step {at + 1}") as caught:
            ahead(every, 0.0).fit(batches)
        texts.append(str(caught.value))
    assert texts[0] == texts[1] and "input 'x'  1 of 64 infinite" in texts[0]


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


def test_weights_that_an_earlier_step_spoiled() -> None:
    """The gradient of a norm is NaN at zero, where the loss is finite."""

    @model
    def norms(x=f32["batch", 4]):
        distance = sqrt(((x >> Dense(3, bias=False, name="one")) ** 2).sum(-1))
        return {"loss": distance.mean()}

    compiled = compile_step(training(norms, optimizer=sgd(0.01), batch_size=4))
    x = data(24)["x"]
    x[6] = 0
    texts: list[list[str]] = []
    for every in (1, 4):
        texts.append([])
        for callbacks in ([], [CheckFinite()]):
            ours = Trainer(compiled, metrics_every=every, threads=1)
            with pytest.raises(TrainingError) as caught:
                ours.fit({"x": x}, shuffle=False, callbacks=callbacks)
            texts[-1] += str(caught.value), str(ours.step)
    assert texts[0] == texts[1]
    assert "nan at step 3" in texts[0][0] and "parameter one.weight" in texts[0][0]
    assert "one.weight is not finite after step 2" in texts[0][2] and texts[0][3] == "1"


def test_who_reads_the_state_between_steps_sees_one_whose_loss_is_known(tmp_path: Path) -> None:
    """Batches of a function that looks at the trainer."""
    examples = diverging(6)
    files = []
    for every in (1, 100):
        ours = Trainer(LOST, metrics_every=every, threads=1)
        seen: list[Any] = []

        def batches(ours: Trainer = ours, seen: list[Any] = seen) -> Iterator[dict[str, Any]]:
            for first in range(0, 160, 16):
                if first == 48:
                    seen.append(ours.state)
                    ours.learning_rate = 0.02
                if first == 64:
                    ours.save(tmp_path / "then.safetensors")
                if first == 96:  # after the bad step: it is found here
                    ours.save(tmp_path / "later.safetensors")
                yield {n: x[first : first + 16] for n, x in examples.items()}

        with pytest.raises(TrainingError, match="loss is nan at step 6") as caught:
            ours.fit(batches, prefetch=0)
        assert not (tmp_path / "later.safetensors").exists() and ours.step == 5
        checkpoint = load_checkpoint(tmp_path / "then.safetensors")
        text = [x for x in str(caught.value).splitlines() if not x.startswith("  at ")]
        files.append((seen[0], checkpoint.state, ours.state, text))
    for a, b in zip(files[0][:3], files[1][:3], strict=True):
        assert_same(a, b)
    assert files[0][3] == files[1][3] and "first in" in "".join(files[0][3])


READING = {
    "state": lambda t: t.state,
    "params": lambda t: t.params,
    "load_params": lambda t: t.load_params(t),
    "evaluate": lambda t: t.evaluate(data(16)),
    "set_params": lambda t: t.set_params({"out.bias": np.zeros(2, np.float32)}),
    "set_learning_rate": lambda t: t.set_learning_rate(0.1),
    "begin_epoch": lambda t: t.begin_epoch(),
    "locate": lambda t: t.locate(data(16)),
    "snapshot": lambda t: t.snapshot(),
}


@pytest.mark.parametrize("what", READING)
def test_no_state_is_read_or_changed_whose_loss_is_lost(what: str) -> None:
    ours = Trainer(LOST, metrics_every=100, threads=1)
    reached = []

    def batches() -> Iterator[dict[str, Any]]:
        for first in range(0, 160, 16):
            if first == 64:
                READING[what](ours)
                reached.append(first)
            yield {n: x[first : first + 16] for n, x in diverging(3).items()}

    before = Trainer(LOST, threads=1)
    before.fit(diverging(3), shuffle=False, steps=2)
    with pytest.raises(TrainingError, match="loss is nan at step 3"):
        ours.fit(batches, prefetch=0)
    assert not reached and ours.step == 2
    assert_same(ours.state, before.state)


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


@pytest.mark.slow
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
