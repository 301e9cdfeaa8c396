"""Processes that accumulate: each adds up its own gradients, and all add them up once a window."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dsl import BatchNorm, Dense, cast, cross_entropy, f32, i64, parameter, relu, zeros
from nncompile import CompileError, compile_step
from nncompile.optim import adam, sgd
from nncompile.parallel.collected import CollectedStepRunner
from nncompile.parallel.processes import Processes
from nncompile.program.loss_scaling import grad_scaler
from nncompile.program.recipe import assign
from nncompile.train import RunDirectory, Trainer
from tests.parallel_checks import assert_same, checked, data, ended_at, fitted, made, recipe
from tests.thread_groups import ThreadGroup, in_threads


def deep(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    hidden = image >> Dense(40, relu, name="one") >> Dense(30, name="two")
    return {"loss": cross_entropy(hidden >> Dense(3, name="out"), label, ignore_index=0)}


def synchronized(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    return deep(image >> BatchNorm(sync=True, name="norm"), label)


def summed(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    hidden = image >> Dense(20, relu, name="one")
    return {"loss": cross_entropy(hidden >> Dense(3, name="out"), label, reduction="sum")}


@functools.cache
def windowed(function: Any = deep, accumulate: int = 4, **options: Any) -> Any:
    return made(compile_step(recipe(function, accumulate=accumulate, **options)))


KINDS: list[dict[str, Any]] = [{}, {"shard_optimizer": True}, {"overlap": 1000}]


@pytest.mark.parametrize("kind", KINDS)
def test_long_gradients_are_reduced_once_in_a_window(
    kind: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = windowed()
    monkeypatch.delattr(os, "memfd_create", raising=False)  # or they lie in memory that all see
    sent: list[int] = []

    def counted(name: str) -> None:
        call = getattr(ThreadGroup, name)

        def counting(group: Any, *arrays: Any, **options: Any) -> Any:
            if group.rank == 0:
                sent.append(sum(x.nbytes for x in arrays if isinstance(x, np.ndarray)))
            return call(group, *arrays, **options)

        monkeypatch.setattr(ThreadGroup, name, counting)

    for name in ("allreduce", "reduce_scatter", "gather_parts"):
        counted(name)
    bytes_of_steps: list[int] = []

    def work(processes: Processes) -> None:
        def note(event: Any) -> None:
            if processes.rank == 0:
                if event.kind == "step":
                    bytes_of_steps.append(sum(sent))
                sent.clear()  # states are compared after an epoch

        trainer = Trainer(compiled, threads=1, parallel=processes)
        trainer.fit(data(), steps=8, verbose=0, callbacks=note)

    checked(in_threads(2, work, **kind))
    step = compiled.source
    long = [x for x in (step.state[p] for p in step.model.parameters) if np.prod(x.shape) > 64]
    whole = sum(4 * int(np.prod(x.shape)) for x in long)
    assert whole > 5000
    for number, count in enumerate(bytes_of_steps[1:], 2):  # before the first all is compared
        assert count > whole if number % 4 == 0 else count < 400, (number, count)


@pytest.mark.parametrize(
    ("size", "function", "options", "kind"),
    [
        (2, deep, {"clip_norm": 0.05}, KINDS[1]),
        (3, deep, {"clip_norm": 0.05}, KINDS[2]),
        (3, summed, {"optimizer": sgd(0.01, 0.9)}, KINDS[1]),
        (3, synchronized, {"optimizer": adam(1e-3)}, KINDS[0]),
    ],
)
def test_every_state_of_a_window_is_that_of_one_process(
    size: int, function: Any, options: dict[str, Any], kind: dict[str, Any]
) -> None:
    """Read by the first process alone, with processes that have no rows."""
    compiled = windowed(function, 3, **options)
    states: dict[bool, dict[int, Any]] = {True: {}, False: {}}

    def work(processes: Processes | None) -> Trainer:
        def read(event: Any) -> None:
            if processes is None or processes.is_first:
                states[processes is None][event.step] = event.trainer.state

        trainer = Trainer(compiled, threads=1, parallel=processes)
        if processes is not None:
            assert isinstance(trainer._loop.runner, CollectedStepRunner)
        return fitted(trainer, callbacks=read)

    one = work(None)
    trainers = checked(in_threads(size, work, seconds=60.0, **kind))
    rtol, atol = (2e-4, 5e-6) if options.get("optimizer") else (2e-6, 1e-6)
    assert states[True].keys() == states[False].keys() == {*range(1, 15)}
    for number, state in states[True].items():
        is_open = bool(number % 3)
        assert state["one.weight.accumulated"].any() == is_open
        for path, x in state.items():
            found = states[False][number][path]
            np.testing.assert_allclose(found, x, rtol, atol, err_msg=f"{path} {number}")
    for trainer in trainers:
        for path, x in trainers[0].state.items():
            np.testing.assert_array_equal(trainer.state[path], x, err_msg=path)
    assert one.step == 14


def test_another_number_of_processes_goes_on_within_a_window(tmp_path: Path) -> None:
    compiled = windowed()

    def work(processes: Processes | None, steps: int) -> Trainer:
        trainer = Trainer(compiled, threads=1, parallel=processes)
        often = RunDirectory(
            tmp_path / "run", resume=True, exports=False, checkpoint_every="3steps"
        )
        trainer.fit(data(), steps=steps, verbose=0, callbacks=often)
        return trainer

    one = fitted(Trainer(compiled, threads=1), epochs=None, steps=18)
    for size, steps in ((2, 6), (3, 9), (2, 10), (1, 18)):
        trainers = checked(
            in_threads(size, lambda p, n=steps: work(p, n), shard_optimizer=size > 2)
        )
    for trainer in trainers:
        assert trainer.step == 18
        assert_same(trainer.state, one.state)


def test_a_run_goes_on_from_an_epoch_to_the_same_bits(tmp_path: Path) -> None:
    """Of seven steps, three of them of a window; reading a state changes nothing."""
    compiled = windowed()
    states: list[Any] = []

    def work(processes: Processes, cut: bool) -> Trainer:
        def read(event: Any) -> None:
            if processes.is_first:
                states.append(event.trainer.state)

        trainer = Trainer(compiled, threads=1, parallel=processes)
        if not cut:
            return fitted(trainer, epochs=3, callbacks=read)
        for epochs in range(1, 4):
            run = RunDirectory(tmp_path / "run", resume=True, exports=False)
            trainer = Trainer(compiled, threads=1, parallel=processes)
            fitted(trainer, epochs=epochs, callbacks=run)
        return trainer

    whole, _ = checked(in_threads(2, lambda p: work(p, cut=False)))
    assert sum(state["one.weight.accumulated"].any() for state in states) > 12
    for trainer in checked(in_threads(2, lambda p: work(p, cut=True))):
        assert trainer.step == 21
        for path, x in whole.state.items():
            np.testing.assert_array_equal(trainer.state[path], x, err_msg=path)


def test_steps_that_are_undone_within_a_window() -> None:
    compiled = windowed()
    bad = data()
    bad["image"][next(i for i in range(7, 14) if bad["label"][i])] = np.inf

    def work(processes: Processes | None) -> Trainer:
        trainer = Trainer(compiled, threads=1, parallel=processes, in_place=False)
        trainer.fit(data(), steps=9, verbose=0)
        trainer.begin_epoch()
        with pytest.raises(CompileError, match="is nan"):
            trainer.fit(bad, epochs=1, verbose=0, shuffle=False)
        trainer.begin_epoch()
        accumulated = trainer.state["out.weight.accumulated"]
        trainer.set_params({"out.weight.accumulated": accumulated + np.float32(0.01)})
        trainer.learning_rate = 0.03
        return fitted(trainer, epochs=1)

    one = work(None)
    for trainer in checked(in_threads(2, work, shard_optimizer=True)):
        assert_same(trainer.state, one.state)


@pytest.mark.parametrize("interrupted", [0, 1])
def test_what_was_summed_up_is_written_when_a_process_fails(
    interrupted: int, tmp_path: Path
) -> None:
    compiled = windowed()

    trainers = checked(in_threads(2, ended_at(6, compiled, tmp_path / "run", interrupted)))
    one = fitted(Trainer(compiled, threads=1), epochs=None, steps=6).state
    (file,) = (tmp_path / "run/checkpoints").glob("*.safetensors")
    loaded = Trainer(compiled, threads=1)
    loaded.load(file)
    assert one["one.weight.accumulated"].any()
    for trainer in (loaded, *trainers):
        assert_same(trainer.state, one)


def test_a_batch_that_weighs_nothing_ends_a_window() -> None:
    compiled = windowed()
    rows = data()
    rows["label"][:] = 1
    rows["label"][7:10] = rows["label"][21:28] = 0  # a part of the second, and the fourth

    def work(processes: Processes | None) -> Trainer:
        trainer = Trainer(compiled, threads=1, parallel=processes)
        trainer.fit(rows, epochs=2, verbose=0, shuffle=False)
        return trainer

    one = work(None)
    for trainer in checked(in_threads(2, work)):
        assert_same(trainer.state, one.state)
        assert np.isfinite(trainer.params["out.weight"]).all()


def test_steps_in_place() -> None:
    compiled = windowed()
    one = fitted(Trainer(compiled, threads=1))
    for trainer in checked(
        in_threads(2, lambda p: fitted(Trainer(compiled, threads=1, parallel=p, in_place=True)))
    ):
        assert_same(trainer.state, one.state)


def counted(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    parameter("count", (), init=zeros)
    weighed = (image >> Dense(20, name="one")) * cast(label + 1, f32)[:, None]
    return {"loss": weighed.sum()}


def test_a_rule_is_taken_back_where_the_sums_of_any_process_are_not_finite() -> None:
    """In the rest of the window, too, where that process has no rows. Of seven batches the third,
    fifth and sixth are too large, each in the rows of one process."""
    updates = [
        *recipe(counted, optimizer=sgd(1e-4)).updates,
        assign("count", lambda v: v["count"] + 1),
    ]
    options: dict[str, Any] = {"updates": updates, "optimizer": None, "accumulate": 3}
    options |= {"precision": "f16", "emulate": True, "scaler": grad_scaler(init_scale=1024)}
    compiled = made(compile_step(recipe(counted, **options)))
    assert compiled.source.sums
    rows = data()
    rows["image"] = np.sign(rows["image"])  # of which float16 has the sums
    rows["image"][[14, 32, 35]] = 8e3
    counts: dict[bool, list[float]] = {True: [], False: []}

    def work(processes: Processes | None) -> Trainer:
        def note(event: Any) -> None:
            if processes is None or processes.is_first:
                counts[processes is None].append(float(event.trainer.state["count"]))

        trainer = Trainer(compiled, threads=1, parallel=processes)
        trainer.fit(rows, epochs=2, verbose=0, shuffle=False, callbacks=note)
        return trainer

    one = work(None)
    trainers = checked(in_threads(3, work, seconds=60.0, **KINDS[1]))
    assert counts[False] == counts[True]
    steps = [counts[True][i] for i in (*range(7), *range(8, 15))]  # without the ends of epochs
    assert steps == [1, 2, 2, 3, 3, 3, 4, 5, 6, 6, 6, 6, 6, 6]
    settled = {n: x for n, x in one.state.items() if not n.endswith(".accumulated")}
    for trainer in trainers:
        assert_same(trainer.state, settled)


def test_states_by_time_are_written_between_windows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the moment would be seen in the rounding of what follows."""
    compiled = windowed()
    now = [0.0]

    def clock() -> float:
        now[0] += 400.0
        return now[0]

    monkeypatch.setattr("nncompile.train.intervals.time", SimpleNamespace(monotonic=clock))

    def work(processes: Processes) -> None:
        run = RunDirectory(tmp_path / "run", keep=9, exports=False, checkpoint_every="5m")
        trainer = Trainer(compiled, threads=1, parallel=processes)
        trainer.fit(data(), steps=10, verbose=0, callbacks=run)

    checked(in_threads(2, work))
    names = sorted(path.stem for path in (tmp_path / "run/checkpoints").glob("*.safetensors"))
    assert [int(name.removeprefix("step-")) for name in names] == [4, 8, 10]
