"""Processes that share the update: each holds the state of the optimizer for its parameters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import BatchNorm, Dense, Dropout, cross_entropy, f32, i64, relu
from nncompile import compile_step
from nncompile.diagnostics.errors import CompileError, ModelError
from nncompile.optim import adam, lamb, muon, sgd
from nncompile.parallel.processes import Processes
from nncompile.program.composition import compose
from nncompile.program.update_sections import Section, sections
from nncompile.program.update_shares import SharedUpdate
from nncompile.train import RunDirectory, Trainer
from tests.parallel_checks import assert_same, checked, data, ended_at, fitted, plain, recipe
from tests.thread_groups import in_threads


def deep(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    hidden = image >> Dense(40, relu, name="one") >> Dense(30, relu, name="two") >> Dropout(0.3)
    return {"loss": cross_entropy(hidden >> Dense(3, name="out"), label, ignore_index=0)}


def synchronized(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    hidden = image >> Dense(40, name="one") >> BatchNorm(sync=True, name="norm") >> relu
    return {"loss": cross_entropy(hidden >> Dense(3, name="out"), label)}


def sharded(size: int, work: Any) -> list[Any]:
    return checked(in_threads(size, work, seconds=60.0, shard_optimizer=True))


def ready(*args: Any, **options: Any) -> Any:
    compiled = compile_step(recipe(*args, **options))
    compiled.content("gradient")
    return compiled


@pytest.mark.parametrize(
    ("size", "function", "options"),
    [
        (2, synchronized, {"clip_norm": 0.05}),
        (3, deep, {"accumulate": 3, "clip_norm": 0.1}),
        (4, deep, {"optimizer": lamb(1e-2)}),
        (2, deep, {"optimizer": muon(1e-2), "noise": 0.01}),
    ],
)
def test_a_shared_update_is_that_of_one_process(
    size: int, function: Any, options: dict[str, Any]
) -> None:
    compiled = ready(function, **options)

    def work(parallel: Processes | None) -> Trainer:
        return fitted(Trainer(compiled, threads=1, parallel=parallel))

    one = work(None).state
    trainers = sharded(size, work)
    for trainer in trainers:
        state = trainer.state
        for path, x in one.items():
            np.testing.assert_allclose(state[path], x, 2e-4, 5e-6, err_msg=path)
            np.testing.assert_array_equal(state[path], trainers[0].state[path], err_msg=path)


def test_a_process_holds_its_part_alone() -> None:
    compiled = ready(deep, optimizer=adam(1e-2))

    def work(processes: Processes) -> int:
        runner: Any = Trainer(compiled, threads=1, parallel=processes)._loop.runner
        slots = [n for n in runner.state_map if n.endswith((".m", ".v"))]
        return sum(int(np.prod(runner._sets[0][n].shape())) for n in slots)

    whole = sum(x.size for n, x in compiled.source.initial().items() if n.endswith((".m", ".v")))
    counts = sharded(3, work)
    assert sum(counts) == whole
    assert max(counts) < 0.4 * whole


def test_the_first_process_alone_writes_the_whole_state(tmp_path: Path) -> None:
    """Others give it what they hold where they meet next; another number of processes goes on."""
    compiled = ready(deep, optimizer=sgd(0.05, 0.9))

    def work(processes: Processes | None, epochs: int = 1, rate: bool = False) -> Trainer:
        trainer = Trainer(compiled, threads=1, parallel=processes)
        run = RunDirectory(tmp_path / "run", resume=True, exports=False, checkpoint_every="2 steps")
        trainer.fit(data(), epochs=epochs, verbose=0, callbacks=run)
        if processes is not None and processes.is_first:  # alone
            trainer.save(tmp_path / f"{epochs}.safetensors")
        return trainer

    sharded(3, lambda p: work(p, 1))
    sharded(2, lambda p: work(p, 2))
    last = work(None, 3)
    one = fitted(Trainer(compiled, threads=1), epochs=3)
    loaded = Trainer(compiled, threads=1)
    loaded.load(tmp_path / "2.safetensors")
    fitted(loaded, epochs=1)
    for path, x in one.state.items():
        np.testing.assert_allclose(last.state[path], x, 2e-4, 5e-6, err_msg=path)
        np.testing.assert_array_equal(loaded.state[path], last.state[path], err_msg=path)


@pytest.mark.parametrize("interrupted", [0, 1])
def test_what_was_learned_is_written_when_a_process_fails(tmp_path: Path, interrupted: int) -> None:
    compiled = ready(plain, optimizer=adam(1e-2))

    trainers = sharded(2, ended_at(5, compiled, tmp_path / "run", interrupted))
    one = Trainer(compiled, threads=1)
    one.fit(data(), steps=5, verbose=0)
    (file,) = (tmp_path / "run/checkpoints").glob("*.safetensors")
    loaded = Trainer(compiled, threads=1)
    loaded.load(file)
    assert_same(loaded.state, one.state)
    for trainer in trainers:
        assert_same(trainer.state, one.state)


def test_rates_undone_steps_and_states_that_are_set() -> None:
    compiled = ready(plain, optimizer=adam(1e-2))
    bad = data()
    bad["image"][30] = np.inf

    def work(processes: Processes | None) -> Trainer:
        trainer = fitted(Trainer(compiled, threads=1, parallel=processes, in_place=False), epochs=1)
        with pytest.raises(CompileError, match="is nan"):
            trainer.fit(bad, epochs=1, verbose=0, shuffle=False)
        trainer.begin_epoch()
        trainer.set_params({"out.bias.m": np.full(3, 0.25, np.float32)})
        trainer.learning_rate = 0.05
        return fitted(trainer, epochs=1)

    one = work(None)
    for trainer in sharded(2, work):
        assert_same(trainer.state, one.state)


def test_steps_in_place() -> None:
    compiled = ready(plain, optimizer=adam(1e-2))
    one = fitted(Trainer(compiled, threads=1))
    for trainer in sharded(
        2, lambda p: fitted(Trainer(compiled, threads=1, parallel=p, in_place=True))
    ):
        assert_same(trainer.state, one.state)


def test_ways_to_train_together_that_differ_are_named() -> None:
    step = ready(plain)

    def work(processes: Processes) -> None:
        other = Processes(processes.group.apart(), shard_optimizer=processes.rank == 1)
        fitted(Trainer(step, threads=1, parallel=other))

    for error in in_threads(2, work):
        assert isinstance(error, ModelError)
        assert "the options of the processes differ" in str(error)
        assert '"shard_optimizer": true' in str(error)


def shares(optimizer: Any, size: int, **options: Any) -> tuple[SharedUpdate, list[Section]]:
    step = compose(recipe(deep, optimizer=optimizer, **options))
    update = SharedUpdate(step, step.following)
    return update, sections(update.components, size)


@pytest.mark.parametrize("size", [1, 2, 5, 64])
@pytest.mark.parametrize("optimizer", [adam(1e-2), lamb(1e-2), muon(1e-2)])
def test_every_row_has_one_owner(size: int, optimizer: Any) -> None:
    update, found = shares(optimizer, size)
    rows = {n: c.rows or 1 for c in update.components for n in c.states}
    ends = dict.fromkeys(rows, 0)
    for rank in range(size):
        for section in found:
            for component, first, last in section.spans(rank):
                for name in component.states:
                    assert ends[name] == first
                    ends[name] = last
    assert ends == rows


def test_what_is_cut_follows_from_the_ops() -> None:
    cut = {c.states[0]: c.rows for c in shares(adam(1e-2), 2)[0].components}
    assert cut["one.weight"] == 6
    assert cut["two.weight"] == 40
    assert cut["out.bias"] == 3
    assert not any(c.rows for c in shares(lamb(1e-2), 2)[0].components)
    for options in ({"optimizer": muon(1e-2)}, {"optimizer": sgd(0.1), "max_norm": 1.0}):
        found = {c.states[0]: c.rows for c in shares(size=2, **options)[0].components}
        assert found["two.weight"] is None
        assert found["two.bias"] == 30
    update, found = shares(adam(1e-2), 2, clip_norm=1.0)
    assert [len(names) for names in update.share(0, found).shared] == [len(update.components)]
