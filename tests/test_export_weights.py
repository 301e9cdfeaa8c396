"""Weights of exported models: beside the model, in a checkpoint, missing, shared, of a part."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from safetensors.numpy import load_file, save_file

from dsl import Dense, model, relu
from nncompile.backends.onnx import to_model
from nncompile.compiler.export import export
from nncompile.diagnostics.errors import BackendError, CheckpointError, FileError, ModelError
from nncompile.ir.graph import Graph
from nncompile.ir.types import f32
from nncompile.optim import adam, sgd
from nncompile.program.composition import compose
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from nncompile.program.recipe import ema, minimize, training
from nncompile.runtime import save_state
from nncompile.runtime.tensor_files import state_path, weights_path
from nncompile.train import Trainer
from tests.export_checks import recipe, run
from tests.leaves import leaf
from tests.small_models import data, drawn, perceptron
from tests.tolerances import assert_close


def test_weights_beside_the_model(tmp_path: Path) -> None:
    model = perceptron()
    (inside,) = export(model, tmp_path / "inside.onnx", seed=0)
    weights, path = export(model, tmp_path / "out" / "model.onnx", external_data=True, seed=0)
    assert weights == weights_path(path) == tmp_path / "out" / "model.weights.safetensors"
    numbers = load_file(weights)["hidden.weight"].tobytes()
    assert (numbers in inside.read_bytes(), numbers in path.read_bytes()) == (True, False)
    np.testing.assert_array_equal(run(path, data(5))["y"], run(inside, data(5))["y"])
    np.testing.assert_array_equal(
        load_file(weights)["out.weight"], initial_values(model, 0)["out.weight"]
    )
    onnx.checker.check_model(str(path), full_check=True)


def test_files_beside_a_model_are_replaced_only_where_an_export_wrote_them(tmp_path: Path) -> None:
    """A checkpoint of the same stem keeps its slots, and so does one of a name that is ours."""
    ours = Trainer(recipe())
    saved = ours.save(tmp_path / "digits.safetensors")
    before = saved.read_bytes()
    path = tmp_path / "digits.onnx"
    for seed in (0, 1):  # the second one replaces what the first one wrote
        export(ours.recipe, path, external_data=True, seed=seed)
        export(ours.recipe, path.with_stem("step"), "step", seed=seed)
    weight = load_file(weights_path(path))["out.weight"]
    np.testing.assert_array_equal(weight, initial_values(ours.model, 1)["out.weight"])
    assert saved.read_bytes() == before

    model = path.read_bytes()
    for file, options in (
        (weights_path(path), {"external_data": True}),
        (state_path(path), {"to": "step"}),
    ):
        for content in (before, b"notes"):
            file.write_bytes(content)
            with pytest.raises(FileError, match="no export wrote it"):
                export(ours.recipe, path, **options)  # type: ignore[arg-type]
            assert (path.read_bytes(), file.read_bytes()) == (model, content)


def test_models_of_one_stem_have_files_of_their_own(tmp_path: Path) -> None:
    assert state_path("a/net.onnx") == Path("a/net.state.safetensors")
    names = {weights_path(tmp_path / name).name for name in ("net.v1", "net.v2", "net.onnx")}
    assert names == {
        "net.v1.weights.safetensors",
        "net.v2.weights.safetensors",
        "net.weights.safetensors",
    }


def test_a_full_disk_leaves_weights_and_model_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    export(perceptron(), path, external_data=True, seed=0)
    files = {file: file.read_bytes() for file in tmp_path.iterdir()}
    assert len(files) == 2

    def full(*_: Any) -> Path:
        raise FileError("no space")

    monkeypatch.setattr(sys.modules["nncompile.compiler.inference_files"], "write_atomically", full)
    with pytest.raises(FileError, match="no space"):
        export(perceptron(), path, external_data=True, seed=1)
    assert {file: file.read_bytes() for file in tmp_path.iterdir()} == files


def test_weights_in_a_checkpoint(tmp_path: Path) -> None:
    ours = Trainer(recipe())
    ours.fit(data(), epochs=1)
    saved = ours.save(tmp_path / "saved" / "trained.safetensors")
    before = saved.read_bytes()
    (path,) = export(ours.recipe, tmp_path / "model.onnx", params=ours.state, external_data=saved)
    assert saved.read_bytes() == before
    x = data(16)["x"]
    assert_close(run(path, {"x": x})["y"], ours.predict(x)["y"], "float32")


def test_weights_that_cannot_be_pointed_at_are_told(tmp_path: Path) -> None:
    model, path = perceptron(), tmp_path / "models" / "model.onnx"
    save_file({"out.weight": np.zeros(3, np.float32)}, tmp_path / "models.safetensors")
    with pytest.raises(BackendError, match="or below it"):
        export(model, path, external_data=tmp_path / "models.safetensors")
    with pytest.raises(FileError, match="cannot read"):
        export(model, path, external_data=path.with_name("none.safetensors"))
    path.parent.mkdir()
    other = path.with_name("other.safetensors")
    save_file({"out.weight": np.zeros(3, np.float32)}, other)
    with pytest.raises(CheckpointError, match="does not hold the weight hidden"):
        export(model, path, external_data=other)
    for content in (b"", b"\xff" * 40, other.read_bytes()[:20]):
        other.write_bytes(content)
        with pytest.raises(CheckpointError, match="not a complete safetensors file"):
            export(model, path, external_data=other)
    assert not path.exists()


def test_a_model_that_is_too_large_has_its_weights_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.modules["nncompile.compiler.inference_files"], "LIMIT", 100)
    assert len(export(perceptron(), tmp_path / "model.onnx", seed=0)) == 2
    with pytest.raises(BackendError, match="do not fit in one ONNX file"):
        export(perceptron(), tmp_path / "inside.onnx", external_data=False)


def test_a_model_with_one_weight_many_times_over(tmp_path: Path) -> None:
    """Names of outputs, leaves and constants that coincide do not disturb one another."""
    w, x = leaf("w", f32[2], "parameter"), leaf("x", f32["n", 2])
    outputs = {"y": x * w, "same": x * w, "weight": w, "loss": (x * w).sum()}
    model = Model("m", Graph("m", outputs, (x,)), {"w": drawn("w", f32[2])})
    (path,) = export(model, tmp_path / "model.onnx", seed=0)
    ones = np.ones((3, 2), np.float32)
    found = run(path, {"x": ones})
    expected = initial_values(model, 0)["w"]
    for name, shape in {"y": (3, 2), "same": (3, 2), "weight": (2,)}.items():
        np.testing.assert_array_equal(found[name], np.broadcast_to(expected, shape))
    step = training(model, updates=[minimize("loss", optimizer=sgd(1.0))])
    assert to_model(compose(step).step).graph.output


@pytest.mark.parametrize("to", ["onnx", "step"])
def test_weights_that_are_missing_are_never_drawn(tmp_path: Path, to: str) -> None:
    ours = Trainer(recipe())
    state = ours.state
    partial = {name: x for name, x in state.items() if name != "hidden.bias"}
    foreign = {"out.weight": state["out.weight"]}
    for params in ({}, partial, foreign):
        with pytest.raises(
            ModelError, match=r"params does not fit this model: (.|\n)*hidden\.bias"
        ):
            export(ours.recipe, tmp_path / "a.onnx", to, params=params)
        if not params:  # which makes no file of safetensors
            continue
        file = save_state(tmp_path / "some.safetensors", params)
        with pytest.raises(
            CheckpointError, match=r"some\.safetensors does not fit this (.|\n)*hidden"
        ):
            export(ours.recipe, tmp_path / "a.onnx", to, params=file)
    assert [file.name for file in tmp_path.iterdir()] == ["some.safetensors"]


@pytest.mark.parametrize("to", ["onnx", "torchscript"])
def test_a_part_of_what_was_trained_takes_its_weights_from_all(
    tmp_path: Path, to: str, torchscript: Any
) -> None:
    """Of a whole state: slots, averages and the parameters of the other part lie by."""

    @model
    def generator(z: Any = f32["batch", 4]) -> Any:
        return {"image": z >> Dense(8, relu, name="first") >> Dense(2, name="gen")}

    @model
    def gan(z: Any = f32["batch", 4], real: Any = f32["batch", 2]) -> Any:
        judge = Dense(1, name="judge")
        image = generator(z)["image"]
        return {"image": image, "loss": (judge(image) - 1).mean() + (judge(real) ** 2).mean()}

    trainer = Trainer(training(gan, optimizer=adam(0.01), average=ema(0.5)))
    examples = {"z": data(16)["x"], "real": data(16)["target"]}
    trainer.fit(examples, epochs=2)
    file = trainer.save(tmp_path / "gan.safetensors")
    z = {"z": examples["z"]}
    for params in (trainer.state, trainer.averaged(), file):
        held = None if params is file else params
        expected = trainer.predict(z, params=held)["image"]
        (path,) = export(generator, tmp_path / "gen.out", to, params=params)
        if to == "onnx":
            found = run(path, z)["image"]
        else:
            module = torchscript.torch.jit.load(str(path))
            found = module(torchscript.torch.from_numpy(z["z"]))["image"].detach().numpy()
        assert_close(found, expected, "float32")
    lacking = {n: x for n, x in trainer.state.items() if n != "gen.weight"}
    lacking["gen.wieght"] = trainer.state["gen.weight"]
    words = (
        r"params does not fit this model: 1 missing, 9 unknown; expected 6"
        r"(.|\n)*missing +gen\.weight(.|\n)*unknown +judge\.weight"
        r"(.|\n)*'gen\.wieght' may be 'gen\.weight' renamed"
    )
    with pytest.raises(ModelError, match=words):
        export(generator, tmp_path / "gen.out", to, params=lacking)
    other = trainer.state | {"gen.weight": np.zeros((8, 3), np.float32)}
    with pytest.raises(ModelError, match=r"1 of another type; (.|\n)*differs +gen\.weight"):
        export(generator, tmp_path / "gen.out", to, params=other)


def test_running_statistics_are_weights_too(tmp_path: Path) -> None:
    x, mean = leaf("x", f32["n"]), leaf("mean", f32[()], "state")
    graph = Graph("m", {"y": x - mean, "loss": (x - mean).sum()}, (x, mean))
    model = Model("m", graph, {"mean": drawn("mean", f32[()])}, {"mean": mean + x.mean()})
    with pytest.raises(ModelError, match=r"missing  mean  f32\[\]"):
        export(model, tmp_path / "a.onnx", params={})
    export(model, tmp_path / "a.onnx", params={"mean": np.float32(3)})
    assert run(tmp_path / "a.onnx", {"x": np.ones(1, np.float32)})["y"] == -2


@pytest.mark.parametrize("to", ["onnx", "step"])
def test_the_file_of_a_checkpoint_gives_the_weights(tmp_path: Path, to: str) -> None:
    ours = Trainer(recipe())
    ours.fit(data(), epochs=1)
    saved = ours.save(tmp_path / "saved.safetensors")
    *_, from_state = export(ours.recipe, tmp_path / "state.onnx", to, params=ours.state)
    *_, from_file = export(ours.recipe, tmp_path / "file.onnx", to, params=saved)
    assert from_file.read_bytes() == from_state.read_bytes()
    if to == "step":
        for name, x in load_file(state_path(from_file)).items():
            np.testing.assert_array_equal(x, ours.state[name])


def test_weights_beyond_the_end_of_their_file_are_refused(tmp_path: Path) -> None:
    net = perceptron()
    whole, cut = tmp_path / "whole.safetensors", tmp_path / "cut.safetensors"
    save_file({name: np.zeros(v.shape, np.float32) for name, v in net.parameters.items()}, whole)
    cut.write_bytes(whole.read_bytes()[:-4])
    with pytest.raises(
        CheckpointError, match=r"cut\.safetensors is not .*: its tensors need 224 bytes, it has 220"
    ):
        export(net, tmp_path / "model.onnx", external_data=cut)
    assert not (tmp_path / "model.onnx").exists()
    export(net, tmp_path / "model.onnx", external_data=whole)
