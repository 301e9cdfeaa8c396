"""Steps in two runs, whose state is held once: like those in one, with less memory."""

from __future__ import annotations

import gc
import pickle
import threading
import time
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import (
    Dense,
    Dropout,
    Value,
    adam,
    assign,
    cast,
    cosine,
    ema,
    f32,
    f64,
    i64,
    lbfgs,
    lion,
    mean,
    model,
    muon,
    parameter,
    plateau,
    random_normal,
    sgd,
    training,
)
from nncompile.compiler import compile as compile_module
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import FeedError
from nncompile.runtime.halves import HalvesRunner
from nncompile.train import EarlyStopping
from tests.halved_steps import assert_near, examples, of, recipe, whole
from tests.native_checks import needs_library
from tests.small_models import assert_same, data


@pytest.fixture(autouse=True)
def halves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_module, "LARGE", 0)


RECIPES: dict[str, dict[str, Any]] = {
    "adam": {},
    "clipped": {"clip_norm": 1.0},
    "accumulated": {"accumulate": 3},
    "averaged": {"average": ema(0.9)},
    "lion": {"optimizer": lion(1e-3)},
    "muon and others": {"optimizer": {"*.weight": muon(1e-2), "*": sgd(1e-2, momentum=0.9)}},
    "a rate that follows": {"optimizer": adam(plateau(1e-2, patience=1))},
    "vectors of all": {"optimizer": lbfgs(0.1)},
}


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=needs_library)])
@pytest.mark.parametrize("name", RECIPES)
def test_two_runs_are_one_step(name: str, native: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Running statistics, dropout and all that optimizers keep included, for two sizes of
    batches."""
    compiled = compile_step(recipe(**RECIPES[name]))
    one, ours = whole(compiled, monkeypatch, native=native), of(compiled, native=native)
    histories = [trainer.fit(examples(), epochs=2, verbose=0) for trainer in (one, ours)]
    assert_near(ours.state, one.state)
    assert ours.step == one.step == 12
    for there, here in zip(*(h.epochs for h in histories), strict=True):
        np.testing.assert_allclose(here["loss"], there["loss"], rtol=1e-5)
    assert (ours.library is not None) == native


def test_a_state_is_held_once() -> None:
    runner = of(recipe())._loop.runner
    assert runner._shared | {"step"} == runner.state_map.keys()
    assert not runner._apart
    first, second = runner._sets
    assert all(first[name] is second[name] for name in runner._shared)


def test_small_states_and_other_runners_are_as_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_step(recipe())
    kinds = {
        "in place": compiled.runner(in_place=True),
        "ahead": compiled.runner(ahead=2),
        "profiled": compiled.runner(profile=str(tmp_path / "steps")),
    }
    monkeypatch.setattr(
        compile_module, "LARGE", 1 + sum(x.nbytes for x in kinds["ahead"].state().values())
    )
    kinds["small"] = compiled.runner()
    for name, runner in kinds.items():
        assert not isinstance(runner, HalvesRunner), name
        runner.session.onnxruntime.end_profiling() if name == "profiled" else None


def test_trainings_go_on_from_files_and_copies(tmp_path: Any) -> None:
    ours = of(recipe())
    ours.fit(examples(), verbose=0)
    ours.save(tmp_path / "state.safetensors")
    again = of(recipe())
    again.load(tmp_path / "state.safetensors")
    copy = pickle.loads(pickle.dumps(ours))
    assert isinstance(copy._loop.runner, HalvesRunner)
    for trainer in (ours, again, copy):
        trainer.fit(examples(), verbose=0)
    assert_same(again.state, ours.state)
    assert_same(copy.state, ours.state)


def test_data_that_do_not_fit_are_told_as_ever() -> None:
    @model
    def two(x: Value = f32["batch", 4], unused: Value = f32["batch"]) -> dict[str, Value]:
        return {"mean": unused.mean() * 0.0, "loss": (x >> Dense(1)).mean()}

    runner = compile_step(training(two, minimize="loss", optimizer=adam(1e-2))).runner(threads=1)
    batch = {"x": np.ones((3, 4), np.float32), "unused": np.ones(3, np.float32)}
    runner.step(batch)
    assert {port.name for port in runner.ports} == {"x", "unused"}
    for wrong in (
        {"x": batch["x"]},
        {**batch, "other": batch["x"]},
        {**batch, "x": np.ones((3, 5), np.float32)},
        {**batch, "unused": np.ones(4, np.float32)},
        {**batch, "x": np.ones((0, 4), np.float32), "unused": np.ones(0, np.float32)},
        3,
    ):
        with pytest.raises(FeedError):
            runner.step(wrong)  # type: ignore[arg-type]  # what it refuses
    assert runner.steps == 1


def test_a_loss_of_no_data_knows_their_number() -> None:
    """The gradient half then reads an input for its size alone."""

    @model
    def generator(x: Value = f32["batch", 4]) -> dict[str, Value]:
        noise = random_normal((x.shape[0], 3))
        return {"loss": ((noise >> Dense(2)) ** 2).mean(), "seen": x.mean()}

    ours = of(training(generator, minimize="loss", optimizer=sgd(0.1), batch_size=4))
    history = ours.fit({"x": data(16)["x"]}, epochs=2, verbose=0)
    assert history.epochs[1]["loss"] < history.epochs[0]["loss"]


def test_parameters_of_no_elements() -> None:
    @model
    def net(x: Value = f64["batch", 2]) -> dict[str, Value]:
        empty = parameter("empty", (0, 2), dtype=f64)
        weight = parameter("weight", 2, 0.5, dtype=f64)
        return {"loss": mean((x * weight) ** 2) + (empty**2).sum()}

    ours = of(training(net, optimizer=sgd(0.1), batch_size=4))
    ours.fit({"x": np.random.default_rng(0).normal(size=(8, 2))}, verbose=0)
    assert ours.params["empty"].shape == (0, 2)


def test_the_count_of_steps_stays_that_of_the_state() -> None:
    """Where another state is loaded while an update is yet to be made."""
    ours = of(recipe())
    ours.fit(examples(), steps=3, verbose=0)
    ours.set_params(ours.params)
    ours.fit(examples(), epochs=1, verbose=0)
    assert ours.step == ours.state["step"] == 6
    ours = of(recipe())
    ours.fit(
        examples(), epochs=4, verbose=0, callbacks=[EarlyStopping("loss", patience=1, min_delta=9)]
    )
    assert ours.step == ours.state["step"]
    ours.fit(examples(), epochs=1, verbose=0)
    assert ours.step == ours.state["step"]


def test_memory_that_was_used_before_says_nothing_of_an_update() -> None:
    """The set that is not read first holds the number of the first state."""
    scheduled = recipe(optimizer=sgd(cosine(0.1, steps=9)))
    for number in (0, 46):
        compiled = compile_step(scheduled)
        state = {**compiled.source.initial(), "step": np.array(number)}
        runner = compiled.runner(state, threads=1, native=False)
        assert [int(buffers["step"].numpy()) for buffers in runner._sets] == [number, number]
        runner.step(examples(8))
        assert runner.can_undo and runner.steps == 1


def test_who_looks_from_another_thread_makes_no_second_update() -> None:
    ours = compile_step(recipe()).runner(threads=1)
    for _ in range(2):
        ours.step(examples(8))
    run, calls, begun, goes_on = ours._runs[ours._turn], [0], threading.Event(), threading.Event()

    def slow() -> None:
        calls[0] += 1
        begun.set()
        goes_on.wait(9)
        run()

    ours._runs = (slow, slow)
    threads = [threading.Thread(target=ours.views) for _ in range(3)]
    for thread in threads:
        thread.start()
    assert begun.wait(9)
    time.sleep(0.1)  # for the others to get as far
    goes_on.set()
    for thread in threads:
        thread.join()
    assert calls == [1]
    assert ours.steps == ours.state()["step"] == 2


def test_a_runner_is_gone_with_its_last_name() -> None:
    """Without a search for circles, as its state is large."""
    runner = compile_step(recipe()).runner(threads=1)
    runner.step(examples(8))
    buffer, known = weakref.ref(runner), weakref.ref(runner._sets[0]["dense.weight"])
    gc.disable()
    try:
        del runner
        assert buffer() is None and known() is None
    finally:
        gc.enable()


def test_an_input_may_be_called_as_one_of_the_halves() -> None:
    @model
    def net(x: Value = f32["batch", 4], first_row: Value = i64[()]) -> dict[str, Value]:
        return {"loss": (x >> Dropout(0.5) >> Dense(1)).mean(), "row": cast(first_row, f32)}

    runner = compile_step(training(net, minimize="loss", optimizer=sgd(0.1))).runner(threads=1)
    assert isinstance(runner, HalvesRunner)
    runner.step({"x": np.ones((3, 4), np.float32), "first_row": np.array(7)})
    assert runner.metrics()["row"] == 7


def test_frozen_weights_are_there_once() -> None:
    runner = of(recipe(freeze="dense.*"))._loop.runner
    first, second = runner._sets
    assert first["dense.weight"] is second["dense.weight"]


def test_a_state_in_a_file_begins_a_training(tmp_path: Path) -> None:
    ours = of(recipe())
    ours.fit(examples(), verbose=0)
    ours.save(tmp_path / "state.safetensors")
    runner = compile_step(recipe()).runner(tmp_path / "state.safetensors", threads=1)  # type: ignore[arg-type]  # a file, as StepRunner takes it
    assert_same(runner.state(), ours.state)


def test_a_recipe_without_gradients_is_one_run() -> None:
    @model
    def net(x: Value = f32["batch", 4]) -> dict[str, Value]:
        return {"y": x >> Dense(1, name="out")}

    runner = compile_step(
        training(net, updates=[assign("out.bias", np.ones(1, np.float32))])
    ).runner(threads=1)
    assert not isinstance(runner, HalvesRunner)
    runner.step({"x": np.ones((2, 4), np.float32)})
    assert runner.state()["out.bias"] == 1
