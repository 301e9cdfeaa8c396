"""Updates of one step that see each other, of several processes: the gradients of each are reduced
before those of the next one are computed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import (
    assign,
    ema,
    f32,
    f64,
    minimize,
    model,
    mse,
    parameter,
    training,
    zeros_like,
)
from nncompile import compile_step, compose
from nncompile.diagnostics.errors import ModelError
from nncompile.optim import sgd
from nncompile.parallel.collected import CollectedStepRunner
from nncompile.parallel.processes import Processes
from nncompile.parallel.sharded import ShardedStepRunner
from nncompile.program.half_stages import stages_of
from nncompile.program.recipe import Recipe
from nncompile.train import Trainer
from tests.parallel_checks import adversarial, assert_same, checked, made
from tests.reduced_steps import step_of_several
from tests.step_checks import state_after
from tests.thread_groups import in_threads


def chained(x: Any = f64["batch", 6]) -> Any:
    """Three parameters, whose losses see the one before them; rows that weigh nothing are those
    that the first one says."""
    a, b, c = (parameter(name, (6, 2), dtype=f64) for name in "abc")
    return {
        "y": x @ a,
        "first": mse(x @ a, zeros_like(x @ a)),
        "second": mse(x @ b, x @ a, mask=(x @ a)[:, 0] > 0),
        "third": mse(x @ c, x @ b),
        "apart": mse(x @ c, x[:, :2]),
    }


def of(*losses: tuple[str, str], lr: float = 0.3, clip_norm: float | None = None) -> list[Any]:
    return [
        minimize(loss, params=params, optimizer=sgd(lr, 0.9), clip_norm=clip_norm)
        for loss, params in losses
    ]


GAN = of(("of_disc", "disc.*"), ("of_gen", "gen.*"))
SUM = of(("of_disc", "disc.*"), ("of_gen", "gen.*"), lr=0.02, clip_norm=1.0)
CHAIN = of(("first", "a"), ("second", "b"), ("third", "c"))
CASES: dict[str, tuple[Any, dict[str, Any], int]] = {
    "two networks": (adversarial(), {"updates": GAN, "average": ema(0.9)}, 2),
    "sums, clipped": (adversarial(reduction="sum"), {"updates": SUM}, 2),
    "a chain of three": (chained, {"updates": CHAIN}, 3),
    "a chain of three, accumulated": (chained, {"updates": CHAIN, "accumulate": 2}, 3),
    "one loss twice": (chained, {"updates": of(("first", "a"), ("first", "a"))}, 2),
    "a rule first": (
        chained,
        {"updates": [assign("a", lambda v: v["a"] - 0.1 * v["x"].T @ v["y"]), *CHAIN[1:2]]},
        2,
    ),
    "a rule without data first": (
        chained,
        {"updates": [assign("a", lambda v: 0.5 * v["a"]), *CHAIN[1:2]]},
        0,
    ),
    "losses that are apart": (chained, {"updates": of(("first", "a"), ("apart", "c"))}, 0),
}


@pytest.mark.parametrize("case", CASES)
def test_parts_of_a_batch_are_the_batch(case: str) -> None:
    """Two steps in float64, where only the order of the sums differs."""
    function, options, count = CASES[case]
    step = compose(training(model(function), **options))
    assert len(stages_of(step)) == count
    one = other = start = step.initial(0)
    name = next(iter(step.model.inputs))
    for i in range(2):
        batch = {name: np.random.default_rng(i).normal(size=(13, 6))}
        one = state_after(step, one, {**batch})
        other = step_of_several(step, other, batch, (1, 0, 9, 3))
    for path, x in one.items():
        np.testing.assert_allclose(other[path], x, 1e-11, 1e-13, err_msg=path)
    assert any(not np.array_equal(one[path], start[path]) for path in step.parameters)


def data() -> dict[str, Any]:
    return {"real": np.random.default_rng(0).normal(size=(29, 6)).astype(np.float32)}


def recipe(sync: bool | None = None, **options: Any) -> Recipe:
    # Batches of 7 of 29 rows: the last has one, of which all processes but one get none.
    average = ema(0.9, params="gen.*")
    options = {"updates": GAN, "average": average, "batch_size": 7, **options}
    return training(model(adversarial(f32, sync)), **options)


def trained(compiled: Any, processes: Processes | None = None) -> Any:
    """The state at the end, the metrics, and what the first process sees of states before."""
    seen: list[Any] = []

    def look(event: Any) -> None:
        if processes is None or processes.is_first:
            seen.append(event.trainer.state)

    trainer = Trainer(compiled, threads=1, parallel=processes)
    if processes is not None and compiled.source.recipe.accumulate > 1:
        assert isinstance(trainer._loop.runner, CollectedStepRunner)  # who adds up once a window
    history = trainer.fit(data(), epochs=1, verbose=0, callbacks=look)
    return trainer.state, history.epochs[0], seen


@pytest.mark.parametrize(
    ("size", "options", "kind"),
    [
        (3, {}, {}),  # also metrics, averages and noise
        (2, {"sync": True, "accumulate": 2}, {"overlap": 1000}),
    ],
)
def test_several_processes_train_as_one_does(
    size: int, options: dict[str, Any], kind: dict[str, Any]
) -> None:
    compiled = made(compile_step(recipe(**options)))
    state, metrics, seen = trained(compiled)
    every = checked(in_threads(size, lambda p: trained(compiled, p), seconds=60.0, **kind))
    for ours, theirs in zip(every[0][2], seen, strict=True):
        assert_same(ours, theirs)
    for found, epoch, _ in every:
        assert_same(found, state)
        assert_same(epoch, metrics)
        for path, x in every[0][0].items():
            np.testing.assert_array_equal(found[path], x, err_msg=path)


def test_a_part_of_an_update_that_others_see_is_refused() -> None:
    compiled = compile_step(recipe())
    (error,) = in_threads(1, lambda p: ShardedStepRunner(p, compiled, compiled.source.initial()))
    assert isinstance(error, ModelError)
    assert "'of_gen' sees what an earlier update" in str(error)
    assert "mpi() without shard_optimizer" in str(error)


def test_random_rows_weigh_as_many_as_they_are() -> None:
    """In a loss that no data are in, and the file says that it comes later."""
    step = compose(recipe(accumulate=2))
    rules = step.reductions.by_name
    assert rules["gen.dense.weight.grad"] == rules["disc.dense.weight.grad"]
    assert rules["disc.dense.weight.grad"].weight is not None
    assert "training.of_gen.accumulated" in step.state
    reasons = step.reductions.described(step.gradient.outputs)["irreducible"]
    assert reasons.keys() == {"of_gen"}
    assert "reduces between the two updates" in reasons["of_gen"]
