"""Exported models: what they predict, their operator sets, and exports that are refused."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from dsl import BatchNorm, Dense, model, mse, random_normal
from nncompile.compiler.export import InitialWeightsWarning, export
from nncompile.compiler.targets import target_of
from nncompile.diagnostics.errors import FileError, ModelError
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import f32
from nncompile.optim import sgd
from nncompile.program.initialization import initial_values
from nncompile.program.recipe import training
from nncompile.runtime import load_state
from nncompile.train import Trainer
from tests.export_checks import recipe, run, session
from tests.small_models import data, perceptron
from tests.tolerances import assert_close


def test_the_inference_model_predicts_as_the_trainer_does(tmp_path: Path) -> None:
    ours = Trainer(recipe())
    ours.fit(data(), epochs=3)
    (path,) = export(ours.recipe, tmp_path / "model.onnx", params=ours.state)
    loaded = session(path)
    assert [(i.name, i.shape, i.type) for i in loaded.get_inputs()] == [
        ("x", ["batch", 4], "tensor(float)")
    ]
    assert [(o.name, o.shape) for o in loaded.get_outputs()] == [("y", ["batch", 2])]
    for count in (1, 7, 360):
        x = data(count)["x"]
        assert_close(run(path, {"x": x})["y"], ours.predict(x)["y"], "float32")
    model = onnx.load(path)
    weights = {tensor.name for tensor in model.graph.initializer}
    assert set(ours.params) <= weights
    assert (model.opset_import[0].version, model.ir_version) == (21, 10)


def test_a_model_without_weights_has_those_of_the_seed(tmp_path: Path) -> None:
    model, x = perceptron(), data(5)
    (path,) = export(model, tmp_path / "model.onnx", seed=7)
    weights = initial_values(model, 7)
    y = evaluate(model.outputs["y"], {**weights, **x})
    assert_close(run(path, x)["y"], y, "float32")
    with pytest.warns(InitialWeightsWarning):
        (other,) = export(dataclasses.replace(recipe(), seed=7), tmp_path / "other.onnx")
    np.testing.assert_array_equal(run(other, x)["y"], run(path, x)["y"])


# onnxruntime 1.23 refuses to load a newer one.
KNOWN_OPSETS = [18, 20, 21, 23]
if not onnxruntime.__version__.startswith("1.23."):
    KNOWN_OPSETS.append(24)


@pytest.mark.parametrize("opset", KNOWN_OPSETS)
def test_other_opsets(tmp_path: Path, opset: int) -> None:
    expected = run(export(perceptron(), tmp_path / "model.onnx", seed=0)[0], data(5))
    (path,) = export(perceptron(), tmp_path / "model.onnx", opset=opset, seed=0)
    assert onnx.load(path).opset_import[0].version == opset
    assert_close(run(path, data(5))["y"], expected["y"], "float32")


def test_torchscript(tmp_path: Path, torchscript: Any) -> None:
    ours = Trainer(recipe())
    ours.fit(data(), epochs=1)
    (path,) = export(ours.recipe, tmp_path / "model.pt", "torchscript", params=ours.state)
    module = torchscript.torch.jit.load(str(path))
    x = data(5)["x"]
    y = module(torchscript.torch.from_numpy(x))["y"].detach().numpy()
    assert_close(y, ours.predict(x)["y"], "float32")
    assert set(dict(module.named_parameters())) == set(ours.params)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"to": "tflite"}, "choose one of onnx"),
        ({"to": "step"}, "needs a recipe"),
        ({"params": {"out.wieght": 1}}, "'out.wieght' may be 'out.weight' renamed"),
        ({"params": {"out.weight": np.zeros(3, np.float32)}}, "another type"),
        ({"params": {"out.weight": np.zeros((8, 2))}}, "another type"),
    ],
)
def test_a_wrong_export_is_told_and_leaves_the_file(
    tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"before")
    with pytest.raises(ModelError, match=words):
        export(perceptron(), path, **options)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FileError, match="cannot write"):
        export(perceptron(), tmp_path / "file" / "model.onnx")
    with pytest.raises(FileError, match="directory"):
        export(perceptron(), tmp_path)


def test_what_was_trained_is_exported(tmp_path: Path) -> None:
    trainer = Trainer(training(perceptron(), optimizer=sgd(0.1)))
    trainer.fit([data(5)] * 3)
    expected = trainer.predict({"x": data(5)["x"]})
    for (path,) in (
        trainer.export(tmp_path / "method.onnx"),
        export(trainer, tmp_path / "function.onnx"),
        export(trainer.recipe, tmp_path / "state.onnx", params=trainer.state),
    ):
        for name, y in run(path, {"x": data(5)["x"]}).items():
            np.testing.assert_allclose(y, expected[name], rtol=1e-5, atol=1e-6)
    others = {path: np.zeros_like(x) for path, x in trainer.params.items()}
    (path,) = trainer.export(tmp_path / "zeros.onnx", params=others)
    assert not any(y.any() for y in run(path, {"x": data(5)["x"]}).values())
    state, _ = trainer.export(tmp_path / "step.onnx", to="step")
    assert load_state(state)[0]["step"] == 3


def test_initial_weights_are_warned_of_unless_they_are_meant(tmp_path: Path) -> None:
    recipe = training(perceptron(), optimizer=sgd(0.1))
    for source in (recipe, recipe.model):
        with pytest.warns(InitialWeightsWarning, match=r"net\.onnx holds the initial weights"):
            export(source, tmp_path / "net.onnx")
        export(source, tmp_path / "net.onnx", seed=0)
    export(recipe, tmp_path / "step.onnx", "step")
    Trainer(recipe).export(tmp_path / "net.onnx")

    @model
    def doubled(x: Any = f32["batch"]) -> Any:
        return {"y": 2 * x}

    export(doubled, tmp_path / "doubled.onnx")


def test_a_file_is_of_the_kind_that_its_suffix_tells(tmp_path: Path) -> None:
    assert [target_of(Path(name)) for name in ("a.onnx", "a", "a.pt", "a.pth", "a.pt2")] == [
        "onnx",
        "onnx",
        "torchscript",
        "torchscript",
        "pt2",
    ]
    for name in ("a.h5", "a.keras", "a.safetensors"):
        with pytest.raises(
            FileError, match=r"does not say in which format(.|\n)*a\.onnx, or say to='onnx'"
        ):
            export(perceptron(), tmp_path / name)
    for name, to in (("a.pt", "onnx"), ("a.pt2", "step"), ("a.onnx", "pt2"), ("a.pt", "pt2")):
        with pytest.raises(FileError, match="has a different suffix"):
            export(perceptron(), tmp_path / name, to)
    with pytest.raises(ModelError, match="did you mean 'torchscript'"):
        target_of(Path("a"), "torchscrip")
    with pytest.raises(ModelError, match="leave external_data out"):
        export(perceptron(), tmp_path / "a.pt", "torchscript", external_data=True)


def test_parameters_without_running_statistics_are_not_all(tmp_path: Path) -> None:
    @model
    def net(x: Any = f32["batch", 4]) -> Any:
        y = x >> Dense(4) >> BatchNorm()
        return {"y": y, "loss": mse(y, x)}

    trainer = Trainer(training(net, optimizer=sgd(0.1)))
    with pytest.raises(ModelError, match=r"running_mean(.|\n)*trainer\.state holds both"):
        export(net, tmp_path / "net.onnx", params=trainer.params)


@pytest.mark.parametrize("seed", [-1, 2**63, 0.5])
def test_a_seed_is_a_number_that_an_input_can_hold(tmp_path: Path, seed: Any) -> None:
    net = perceptron()
    trained = training(net, optimizer=sgd(0.1))
    for attempt in (
        lambda: export(net, tmp_path / "model.onnx", seed=seed),
        lambda: export(trained, tmp_path / "step.onnx", to="step", seed=seed),
        lambda: Trainer(trained, seed=seed),
        lambda: training(net, optimizer=sgd(0.1), seed=seed),
    ):
        with pytest.raises(ModelError, match="seed must be"):
            attempt()


def test_an_input_that_tells_a_size_alone_is_kept(tmp_path: Path) -> None:
    @model(predict="sample")
    def sampler(x: Any = f32["batch", 4]) -> Any:
        noise = random_normal(x.shape)
        return {"sample": noise >> Dense(3), "loss": mse(x >> Dense(4), x)}

    (path,) = export(sampler, tmp_path / "sampler.onnx", seed=0)
    for count in (1, 5):
        assert run(path, {"x": np.zeros((count, 4), np.float32)})["sample"].shape == (count, 3)
