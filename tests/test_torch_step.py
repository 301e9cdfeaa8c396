"""The training step as TorchScript takes the steps that onnxruntime takes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dsl import (
    Dense,
    Dropout,
    f32,
    model,
    mse,
    sgd,
    state,
    training,
    update,
)
from nncompile.compiler.export import export
from nncompile.diagnostics.errors import BackendError, ModelError
from nncompile.ops import full, reshape
from nncompile.passes import PASSES
from tests.tolerances import TOLERANCES
from tests.torch_recipes import RECIPES, batch_of, images, stepped, tensors


@pytest.mark.parametrize("name", RECIPES)
def test_ten_steps_are_those_of_onnxruntime(name: str, torchscript: SimpleNamespace) -> None:
    recipe = RECIPES[name]()
    module, compiled, first = stepped(torchscript, recipe)
    runner = compiled.runner(first)
    relative, absolute = TOLERANCES["float64" if name == "double" else "float32"]
    for i, size in enumerate((8, 8, 3, 1, 8, 5, 8, 2, 8, 8)):  # one file, several sizes
        batch = batch_of(recipe.model, i, size)
        metrics = module.train_step(*tensors(torchscript, batch))
        runner.step(batch)
        expected = runner.metrics()
        assert list(metrics) == list(recipe.model.metrics)
        for metric, value in metrics.items():
            np.testing.assert_allclose(
                value.numpy(), expected[metric], 10 * relative, 10 * absolute, err_msg=metric
            )
            assert not value.requires_grad
    ours, theirs = module.get_state(), runner.state()
    assert sorted(ours) == sorted(theirs)
    assert ours["step"] == 10
    for path, x in theirs.items():
        scale = max(1.0, float(np.abs(x).max(initial=0)))
        np.testing.assert_allclose(
            ours[path].numpy(), x, 10 * relative, 10 * absolute * scale, err_msg=path
        )


def test_dropout_draws_the_same_bits(torchscript: SimpleNamespace) -> None:
    """A state keeps what dropout left of ones."""

    @model
    def net(x=f32["batch", 4]):  # type: ignore[no-untyped-def]
        kept = state("kept", (50, 7))
        update(kept, Dropout(0.4)(full((50, 7), 1.0)))
        return {"loss": mse(x >> Dense(2), x[:, :2])}

    recipe = training(net, optimizer=sgd(0.1), seed=11)
    module, compiled, first = stepped(torchscript, recipe)
    runner = compiled.runner(first)
    batch = batch_of(net, 0, 3)
    seen = []
    for _ in range(3):
        module.train_step(*tensors(torchscript, batch))
        runner.step(batch)
        seen.append(module.get_state()["kept"].numpy())
        np.testing.assert_array_equal(seen[-1], runner.state()["kept"])
        assert set(np.unique(seen[-1])) == {0.0, np.float32(1 / 0.6)}
    assert not np.array_equal(seen[0], seen[1])


@pytest.mark.parametrize("without", [(), tuple(PASSES)])
def test_states_may_change_places(without: Any, torchscript: SimpleNamespace) -> None:
    """A next value that is another state, or a view of one, is read before that is written."""
    start = {"a": np.arange(6.0).reshape(2, 3), "b": -np.arange(6.0).reshape(3, 2)}

    @model
    def net(x=f32["batch", 4]):  # type: ignore[no-untyped-def]
        a, b = state("a", (2, 3), start["a"]), state("b", (3, 2), start["b"])
        update(a, reshape(b, (2, 3)))
        update(b, reshape(a, (3, 2)))
        return {"loss": mse(x >> Dense(2), x[:, :2]), "corner": b[2, 1]}

    recipe = training(net, optimizer=sgd(0.1))
    module, _, _ = stepped(torchscript, recipe, without=without)
    batch = tensors(torchscript, batch_of(net, 0, 3))
    for i in range(1, 4):
        metrics = module.train_step(*batch)
        kept = module.get_state()
        expected = (start["b"], start["a"]) if i % 2 else (start["a"], start["b"])
        np.testing.assert_array_equal(kept["a"], expected[0].reshape(2, 3))
        np.testing.assert_array_equal(kept["b"], expected[1].reshape(3, 2))
        assert metrics["corner"] == (5 if i % 2 == 0 else -5)  # as it was before the step


@pytest.mark.parametrize("name", ["slots", "reset", "train_step"])
def test_names_that_a_step_has_itself(name: str, torchscript: SimpleNamespace) -> None:
    @model
    def net(x=f32["batch", 4]):  # type: ignore[no-untyped-def]
        return {"loss": mse(x >> Dense(2, name=name), x[:, :2])}

    module, _, _ = stepped(torchscript, training(net, optimizer=sgd(0.1)))
    assert {f"{name}_.weight", f"{name}_.bias"} == {n for n, _ in module.named_parameters()}
    assert {f"{name}.weight", f"{name}.bias"} < set(module.get_state())
    assert json.loads(module.nncompile)["places"][f"{name}.bias"] == f"{name}_.bias"


def test_what_a_step_needs(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="needs a recipe"):
        export(images(), tmp_path / "step.pt", to="torchscript-step")
    with pytest.raises(ModelError, match="holds its state"):
        export(RECIPES["images"](), tmp_path / "a.pt", to="torchscript-step", external_data=True)


@pytest.mark.parametrize("target", ["torchscript", "torchscript-step"])
def test_a_python_that_torchscript_does_not_support(
    target: str, torchscript: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 14, 0, "final", 0))
    with pytest.raises(BackendError, match=r"no TorchScript for Python 3\.14") as caught:
        export(RECIPES["images"](), tmp_path / "net.pt", to=target)
    assert caught.value.hint is not None and "--to pt2" in caught.value.hint
    assert not list(tmp_path.iterdir())
