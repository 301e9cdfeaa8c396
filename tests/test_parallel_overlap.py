"""Gradients that are reduced while others are computed are those that are reduced afterwards."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import Dense, Dropout, cross_entropy, f32, i64, relu
from nncompile import compile_step
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.interpreter import evaluate
from nncompile.parallel.overlapped import OverlappedHalf
from nncompile.parallel.processes import Processes
from nncompile.program.composition import compose
from nncompile.program.gradient_stages import buckets_of, gradient_stages
from nncompile.train import Trainer
from tests.parallel_checks import assert_same, checked, data, fitted, recipe
from tests.thread_groups import in_threads


def deep(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    hidden = image >> Dense(40, relu, name="one") >> Dense(30, relu, name="two") >> Dropout(0.3)
    return {"loss": cross_entropy(hidden >> Dense(3, name="out"), label, ignore_index=0)}


def test_stages_compute_the_half() -> None:
    step = compose(recipe(deep))
    buckets = buckets_of(step, 1000)
    assert buckets == [
        ["out.bias.grad", "out.weight.grad", "two.bias.grad", "two.weight.grad"],
        ["one.bias.grad", "one.weight.grad"],
    ]
    known = {**step.initial(0), **data(), "first_row": 0}
    expected = evaluate(step.gradient_of_rows, known)
    first, second = gradient_stages(step, buckets)
    assert {"loss", *buckets[0]} <= first.outputs.keys()
    assert {*second.outputs} == {*buckets[1]}
    assert any(name.startswith("handed.") for name in second.leaves)
    for graph in (first, second):
        known |= evaluate(graph, known)
    for name, x in expected.items():
        np.testing.assert_array_equal(known[name], x, err_msg=name)


@pytest.mark.parametrize(("size", "options"), [(2, {"clip_norm": 0.1}), (3, {"accumulate": 3})])
def test_processes_that_overlap_train_as_one_does(size: int, options: dict[str, Any]) -> None:
    """Also where a process has no rows, in the last batch."""
    compiled = compile_step(recipe(deep, **options))

    def work(processes: Processes | None) -> Trainer:
        trainer = Trainer(compiled, threads=1, parallel=processes)
        half = getattr(trainer._loop.runner, "_half", None)
        assert isinstance(half, OverlappedHalf) == (processes is not None)
        return fitted(trainer)

    one = work(None).state
    trainers = checked(in_threads(size, work, seconds=60.0, overlap=1000))
    for trainer in trainers:
        assert_same(trainer.state, one)
        for name, x in trainers[0].state.items():
            np.testing.assert_array_equal(trainer.state[name], x, err_msg=name)


def test_one_bucket_is_not_cut() -> None:
    compiled = compile_step(recipe(deep))

    def work(processes: Processes) -> bool:
        runner: Any = Trainer(compiled, threads=1, parallel=processes)._loop.runner
        return isinstance(runner._half, OverlappedHalf)

    assert checked(in_threads(2, work, seconds=60.0, overlap=10**6)) == [False, False]


def test_what_excludes_each_other_is_said() -> None:
    for option in ({"shard_optimizer": True}, {"every": 2}):
        (error,) = in_threads(1, lambda p, o=option: Processes(p.group, overlap=1, **o))
        assert isinstance(error, ModelError)
        assert f"at each step, which {next(iter(option))} does not" in str(error)
