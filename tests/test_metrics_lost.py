"""Losses that are lost while metrics are read together: they are those of their step, and no state
after it is seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import Dense, f32, model, sgd, sqrt, training
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import TrainingError
from nncompile.runtime.checkpoint import load_checkpoint
from nncompile.train import CheckFinite, RunDirectory, Trainer
from tests.read_together import LOST, Told, ahead, diverging, files
from tests.small_models import assert_same, data


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
