"""Trainings whose steps are two runs, and a model for them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import (
    BatchNorm,
    Dense,
    Dropout,
    Value,
    adam,
    cross_entropy,
    f32,
    i64,
    model,
    relu,
    training,
)
from nncompile import Trainer
from nncompile.compiler import compile as compile_module
from nncompile.compiler.compile import CompiledStep
from nncompile.program.recipe import Recipe
from nncompile.runtime.halves import HalvesRunner


@model
def net(x: Value = f32["batch", 4], label: Value = i64["batch"]) -> dict[str, Value]:
    logits = x >> Dense(8, bias=False) >> BatchNorm() >> relu >> Dropout(0.2) >> Dense(3)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


def examples(count: int = 44) -> dict[str, Any]:
    rng = np.random.default_rng(1)
    return {
        "x": rng.normal(size=(count, 4)).astype(np.float32),
        "label": rng.integers(0, 3, count),
    }


def recipe(**options: Any) -> Recipe:
    return training(net, **{"optimizer": adam(1e-2), "batch_size": 8, **options})


def whole(compiled: CompiledStep, monkeypatch: pytest.MonkeyPatch, **options: Any) -> Trainer:
    """A trainer whose steps are one run."""
    with monkeypatch.context() as patched:
        patched.setattr(compile_module, "LARGE", 2**60)
        trainer = Trainer(compiled, threads=1, **options)
    assert not isinstance(trainer._loop.runner, HalvesRunner)
    return trainer


def of(compiled: CompiledStep | Recipe, **options: Any) -> Trainer:
    trainer = Trainer(compiled, threads=1, **options)
    assert isinstance(trainer._loop.runner, HalvesRunner)
    return trainer


def assert_near(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, x in expected.items():
        np.testing.assert_allclose(found[name], x, rtol=2e-5, atol=2e-6, err_msg=name)
