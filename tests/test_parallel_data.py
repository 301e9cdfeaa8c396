"""The data of several processes: each reads its rows alone, and evaluates some of the batches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import (
    Dense,
    cross_entropy,
    f32,
    i64,
    model,
    mse,
    parameter,
    random_normal,
    roc_auc,
    total,
    training,
)
from nncompile import compile_step, compose, evaluate
from nncompile.diagnostics.errors import ModelError
from nncompile.optim import sgd
from nncompile.parallel.processes import Processes
from nncompile.train import RunDirectory, Trainer
from nncompile.train.sources.later import LaterRows
from nncompile.train.sums import Sums
from tests.parallel_checks import (
    ROWS,
    assert_same,
    checked,
    data,
    fitted,
    plain,
    recipe,
    together,
)
from tests.thread_groups import in_threads


def ranked(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    score = image >> Dense(1, name="out")
    target = (label > 0).astype(f32)
    hits = total(target.sum())
    ranking = roc_auc(score[:, 0], label > 0)
    return {"loss": mse(score[:, 0], target), "hits": hits, "ranking": ranking}


class Read:
    """An array in a file, which counts the rows that are read of it."""

    def __init__(self, array: Any) -> None:
        self.array, self.shape, self.dtype, self.rows = array, array.shape, array.dtype, 0

    def __len__(self) -> int:
        return len(self.array)

    def __getitem__(self, rows: Any) -> Any:
        found = self.array[rows]
        self.rows += len(found)
        return found


def test_each_process_reads_its_rows_alone() -> None:
    """Of batches of 10, 10, 10, 10 and 3 rows, but for the first of them."""
    compiled = compile_step(recipe(plain, batch_size=10))
    compiled.content("gradient"), compiled.content("following")

    def work(processes: Processes) -> int:
        stored = {name: Read(x) for name, x in data().items()}
        before: list[int] = []
        trainer = Trainer(compiled, threads=1, parallel=processes)
        first = lambda event: before.append(stored["image"].rows) if event.step == 1 else None  # noqa: E731
        trainer.fit(stored, epochs=1, verbose=0, callbacks=first)
        return stored["image"].rows - before[0]

    assert checked(in_threads(3, work)) == [
        10,
        10,
        13,
    ]


def test_rows_are_taken_when_they_are_looked_at() -> None:
    numbers = np.arange(12).reshape(6, 2)
    rows = LaterRows(lambda part: numbers[part], numbers.shape, numbers.dtype)
    assert (rows.shape, rows.ndim, rows.size, len(rows)) == ((6, 2), 2, 12, 6)
    np.testing.assert_array_equal(rows[2:4], numbers[2:4])
    np.testing.assert_array_equal(rows[[0, 5]], numbers[[0, 5]])
    np.testing.assert_array_equal(np.asarray(rows, np.float32), numbers)
    assert rows.dtype == np.asarray(rows).dtype


def test_sums_of_parts_are_those_of_all_batches() -> None:
    step = compose(recipe(ranked))
    state, examples = step.initial(0), data()
    batches = [{n: x[i : i + 9] for n, x in examples.items()} for i in range(0, ROWS, 9)]

    def added(chosen: list[Any]) -> Sums:
        sums = Sums(step.evaluation, step.model.inputs)
        for batch in chosen:
            sums.add(batch, evaluate(step.evaluate, {**state, **batch}), len(batch["label"]))
        return sums

    whole = added(batches)
    parts = [json.loads(json.dumps(added(x).stored())) for x in (batches[1::2], batches[::2], [])]
    joined = whole.joined(parts)
    assert joined.results().keys() == whole.results().keys() == {"loss", "hits", "ranking"}
    for name, x in whole.results().items():
        np.testing.assert_allclose(joined.results()[name], x, 1e-12)
    assert joined.added.examples == ROWS


@pytest.mark.parametrize(("step", "other"), [(1, 0), (2, 1)])
def test_batches_that_processes_draw_otherwise_are_named(step: int, other: int) -> None:
    """The first, and the last of an epoch."""
    compiled = compile_step(recipe(plain))
    compiled.content("gradient"), compiled.content("following")

    def work(processes: Processes) -> Any:
        batches = [{name: x[i : i + 7] for name, x in data().items()} for i in (0, 7)]
        batches[other]["image"] = batches[other]["image"] + processes.rank
        trainer = Trainer(compiled, threads=1, parallel=processes)
        trainer.fit((batch for batch in batches), epochs=1, verbose=0)

    for error in in_threads(2, work):
        assert isinstance(error, ModelError)
        assert f"the batches of step {step} differ" in str(error)
        assert "with a seed" in str(error)


def test_an_input_that_no_gradient_needs_is_there(tmp_path: Path) -> None:
    def shifted(
        image: Any = f32["batch", 6], shift: Any = f32["batch", 3], label: Any = i64["batch"]
    ) -> Any:
        logits = image >> Dense(3, name="out")
        return {"logits": logits, "shifted": logits + shift, "loss": cross_entropy(logits, label)}

    declared = model(predict=("logits", "shifted"))(shifted)
    compiled = compile_step(training(declared, optimizer=sgd(0.1), batch_size=7))
    compiled.content("gradient"), compiled.content("following")
    given = {**data(), "shift": np.zeros((ROWS, 3), np.float32)}

    def work(processes: Processes) -> list[str]:
        run = RunDirectory(tmp_path / f"run{processes.rank}")
        trainer = Trainer(compiled, threads=1, parallel=processes)
        trainer.fit(given, epochs=1, verbose=0, callbacks=run)
        return [file.name for file in run.files]

    first, _ = checked(in_threads(2, work))
    assert "report.html" in first


def test_a_loss_of_no_data_and_parameters_of_no_elements() -> None:
    """Of the data, the gradient half then needs the number of rows alone; a gradient without
    elements is no batch without examples."""

    def drawn(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
        noise = random_normal((image.shape[0], 3)) >> Dense(2, name="out")
        return {"loss": (noise**2).mean() + (parameter("empty", (0, 2)) ** 2).sum()}

    compiled = compile_step(recipe(drawn))
    one = fitted(Trainer(compiled, threads=1))
    for trainer in together(2, compiled):
        assert_same(trainer.params, one.params)


def test_the_monitor_of_a_loss_of_no_data_knows_their_number(tmp_path: Path) -> None:
    def drawn(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
        return {"loss": (random_normal((image.shape[0], 3)) >> Dense(2, name="out")).mean()}

    run = RunDirectory(tmp_path / "run")
    fitted(Trainer(compile_step(recipe(drawn)), threads=1), callbacks=run)
    assert "report.html" in [file.name for file in run.files]
