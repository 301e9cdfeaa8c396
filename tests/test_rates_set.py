"""Learning rates that are set while a model is trained: as if the rate could always be set."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile.compiler.export import export
from nncompile.diagnostics.errors import FeedError, TrainingError
from nncompile.optim import (
    Optimizer,
    adam,
    adamw,
    adjustable,
    constant_rate,
    cosine,
    muon,
    plateau,
    sgd,
)
from nncompile.program.recipe import training
from nncompile.runtime import StepRunner, load_state
from nncompile.runtime.session import Session
from nncompile.train import (
    CSVLog,
    EarlyStopping,
    Event,
    ModelCheckpoint,
    RunDirectory,
    Trainer,
    lr_find,
)
from tests.small_models import assert_same, data, perceptron, trainer
from tests.test_data_weights import X, Y
from tests.test_data_weights import trainer as classifier
from tests.test_interrupts import interrupting

Make = Callable[[Callable[[Any], Any]], Optimizer]
GROUPS: dict[str, Optimizer] = {"*.bias": sgd(0.1), "hidden.*": adam(1e-2), "*": adam(2e-2)}

# What has the same bits before the rate is set, too: it is no constant of the graph in either, or
# one of the slot alone.
FROM_THE_START: dict[str, Make] = {
    "momentum": lambda rate: sgd(rate(0.1), momentum=0.9),
    "momentum, constant": lambda rate: sgd(rate(constant_rate(0.1)), momentum=0.9),
    "momentum, cosine": lambda rate: sgd(rate(cosine(0.1, steps=20)), momentum=0.9),
    "Adam, cosine": lambda rate: adam(rate(cosine(1e-2, steps=20))),
    "plateau": lambda rate: adam(rate(plateau(0.1, patience=0, threshold=0.5))),
}
FROM_THERE: dict[str, Make] = {
    "nesterov": lambda rate: sgd(rate(0.1), momentum=0.9, nesterov=True),
    "no rate": lambda rate: sgd(rate(0.0), momentum=0.9),
    "Adam": lambda rate: adam(rate(1e-2)),
    "AdamW": lambda rate: adamw(rate(1e-2), weight_decay=0.1),
    "Muon": lambda rate: muon(rate(0.02)),
}


def of(optimizer: Optimizer | dict[str, Optimizer]) -> Trainer:
    return trainer(0.5, optimizer=optimizer)


def plain(rate: Any) -> Any:
    return rate


@pytest.mark.parametrize(
    "make", (FROM_THE_START | FROM_THERE).values(), ids=FROM_THE_START | FROM_THERE
)
def test_a_rate_that_is_set_is_one_that_could_always_be_set(make: Make) -> None:
    ours, known = of(make(plain)), of(make(adjustable))
    for each in (ours, known):
        each.fit(data(), epochs=1)
    assert ours.learning_rate == known.learning_rate
    if make in FROM_THE_START.values():
        assert_same(ours.state, {p: known.state[p] for p in ours.state})
    else:
        known.set_params(ours.state)
    for rate in (0.003, 0.02, None):
        for each in (ours, known):
            each.learning_rate = rate
            assert each.learning_rate == rate or rate is None
            each.fit(data(), epochs=1)
        assert_same(ours.state, known.state)
    assert ours.learning_rate == known.learning_rate


@pytest.mark.parametrize(
    ("options", "mine"),
    [
        ({}, lambda: sgd(0.1)),
        ({"momentum": 0.9}, lambda: sgd(0.1, momentum=0.9)),
        ({"momentum": 0.9, "nesterov": True}, lambda: sgd(0.1, momentum=0.9, nesterov=True)),
        (None, lambda: adam(0.01)),
    ],
    ids=["plain", "momentum", "Nesterov", "Adam"],
)
def test_the_steps_are_those_of_torch(torch: Any, options: Any, mine: Any) -> None:
    """Whose rate is set by its groups of parameters."""
    ours = trainer(optimizer=mine())
    p = {path: torch.nn.Parameter(torch.tensor(x)) for path, x in ours.params.items()}
    optim = torch.optim
    theirs = (
        optim.Adam(p.values(), 0.01) if options is None else optim.SGD(p.values(), 0.1, **options)
    )
    batch = data(16)
    x, target = (torch.tensor(batch[name]) for name in ("x", "target"))
    for rate in (None, None, 0.02, 0.02, 0.3, 0.05):
        if rate is not None:
            ours.learning_rate = rate
            theirs.param_groups[0]["lr"] = rate
        ours.fit([batch], steps=1)
        theirs.zero_grad()
        y = torch.tanh(x @ p["hidden.weight"] + p["hidden.bias"]) @ p["out.weight"]
        ((y - target) ** 2).mean().backward()
        theirs.step()
        for path, w in p.items():
            np.testing.assert_allclose(ours.params[path], w.detach().numpy(), 1e-4, 1e-5)


@pytest.mark.parametrize("make", [FROM_THERE["Adam"], FROM_THE_START["plateau"]])
def test_a_rate_stays_in_files_and_copies(tmp_path: Path, make: Make) -> None:
    """Within an epoch, too."""
    whole = of(make(plain))
    start = whole.save(tmp_path / "start.safetensors")
    whole.fit(data(), steps=5)
    whole.learning_rate = 0.003
    whole.fit(data(), steps=2)
    file, copy = whole.save(tmp_path / "then.safetensors"), pickle.loads(pickle.dumps(whole))
    loaded, taken, declared = of(make(plain)), of(make(plain)), of(make(adjustable))
    loaded.load(file)
    declared.load(file)
    taken.set_params(whole.state)
    for each in (copy, loaded, taken, declared):
        assert each.learning_rate == 0.003
        assert_same(each.state, whole.state)
    last = whole.fit(data(), epochs=1).last
    for each in (copy, loaded, declared):
        assert each.fit(data(), epochs=1).last == last
        assert_same(each.state, whole.state)
    # A file from before has the rate of the recipe.
    whole.load(start)
    assert_same(whole.state, of(make(plain)).state)
    assert whole.compiled is whole.declared
    copy.load(start)
    for each in (whole, copy):
        each.fit(data(), steps=5)
    assert_same(whole.state, copy.state)
    whole.load(file)
    assert whole.learning_rate == 0.003


def halving(event: Event) -> None:
    if event.kind == "step" and event.step in (3, 6, 7):
        event.trainer.learning_rate *= 0.5  # type: ignore[operator]


def test_a_callback_sets_the_rate_of_the_next_step() -> None:
    ours, known = of(adam(1e-2)), of(adam(1e-2))
    history = ours.fit(data(), epochs=3, callbacks=halving)
    for steps, rate in ((3, 5e-3), (3, 2.5e-3), (1, 1.25e-3), (5, None)):
        known.fit(data(), steps=steps)
        if rate is not None:
            known.learning_rate = rate
    assert_same(ours.state, known.state)
    assert ours.epoch == 3 and len(history) == 3
    # Batches of a generator are not read again.
    batches = [{n: x[i : i + 10] for n, x in data().items()} for i in range(0, 50, 10)]
    lazy, listed = of(adam(1e-2)), of(adam(1e-2))
    lazy.fit((b for b in batches), epochs=1, shuffle=False, callbacks=halving)
    listed.fit(batches, epochs=1, shuffle=False, callbacks=halving)
    assert lazy.step == 5 and lazy.learning_rate == 5e-3
    assert_same(lazy.state, listed.state)


class Failing:
    """Raises that error after a step, once."""

    def __init__(self, at: int, error: BaseException) -> None:
        self.at, self.error = at, error

    def on_step(self, event: Event) -> None:
        if event.step == self.at:
            self.at = -1
            raise self.error


@pytest.mark.parametrize("at", [3, 6, 7])
@pytest.mark.parametrize("make", [FROM_THERE["Adam"], FROM_THE_START["momentum"]])
def test_a_step_that_is_undone_takes_back_the_rate_set_after_it(at: int, make: Make) -> None:
    """And is made again with its own, the first that is set included."""
    whole, ours = of(make(plain)), of(make(plain))
    whole.fit(data(), epochs=3, callbacks=halving)
    with pytest.raises(TrainingError):
        ours.fit(data(), epochs=3, callbacks=[halving, Failing(at, TrainingError("undo"))])
    assert ours.step == at - 1
    assert ours.learning_rate == pytest.approx(
        {3: 1, 6: 0.5, 7: 0.25}[at] * of(make(plain)).learning_rate
    )
    assert ours.locate(data(16)) is None
    ours.fit(data(), epochs=3 - ours.epoch, callbacks=halving)
    assert_same(ours.state, whole.state)


def test_an_interrupt_while_a_rate_is_set_leaves_one_or_the_other() -> None:
    ours = of(adam(1e-2))
    ours.learning_rate = 0.003
    ours.load_params(ours.params)
    ours.fit([data(16)], steps=1)
    before = ours.state
    for line in range(1, 200):
        ours.set_params({p: x for p, x in before.items() if p != "step"})
        trace = interrupting(line, ("runner.py", "learning_rates.py"))
        outer = sys.gettrace()
        sys.settrace(trace)
        try:
            ours.learning_rate = 0.5
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(outer)
        rate = ours.learning_rate
        assert rate in (0.003, 0.5)
        assert_same({**ours.state, "training.adjustable.rate": np.array(0.003)}, before)
        if trace.seen < line:  # type: ignore[attr-defined]
            assert rate == 0.5
            break
    else:
        raise AssertionError("it took more lines")


def test_a_resumed_training_sets_its_rates_again(tmp_path: Path) -> None:
    """The run directory knows the recipe, whatever rate was set, before `fit` or within."""

    def begun() -> Trainer:
        ours = of(adam(1e-2))
        ours.learning_rate = 0.02
        return ours

    whole = begun()
    whole.fit(
        data(), epochs=4, callbacks=[halving, RunDirectory(tmp_path / "whole", exports=False)]
    )
    run = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        begun().fit(
            data(),
            epochs=4,
            callbacks=[halving, Failing(5, KeyboardInterrupt()), RunDirectory(run, exports=False)],
        )
    resumed = of(adam(1e-2))
    callbacks = [halving, Failing(-1, KeyboardInterrupt())]
    directory = RunDirectory(run, exports=False, resume=True)
    resumed.fit(data(), epochs=4, callbacks=[*callbacks, directory])
    assert_same(resumed.state, whole.state)


def test_the_best_epoch_is_restored_at_the_present_rate(tmp_path: Path) -> None:
    def drop(event: Event) -> None:
        if event.kind == "epoch":
            event.trainer.learning_rate = 1.0 / 4**event.epoch

    stopping = EarlyStopping("loss", patience=2)
    best = ModelCheckpoint(tmp_path / "best.safetensors", monitor="loss")
    ours = of(sgd(0.5, momentum=0.5))
    ours.learning_rate = 1.0
    ours.fit(data(), epochs=4, callbacks=[stopping, best, CSVLog(tmp_path / "log.csv"), drop])
    assert ours.learning_rate == 1 / 4**ours.epoch
    ours.load(tmp_path / "best.safetensors")
    assert stopping.best_epoch is not None
    assert ours.learning_rate == 1 / 4 ** (stopping.best_epoch - 1)


def test_updates_of_several_steps_have_the_rate_of_the_last() -> None:
    curve = cosine(1e-2, steps=10)
    ours = trainer(optimizer=adam(curve), accumulate=2)
    ours.fit([data(16)] * 3, epochs=1)
    assert ours.learning_rate == pytest.approx(curve(1.0))
    ours.learning_rate = 0.0
    before = ours.params
    ours.fit([data(16)] * 3, epochs=1)
    assert_same(ours.params, before)


def test_examples_that_are_weighted_keep_rate_and_epoch(tmp_path: Path) -> None:
    """The model is compiled again for them, where a training goes on with an epoch, too."""
    balanced: dict[str, Any] = {"class_weight": "balanced"}
    whole = classifier()
    whole.learning_rate = 0.02
    whole.fit(X, Y, steps=4, **balanced)
    file = whole.save(tmp_path / "then.safetensors")
    last = whole.fit(X, Y, epochs=1, **balanced).last
    assert (whole.step, whole.epoch, whole.learning_rate) == (6, 2, 0.02)
    resumed = classifier()
    resumed.load(file)
    assert resumed.fit(X, Y, epochs=1, **balanced).last == last
    assert (resumed.step, resumed.epoch, resumed.learning_rate) == (6, 2, 0.02)
    assert_same(resumed.state, whole.state)
    unweighted = classifier()
    unweighted.load(file)
    with pytest.raises(FeedError, match=r"epoch 2 .*(.|\n)*loss.total(.|\n)*begin_epoch"):
        unweighted.fit(X, Y, epochs=1)
    unweighted.begin_epoch()
    unweighted.fit(X, Y, epochs=1)
    assert (unweighted.step, unweighted.epoch) == (7, 2)
    copy = pickle.loads(pickle.dumps(whole))
    for each in (whole, copy):
        each.learning_rate = None
        assert each.learning_rate == 0.3
        each.fit(X, Y, epochs=1, **balanced)
    assert_same(copy.state, whole.state)


def test_an_exported_step_takes_the_rate(tmp_path: Path) -> None:
    recipe = training(perceptron(), optimizer=adam(adjustable(1e-2)), batch_size=16)
    path = tmp_path / "step.onnx"
    export(recipe, path, "step")
    state = load_state(tmp_path / "step.state.safetensors")[0]
    assert state["training.adjustable.rate"] == 1e-2
    state["training.adjustable.rate"] = np.array(0.05)
    outputs = Session(path).run({**state, **data(16)})
    ours = Trainer(training(perceptron(), optimizer=adam(1e-2), batch_size=16))
    ours.learning_rate = 0.05
    ours.export(tmp_path / "again.onnx", "step")
    assert load_state(tmp_path / "again.state.safetensors")[0]["training.adjustable.rate"] == 0.05
    ours.fit([data(16)], steps=1)
    assert "training.adjustable.rate.next" not in outputs
    for name, x in ours.params.items():
        np.testing.assert_allclose(outputs[f"{name}.next"], x, 1e-5, 1e-7)


@pytest.mark.parametrize("rate", [0.05, None])
def test_a_step_is_made_of_a_checkpoint_with_a_rate_that_was_set(
    tmp_path: Path, rate: float | None
) -> None:
    recipe = training(perceptron(), optimizer=adam(1e-2), batch_size=16)
    ours, file = Trainer(recipe), tmp_path / "checkpoint.safetensors"
    ours.learning_rate = 0.1
    ours.learning_rate = rate
    ours.save(file)
    export(recipe, tmp_path / "step.onnx", "step", file)
    assert_same(load_state(tmp_path / "step.state.safetensors")[0], ours.state)
    runners = [StepRunner(recipe, file), StepRunner(tmp_path / "step.onnx", file)]
    ours.fit([data(16)], steps=1, verbose=0)
    for runner in runners:
        runner.step(data(16))
        for name, x in ours.state.items():
            np.testing.assert_allclose(runner.state()[name], x, 1e-5, 1e-7)


def test_a_sweep_of_a_trainer_with_a_rate_that_was_set() -> None:
    ours = of({"hidden.*": sgd(0.1), "*": sgd(0.2)})
    found = lr_find(ours, data(), steps=5)
    ours.set_learning_rate(0.3, "*")
    again = lr_find(ours, data(), steps=5)
    np.testing.assert_array_equal(found.losses, again.losses)
