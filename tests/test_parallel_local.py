"""Processes that make steps with their own rows, and average their states, against numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import BatchNorm, Dense, f32, mse
from nncompile import compile_step
from nncompile.diagnostics.errors import ModelError, TrainingError
from nncompile.optim import adam, sgd
from nncompile.parallel.processes import Processes
from nncompile.train import Trainer
from tests.parallel_checks import assert_same, checked, recipe
from tests.parallel_checks import data as classes
from tests.parallel_checks import recipe as classifier
from tests.thread_groups import in_threads

ROWS, BATCH, EVERY, RATE, MOMENTUM = 43, 10, 3, 0.1, 0.9


def linear(x: Any = f32["batch", 4], y: Any = f32["batch", 2]) -> Any:
    return {"loss": mse(x >> Dense(2, name="out"), y)}


def rows() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(ROWS, 4)).astype(np.float32)
    return {"x": x, "y": (x[:, :2] ** 2).astype(np.float32)}


def by_hand(start: dict[str, Any], size: int, epochs: int) -> tuple[dict[str, Any], list[float]]:
    """The parameters and momenta, and the loss of each epoch, by federated averaging in float64."""
    data = {name: x.astype(np.float64) for name, x in rows().items()}
    every = [{n: x.astype(np.float64) for n, x in start.items()} for _ in range(size)]
    seen, losses, step = np.zeros(size), [], 0

    def average() -> None:
        for name in start:
            mean = sum(s[name] * n for s, n in zip(every, seen, strict=True)) / seen.sum()
            for state in every:
                state[name] = mean
        seen[:] = 0

    for _ in range(epochs):
        total = 0.0
        for first in range(0, ROWS, BATCH):
            count = min(BATCH, ROWS - first)
            for rank, state in enumerate(every):
                low, high = count * rank // size, count * (rank + 1) // size
                x, y = (data[n][first + low : first + high] for n in ("x", "y"))
                error = x @ state["out.weight"] + state["out.bias"] - y
                total += (error**2).mean() * len(x)
                gradient = 2 * error / error.size
                for name, g in (("out.weight", x.T @ gradient), ("out.bias", gradient.sum(0))):
                    state[f"{name}.u"] = MOMENTUM * state[f"{name}.u"] + RATE * g
                    state[name] = state[name] - state[f"{name}.u"]
                seen[rank] += len(x)
            step += 1
            if step % EVERY == 0:
                average()
        if seen.any():
            average()
        losses.append(total / ROWS)
    return every[0], losses


def local(size: int, work: Any, every: int = EVERY) -> list[Any]:
    return in_threads(size, work, every=every)


def fitted(compiled: Any, parallel: Processes, **options: Any) -> tuple[Trainer, Any]:
    trainer = Trainer(compiled, threads=1, parallel=parallel)
    history = trainer.fit(rows(), shuffle=False, verbose=0, **options)
    return trainer, history


@pytest.fixture(scope="module")
def compiled() -> Any:
    made = compile_step(recipe(linear, optimizer=sgd(RATE, MOMENTUM), batch_size=BATCH))
    made.content("gradient"), made.content("following")
    return made


@pytest.mark.parametrize("size", [2, 3])
def test_federated_averaging_is_that_of_a_loop(compiled: Any, size: int) -> None:
    state = Trainer(compiled, threads=1).state
    start = {n: x for n, x in state.items() if x.dtype == np.float32}
    expected, losses = by_hand(start, size, 2)
    first, *others = checked(local(size, lambda p: fitted(compiled, p, epochs=2)))
    assert len(expected) == 4
    for name, x in expected.items():
        np.testing.assert_allclose(first[0].state[name], x, 2e-5, 1e-6, err_msg=name)
    np.testing.assert_allclose([e["loss"] for e in first[1].epochs], losses, 1e-5)
    for other in others:
        for name, x in first[0].state.items():
            np.testing.assert_array_equal(other[0].state[name], x, err_msg=name)
        assert other[1].epochs == first[1].epochs


def test_processes_are_apart_between_averagings(compiled: Any) -> None:
    seen: dict[int, list[Any]] = {0: [], 1: []}

    def work(parallel: Processes) -> None:
        def note(event: Any) -> None:
            seen[parallel.rank].append(event.trainer.params["out.weight"])

        fitted(compiled, parallel, epochs=1, callbacks=[note])

    checked(local(2, work))
    equal = [np.array_equal(a, b) for a, b in zip(seen[0], seen[1], strict=True)]
    # After five steps, and of the epoch.
    assert equal == [False, False, True, False, False, True]


def test_a_run_goes_on_from_an_averaging(compiled: Any, tmp_path: Path) -> None:
    def work(parallel: Processes, resumed: bool) -> Trainer:
        trainer = Trainer(compiled, threads=1, parallel=parallel)
        if not resumed:
            save = lambda e: e.trainer.save(tmp_path / "state") if e.step == 6 else None  # noqa: E731
            trainer.fit(rows(), epochs=3, verbose=0, callbacks=[save])
            return trainer
        trainer.load(tmp_path / "state")
        trainer.fit(rows(), epochs=2, verbose=0)
        return trainer

    whole = checked(local(2, lambda p: work(p, resumed=False)))
    for trainer in checked(local(2, lambda p: work(p, resumed=True))):
        assert trainer.step == 15
        for name, x in whole[0].state.items():
            np.testing.assert_array_equal(trainer.state[name], x, err_msg=name)


def test_masks_differ_and_few_rows_are_shared() -> None:
    """With dropout, running means, adaptive rates, and a last batch of one row for two."""
    compiled = compile_step(classifier(optimizer=adam(0.01)))
    compiled.content("gradient"), compiled.content("following")

    def work(parallel: Processes) -> Trainer:
        trainer = Trainer(compiled, threads=1, parallel=parallel)
        trainer.fit(classes(), epochs=2, verbose=0)
        return trainer

    first, second = checked(local(2, work, every=2))
    assert_same(first.state, second.state)
    # One that meets at each step is near, as it averages what others add up.
    near, _ = checked(local(2, work, every=1))
    assert np.abs(near.params["out.weight"] - first.params["out.weight"]).max() < 0.05


def test_what_each_step_has_to_share_is_refused() -> None:
    def normalized(x: Any = f32["batch", 4], y: Any = f32["batch", 2]) -> Any:
        return linear(x >> BatchNorm(sync=True), y)

    (error,) = local(2, lambda p: Trainer(recipe(normalized), parallel=p))[:1]
    assert isinstance(error, ModelError)
    assert "which meet after every 3" in str(error)
    (error,) = in_threads(1, lambda p: Processes(p.group, True, 3))
    assert isinstance(error, ModelError)
    assert "give one of them" in str(error)


def test_a_loss_that_is_not_finite_ends_all(compiled: Any) -> None:
    bad = rows()
    bad["x"][9] = np.inf

    def work(parallel: Processes) -> None:
        trainer = Trainer(compiled, threads=1, parallel=parallel)
        trainer.fit(bad, epochs=1, verbose=0, shuffle=False)

    first, second = local(2, work)
    assert isinstance(second, TrainingError)
    assert ("process 1", "rows 5 to 9 of the batch") in second.rows
    assert "process 1 failed: TrainingError" in str(first)
