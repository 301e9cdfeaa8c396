"""Averages of the weights: how they are formed, used, exported and saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile.compiler.export import export
from nncompile.diagnostics.errors import ModelError
from nncompile.optim import adam, plateau, sgd
from nncompile.program.recipe import ema, swa, training
from nncompile.runtime import Session
from nncompile.train import Trainer
from tests.small_models import data, perceptron
from tests.tolerances import assert_close


def weights_of(recipe: Any, steps: int) -> tuple[Trainer, list[dict[str, Any]]]:
    """A trainer after so many steps, and the parameters after each."""
    trainer, found = Trainer(recipe), []
    for i in range(steps):
        trainer.fit([data(16, i)], epochs=1)
        found.append(trainer.params)
    return trainer, found


def test_an_exponential_average_is_that_of_torch() -> None:
    torch = pytest.importorskip("torch")
    trainer, weights = weights_of(training(perceptron(), average=ema(0.9)), 8)
    path = "out.weight"
    module = torch.nn.Linear(8, 2, bias=False)
    averaged = torch.optim.swa_utils.AveragedModel(
        module, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.9)
    )
    for w in weights:
        module.weight.data = torch.from_numpy(w[path].T.copy())
        averaged.update_parameters(module)
    assert_close(trainer.state[f"{path}.ema"], averaged.module.weight.data.numpy().T, "float32")


def test_a_mean_of_the_weights_begins_late_and_skips() -> None:
    trainer, weights = weights_of(training(perceptron(), average=swa(start=3, every=2)), 9)
    path = "hidden.weight"
    expected = np.mean([weights[i][path] for i in (3, 5, 7)], axis=0)
    assert_close(trainer.state[f"{path}.swa"], expected, "float32")
    early, weights = weights_of(training(perceptron(), average=swa(start=3)), 2)
    assert_close(early.state[f"{path}.swa"], weights[-1][path], "float32")


def test_averages_predict_evaluate_and_are_exported(tmp_path: Path) -> None:
    rate = plateau(0.1, "loss")
    recipe = training(perceptron(), optimizer=sgd(rate, 0.9), average=[ema(0.9), swa()])
    trainer, _ = weights_of(recipe, 5)
    averaged = trainer.averaged("ema")
    assert np.array_equal(averaged["out.weight"], trainer.state["out.weight.ema"])
    batch = data(6)
    (file,) = export(recipe, tmp_path / "ema.onnx", params=averaged)
    (plain,) = export(recipe, tmp_path / "plain.onnx", params=trainer.state)
    with_average = trainer.predict(batch["x"], params=averaged)["y"]
    assert_close(Session(file.read_bytes()).run({"x": batch["x"]})["y"], with_average, "float32")
    assert_close(
        Session(plain.read_bytes()).run({"x": batch["x"]})["y"],
        trainer.predict(batch["x"])["y"],
        "float32",
    )
    assert not np.allclose(with_average, trainer.predict(batch["x"])["y"])
    loss = trainer.evaluate(batch, params=averaged)["loss"]
    assert loss == pytest.approx(np.mean((with_average - batch["target"]) ** 2), rel=1e-5)
    files = export(recipe, tmp_path / "step.onnx", to="step", params=trainer.state)
    assert all(file.exists() for file in files)
    with pytest.raises(ModelError, match="keeps no average 'mean'"):
        trainer.averaged("mean")


def test_averages_are_chosen_by_name() -> None:
    averages = [ema(0.5), ema(0.9), swa(params="out.*")]
    trainer, _ = weights_of(training(perceptron(), average=averages), 4)
    for name in ("ema", "ema.2", "swa"):
        found, state = trainer.averaged(name), trainer.state
        assert np.array_equal(found["out.weight"], state[f"out.weight.{name}"])
    assert not np.array_equal(found["out.weight"], state["out.weight"])
    assert np.array_equal(found["hidden.weight"], state["hidden.weight"])
    with pytest.raises(ModelError, match=r"3 averages of the weights: ema, ema\.2, swa"):
        trainer.averaged()
    with pytest.raises(ModelError, match=r"no average 'ema2'(.|\n)*did you mean 'ema\.2'"):
        trainer.averaged("ema2")
    only, _ = weights_of(training(perceptron(), average=swa()), 2)
    assert np.array_equal(only.averaged()["out.weight"], only.state["out.weight.swa"])
    with pytest.raises(ModelError, match=r"keeps no average of the weights(.|\n)*average=ema"):
        Trainer(training(perceptron())).averaged()


def test_a_saved_state_goes_on_with_its_averages(tmp_path: Path) -> None:
    recipe = training(perceptron(), optimizer=adam(), average=ema(0.9), accumulate=2)
    one, other = Trainer(recipe), Trainer(recipe, seed=5)
    one.fit([data(16, i) for i in range(3)], epochs=1, shuffle=False)
    other.load(one.save(tmp_path / "state.safetensors"))
    for trainer in (one, other):
        trainer.fit([data(16, i) for i in range(3)], epochs=1, shuffle=False)
    for path, x in one.state.items():
        np.testing.assert_array_equal(other.state[path], x, err_msg=path)
