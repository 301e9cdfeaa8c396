"""Trainings of several processes, which are threads: models, data, and helpers of their tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from dsl import (
    BatchNorm,
    Dense,
    Dropout,
    GaussianNoise,
    Sequential,
    accuracy,
    binary_cross_entropy_with_logits,
    cross_entropy,
    f1_score,
    f32,
    f64,
    i64,
    leaky_relu,
    model,
    ones_like,
    random_normal,
    relu,
    zeros_like,
)
from nncompile import training
from nncompile.diagnostics.errors import CompileError, ModelError
from nncompile.optim import sgd
from nncompile.parallel.staged import contents
from nncompile.program.half_stages import stages_of
from nncompile.program.recipe import Recipe
from nncompile.train import RunDirectory, Trainer
from tests.thread_groups import in_threads

ROWS = 43


def data(seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    image = rng.normal(size=(ROWS, 6)).astype(np.float32)
    return {"image": image, "label": rng.integers(0, 3, ROWS)}


def classifier(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    hidden = image >> Dense(16, relu, name="hidden") >> Dropout(0.3)
    logits = hidden >> Dense(3, name="out")
    loss = cross_entropy(logits, label, ignore_index=0)
    return {
        "loss": loss,
        "accuracy": accuracy(logits, label),
        "f1": f1_score(logits, label, "macro"),
    }


def plain(image: Any = f32["batch", 6], label: Any = i64["batch"]) -> Any:
    return {"loss": cross_entropy(image >> Dense(3, name="out"), label)}


def adversarial(dtype: Any = f64, sync: bool | None = None, reduction: str = "mean") -> Any:
    """Two networks, of which the second sees what the first has learned of the same batch."""

    def gan(real: Any = dtype["batch", 6]) -> Any:
        norm = [] if sync is None else [BatchNorm(sync=sync, name="norm")]
        disc = Sequential(
            GaussianNoise(0.1), Dense(9, leaky_relu), Dropout(0.3), Dense(1), name="disc"
        )
        gen = Sequential(Dense(12, relu), *norm, Dense(6), name="gen")
        fake = gen(random_normal((real.shape[0], 4), dtype=dtype))
        of_real, of_fake = disc(real), disc(fake)

        def loss(logits: Any, label: Any) -> Any:
            return binary_cross_entropy_with_logits(logits, label, reduction=reduction)

        both = loss(of_real, ones_like(of_real)) + loss(of_fake, zeros_like(of_fake))
        return {"of_disc": both / 2, "of_gen": loss(of_fake, ones_like(of_fake))}

    return gan


def recipe(function: Any = classifier, **options: Any) -> Recipe:
    # Batches of 7 of 43 rows: the last has one, of which all processes but one get none.
    return training(model(function), **{"optimizer": sgd(0.1, 0.9), "batch_size": 7, **options})


def fitted(trainer: Trainer, **options: Any) -> Trainer:
    trainer.fit(data(), verbose=0, **{"epochs": 2, **options})
    return trainer


def made(compiled: Any) -> Any:
    """The step, once what each process runs of it is made, and not in each thread."""
    stages = [stage.graph for stage in stages_of(compiled.source, bool(compiled.source.sums))]
    if not contents(compiled, stages):
        compiled.content("gradient")
    compiled.content("following_of_sums" if compiled.source.sums else "following")
    return compiled


def together(size: int, compiled: Any, **options: Any) -> list[Trainer]:
    """Trainers that were fitted together."""
    made(compiled)
    return checked(
        in_threads(size, lambda p: fitted(Trainer(compiled, threads=1, parallel=p), **options))
    )


def ended_at(step: int, compiled: Any, run: Path, rank: int) -> Callable[[Any], Trainer]:
    """Two epochs of each process with a run, which end at that step: in the first process by
    Ctrl-C, where `rank` is its number, and in another one by an error of a callback."""
    ending = KeyboardInterrupt() if rank == 0 else ModelError("no disk")

    def work(processes: Any) -> Trainer:
        def break_(event: Any) -> None:
            if processes.rank == rank and event.step == step:
                raise ending

        trainer = Trainer(compiled, threads=1, parallel=processes)
        with pytest.raises(KeyboardInterrupt if rank == 0 else CompileError):
            trainer.fit(
                data(), epochs=2, verbose=0, callbacks=[RunDirectory(run, exports=False), break_]
            )
        return trainer

    return work


def checked(results: list[Any]) -> list[Any]:
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


def assert_same(actual: Any, expected: Any) -> None:
    for name, x in expected.items():
        np.testing.assert_allclose(actual[name], x, 2e-6, 1e-6, err_msg=name)
