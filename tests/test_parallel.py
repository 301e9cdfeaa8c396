"""Trainings of several processes, which are threads here: what they compute and agree on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import (
    BatchNorm,
    Dense,
    Dropout,
    cross_entropy,
    f32,
    flatten,
    i64,
    model,
    relu,
    reshape,
    training,
)
from nncompile import CompileError, compile_step, compose, evaluate, f64
from nncompile.diagnostics.errors import ModelError, ProcessError, TrainingError
from nncompile.optim import sgd
from nncompile.parallel.processes import Processes
from nncompile.parallel.reducing import Reducing
from nncompile.parallel.runner import share
from nncompile.program.first_row import FIRST_ROW
from nncompile.program.half_stages import stages_of
from nncompile.program.reductions import Reduction
from nncompile.runtime.feeds import Port
from nncompile.train import History, RunDirectory, Trainer
from tests.parallel_checks import (
    ROWS,
    assert_same,
    checked,
    classifier,
    data,
    fitted,
    made,
    plain,
    recipe,
    together,
)
from tests.reduced_steps import parts_of, reduced
from tests.rooms import ROOT
from tests.thread_groups import ThreadGroup, in_threads


@pytest.mark.parametrize(("size", "options"), [(2, {"accumulate": 3}), (4, {"clip_norm": 0.1})])
def test_several_processes_train_as_one_does(size: int, options: dict[str, Any]) -> None:
    compiled = made(compile_step(recipe(**options)))

    def work(parallel: Processes | None) -> tuple[Trainer, History]:
        trainer = Trainer(compiled, threads=1, parallel=parallel)
        return trainer, trainer.fit(data(), validation_data=data(1), epochs=2, verbose=0)

    one, history = work(None)
    for trainer, found in checked(in_threads(size, work)):
        assert_same(trainer.state, one.state)
        for ours, theirs in zip(found.epochs, history.epochs, strict=True):
            assert_same(ours, theirs)


def test_a_number_beside_the_examples_is_that_of_all() -> None:
    @model
    def scaled(x: Any = f32["batch", 4], scale: Any = f32[()]) -> Any:
        return {"loss": (scale * (x >> Dense(2))).sum()}

    compiled = compile_step(training(scaled, optimizer=sgd(0.1), batch_size=4))
    given = {"x": np.ones((9, 4), np.float32), "scale": np.float32(0.5)}

    def work(parallel: Processes | None) -> Trainer:
        trainer = Trainer(compiled, threads=1, parallel=parallel)
        trainer.fit(given, epochs=1, verbose=0)
        return trainer

    for trainer in checked(in_threads(2, work)):
        assert_same(trainer.state, work(None).state)


def test_another_number_of_processes_goes_on(tmp_path: Path) -> None:
    compiled = compile_step(recipe())
    two = together(2, compiled, epochs=1)
    file = two[1].save(tmp_path / "state.safetensors")

    def work(processes: Processes) -> Trainer:
        trainer = Trainer(compiled, threads=1, parallel=processes)
        trainer.load(file)
        return fitted(trainer, steps=9)

    for trainer in checked(in_threads(3, work)):
        one = Trainer(compiled, threads=1)
        one.fit(data(), steps=16, verbose=0)
        assert_same(trainer.state, one.state)
        assert trainer.step == 16


def test_processes_with_other_numbers_of_batches_end_with_a_message() -> None:
    compiled = compile_step(recipe())
    compiled.content("gradient"), compiled.content("following")
    batches = [{name: x[i : i + 7] for name, x in data().items()} for i in range(0, 28, 7)]

    def work(processes: Processes) -> Any:
        own = batches[: 3 + processes.rank]
        Trainer(compiled, threads=1, parallel=processes).fit(
            (batch for batch in own), epochs=1, verbose=0
        )

    for error in in_threads(2, work):
        assert isinstance(error, ProcessError)
        assert "one makes a step where another is done" in str(error)
        assert "as many batches in each process" in str(error)


def test_running_statistics_are_the_same_in_all(tmp_path: Path) -> None:
    def normalized(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
        return plain(image >> BatchNorm(name="norm"), label)

    compiled = compile_step(recipe(normalized))
    trainers = together(2, compiled, epochs=1)
    mean_ = fitted(Trainer(compiled, threads=1), epochs=1).state["norm.running_mean"]
    first, second = (trainer.state["norm.running_mean"] for trainer in trainers)
    np.testing.assert_array_equal(first, second)
    assert np.abs(first - mean_).max() < 0.02 < np.abs(mean_).max()


def synchronized(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    x = reshape(image, (image.shape[0], 2, 3)) >> BatchNorm(name="first", sync=True)
    hidden = x >> flatten >> Dense(8, name="hidden", bias=False)
    hidden = hidden >> BatchNorm(name="second", sync=True) >> relu >> Dropout(0.2)
    return {"loss": cross_entropy(hidden >> Dense(3, name="out"), label, ignore_index=0)}


def test_synchronized_statistics_are_those_of_one_process() -> None:
    """Also with three rows for four processes in the last batch."""
    compiled = compile_step(recipe(synchronized, batch_size=20, optimizer=sgd(0.05)))
    one = fitted(Trainer(compiled, threads=1))
    for trainer in together(4, compiled):
        for path, x in one.state.items():
            np.testing.assert_allclose(trainer.state[path], x, 1e-4, 2e-6, err_msg=path)
    assert np.abs(one.state["second.running_var"] - 1).max() > 0.1


def test_a_gradient_in_stages_is_the_gradient() -> None:
    """In float64, where only the order of the sums differs."""

    def wide(image: Any = f64["batch", 6], label: Any = i64["batch"]) -> Any:
        return synchronized(image, label)

    step = compose(recipe(wide))
    stages = stages_of(step)
    assert [list(stage.sums.values()) for stage in stages] == [[5], [17], [16], []]
    batch = {**data(), FIRST_ROW: 0, "image": data()["image"].astype(np.float64)}
    state = step.initial(0)
    expected = evaluate(step.gradient, {**state, **batch})
    parts = [{**state, **part} for part in parts_of({**data(), "image": batch["image"]}, (11, 32))]
    for stage in stages:
        for known in parts:
            known.update(evaluate(stage.graph, known))
        for name in stage.sums:
            total = sum(known[name] for known in parts)
            for known in parts:
                known[name] = total
    for name in step.reductions.gradients:
        for known in parts:
            known[name] = known[name] / known["loss.batch_weight"]
    found = reduced(step.reductions.by_name, parts, state)
    for name, x in found.items():
        np.testing.assert_allclose(x, expected[name], 1e-10, 1e-13, err_msg=name)


def test_the_first_process_writes(tmp_path: Path) -> None:
    compiled = compile_step(recipe(plain))
    compiled.content("gradient"), compiled.content("following")
    calls: list[int] = []

    def run(processes: Processes, epochs: int) -> Trainer:
        trainer = Trainer(compiled, threads=1, parallel=processes)
        run = RunDirectory(tmp_path / "run", resume=True, exports=False)
        seen = [run, lambda event: calls.append(processes.rank)]
        trainer.fit(data(), epochs=epochs, verbose=0, callbacks=seen)
        return trainer

    checked(in_threads(2, lambda p: run(p, 1)))
    assert (tmp_path / "run/log.csv").read_text().count("\n") == 2
    assert sorted(calls) == [0] * 8 + [1] * 8
    # The others go on from what it finds.
    for trainer in checked(in_threads(3, lambda p: run(p, 2))):
        assert (trainer.epoch, trainer.step) == (2, 14)
        assert_same(trainer.params, fitted(Trainer(compiled, threads=1)).params)


def test_an_epoch_that_one_was_told_of_is_told_again(tmp_path: Path) -> None:
    """A state that was written while the first process told of an epoch, as one was killed."""
    compiled = compile_step(recipe(plain))
    compiled.content("gradient"), compiled.content("following")

    def work(processes: Processes, epochs: int, breaks: bool) -> tuple[int, list[int]]:
        told: list[int] = []

        class Waiting:
            def on_epoch(self, event: Any) -> None:
                if breaks and event.epoch == 1:
                    raise KeyboardInterrupt
                told.append(event.step)

        trainer = Trainer(compiled, threads=1, parallel=processes)
        run = RunDirectory(tmp_path / "run", resume=True, exports=False)
        trainer.fit(data(), epochs=epochs, verbose=0, callbacks=[Waiting(), run])
        return trainer.step, told

    for error in in_threads(2, lambda p: work(p, 2, breaks=True)):
        assert isinstance(error, KeyboardInterrupt)
    assert checked(in_threads(2, lambda p: work(p, 2, breaks=False))) == [(14, [7, 14])] * 2


def failing(size: int, work: Any) -> list[CompileError]:
    errors = in_threads(size, work)
    assert all(isinstance(error, CompileError) for error in errors), errors
    return errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"data": 1}, "the data differ"),
        ({"seed": 1}, "the seeds differ"),
        ({"function": classifier}, "the models differ"),
        ({"batch_size": 3}, "the batches differ"),
    ],
)
def test_what_processes_do_not_share_is_named(change: dict[str, Any], message: str) -> None:
    steps = {f: compile_step(recipe(f)) for f in (plain, classifier)}

    def work(processes: Processes) -> None:
        own = change if processes.rank == 1 else {}
        step = steps[own.get("function", plain)]
        trainer = Trainer(step, threads=1, seed=own.get("seed", 0), parallel=processes)
        size = own.get("batch_size")
        trainer.fit(data(own.get("data", 0)), batch_size=size, epochs=1, verbose=0)

    for error in failing(3, work):
        assert isinstance(error, ModelError)
        assert message in str(error)
        assert "process 1" in str(error)


def test_a_state_that_differs_is_named() -> None:
    step = compile_step(recipe(plain))

    def changing(processes: Processes, during: bool) -> None:
        trainer = Trainer(step, threads=1, parallel=processes)
        bias = np.full(3, float(processes.rank), np.float32)
        if not during:
            trainer.set_params({"out.bias": bias})
        callback = (lambda event: event.trainer.set_params({"out.bias": bias})) if during else ()
        trainer.fit(data(), epochs=1, verbose=0, callbacks=callback)

    for during in (False, True):
        for error in failing(2, lambda p, d=during: changing(p, d)):
            assert isinstance(error, TrainingError)
            assert "out.bias  process 0 ≠ process 1" in str(error)


def test_a_process_that_fails_ends_all() -> None:
    step = compile_step(recipe(plain))

    def work(processes: Processes) -> None:
        def break_(event: Any) -> None:
            if processes.rank == 2 and event.step == 3:
                raise ModelError("no disk", hint="buy one")

        trainer = Trainer(step, threads=1, parallel=processes)
        try:
            trainer.fit(data(), epochs=2, verbose=0, callbacks=break_)
        finally:
            assert trainer.step == 3

    first, second, own = failing(3, work)
    assert isinstance(own, ModelError)
    for error in (first, second):
        assert isinstance(error, ProcessError)
        assert "process 2 failed: ModelError: no disk" in str(error)
        assert "hint: buy one" in str(error)


def test_a_process_that_does_not_answer_is_not_waited_for() -> None:
    step = compile_step(recipe(plain))
    step.content("gradient"), step.content("following")

    def work(processes: Processes) -> None:
        if processes.rank == 0:
            fitted(Trainer(step, threads=1, parallel=processes))

    error, _ = in_threads(2, work, seconds=0.5)
    assert isinstance(error, ProcessError)
    assert "has not answered" in str(error)


def test_a_loss_that_is_not_finite_says_of_which_rows() -> None:
    step = compile_step(recipe(plain, batch_size=ROWS))
    examples = data()
    examples["image"][30] = np.inf

    def work(processes: Processes) -> None:
        trainer = Trainer(step, threads=1, parallel=processes)
        trainer.fit(examples, epochs=1, verbose=0, shuffle=False)

    for error in failing(3, work):
        assert isinstance(error, TrainingError)
        assert ("process 2", "rows 28 to 42 of the batch") in error.rows
        assert "image[30, 0]" in str(error)


def test_what_cannot_be_reduced_is_refused() -> None:
    def quotient(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
        return {"loss": plain(image, label)["loss"].sum() / image.sum()}

    def across(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
        return plain((image.T >> Dropout(0.5)).T, label)

    for function, message in (
        (quotient, "it is neither a mean nor a sum over the examples"),
        (across, "the examples are not its first axis"),
    ):
        declared = recipe(function)
        (error,) = failing(1, lambda p, d=declared: Trainer(d, parallel=p))
        assert message in str(error)


def test_rows_are_shared_without_gaps() -> None:
    for count in (0, 1, 7, 64):
        for size in (1, 2, 5):
            spans = [share(count, rank, size) for rank in range(size)]
            assert [a for a, _ in spans[1:]] == [b for _, b in spans[:-1]]
            assert (spans[0][0], spans[-1][1]) == (0, count)
            assert max(b - a for a, b in spans) - min(b - a for a, b in spans) <= 1


def test_tensors_are_reduced_as_their_rules_say() -> None:
    rules = {
        "w": Reduction("sum"),
        "long": Reduction("mean", "w"),
        "half": Reduction("mean", "w"),
        "plain": Reduction("mean"),
        "count": Reduction("sum"),
        "seen": Reduction("max"),
        "moved": Reduction("change"),
        "rows": Reduction("concatenate"),
    }
    types = [
        *(("w", "f8", ()), ("long", "f4", (3, 50)), ("half", "f2", (70,)), ("plain", "f8", ())),
        *(("count", "i8", ()), ("seen", "i8", (2,)), ("moved", "f4", (80,))),
        ("rows", "f4", ("batch", 2)),
    ]
    ports = [Port(name, np.dtype(kind), shape) for name, kind, shape in types]
    weights, old = (2.0, 0.0, 6.0), np.full(80, 5.0)

    def work(rank: int, group: ThreadGroup, given: bool) -> dict[str, Any]:
        reducing = Reducing(group, rules, ports, ["long"])
        for name, view in reducing.direct.items():
            view[...] = np.nan if rank == 1 and name == "long" else rank
        reducing.direct["w"][...] = weights[rank]
        shapes = [[3 - rank if n == "batch" else n for n in port.shape] for port in ports]
        tensors = {
            port.name: np.full(shape, rank, port.dtype)
            for port, shape in zip(ports, shapes, strict=True)
        }
        tensors["w"] = np.array(weights[rank])
        reducing.direct["moved"][...] = 5 + rank
        if rank == 1:
            tensors["half"][...] = np.nan
        return reducing.reduced(tensors if given else None, lambda name: old)

    def run(processes: Processes) -> dict[str, Any]:
        return work(processes.rank, processes.group, given=processes.rank != 1 or all_given)

    for all_given in (True, False):
        for found in checked(in_threads(3, run)):
            assert found["w"] == 8
            assert found["long"].dtype == np.float32
            np.testing.assert_array_equal(found["long"], np.full((3, 50), 1.5, np.float32))
            np.testing.assert_array_equal(found["half"], np.full(70, 1.5, np.float16))
            assert found["plain"] == (1 if all_given else 2 / 3)
            assert found["count"] == (3 if all_given else 2)
            np.testing.assert_array_equal(found["seen"], [2, 2])
            np.testing.assert_array_equal(found["moved"], np.full(80, 8 if all_given else 7))
            expected = [0, 0, 0, 1, 1, 2] if all_given else [0, 0, 0, 2]
            np.testing.assert_array_equal(found["rows"][:, 0], expected)


def test_one_process_imports_nothing_of_it() -> None:
    package = ROOT / "nncompile"
    users = [path for path in package.rglob("*.py") if path.parent.name != "parallel"]
    text = {path: path.read_text(encoding="utf-8") for path in users}
    found = [path for path, content in text.items() if "from nncompile.parallel" in content]
    assert found == [package / "__init__.py"]  # where it is imported on demand
