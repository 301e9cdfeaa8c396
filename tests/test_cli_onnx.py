"""Commands that take ONNX files in the place of model files, and the one that writes these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from nncompile.compiler.export import export
from nncompile.program.model_file import load
from nncompile.train import Trainer
from tests import command_line
from tests.command_line import fails, succeeds
from tests.onnx_files import (
    FLOAT,
    INT64,
    convolutional,
    run,
    tied_language_model,
    weight,
    written,
)

node = helper.make_node


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return convolutional(tmp_path / "images.onnx")


@pytest.fixture
def beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*arguments: object) -> Any:
    """The object that a command prints; what people read is on the standard error."""
    result = command_line.run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_verify_and_check_compare_what_has_no_loss_and_say_what_they_leave_out(
    beside: Path,
) -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    written(beside / "m.onnx", nodes, {"x": (FLOAT, ["N", 5])}, ["y"], {"w": weight(5, 3)})
    checked = succeeds("check", "m.onnx")
    assert "pass  ONNX forward" in checked
    assert "gradients and training steps: not compared, m.onnx has no loss" in checked
    assert "nncompile import m.onnx" in checked
    assert found("verify", "m.onnx", "--quick")["left_out"].startswith("gradients and training")


def test_a_file_is_shown_and_summarized(images: Path) -> None:
    assert "conv(image, stem.weight" in succeeds("show", images)
    assert "parameters  141 in 5 tensors" in succeeds("show", images, "--summary")
    assert "f32[batch, 5]" in found("show", images, "--summary")["summary"]


def test_a_file_is_compiled_with_the_weights_that_it_has(images: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.onnx"
    # Nothing on the standard error: the weights are no initial ones.
    succeeds("compile", images, "-o", again)
    assert found("compile", images, "-o", again)["initial_weights"] is False
    image = np.random.default_rng(0).normal(size=(2, 3, 6, 8)).astype(np.float32)
    for ours, theirs in zip(
        run(again, {"image": image}), run(images, {"image": image}), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "arguments",
    [("train",), ("show", "--stage", "step"), ("show", "--profile"), ("compile", "--to", "step"),
     ("sweep", "--grid", "rate=1"), ("lr-find",), ("sweep", "--random", "2")],
    ids=" ".join,
)  # fmt: skip
def test_what_needs_a_recipe_says_how_to_get_one(images: Path, arguments: tuple[str, ...]) -> None:
    command, *options = arguments
    message = fails(command, images, *options)
    assert "images.onnx" in message
    assert f"nncompile import {images}" in message


def test_an_onnx_file_has_no_options(images: Path) -> None:
    assert "images.onnx has no option 'width'" in fails("show", images, "--set", "width=3")


def test_import_prints_what_a_file_holds(beside: Path) -> None:
    tied_language_model(beside / "language.onnx")
    text = succeeds("import", "language.onnx")
    for line in (
        "language.onnx: 24 nodes of opset 17",
        "input   ids     i64[batch, seq]",
        "output  logits  f32[batch, seq, 20]",
        "operators: MatMul 4, Gather 3,",
        "parameters: 232 in 3 tensors, 928 bytes",
        "tok.weight  tok.weight = onnx::MatMul_12 transposed",
        "block.o.weight  was onnx::MatMul_9",
        "wrote language.py",
        "nncompile train language.py",
    ):
        assert line in text, text
    described = found("import", "language.onnx", "--overwrite")
    assert described["inputs"] == {"ids": "i64[batch, seq]"}
    assert described["operators"]["MatMul"] == 4
    assert described["ties"] == {"tok.weight": ["tok.weight", "onnx::MatMul_12 transposed"]}
    assert described["files"][0]["path"] == "language.py"


def test_a_long_report_is_cut_short_without_verbose(beside: Path) -> None:
    nodes = [node("Add", [f"x{i}", f"w{i}"], [f"x{i + 1}"]) for i in range(30)]
    weights = {f"w{i}": weight(4, seed=i) for i in range(30)}
    written(beside / "deep.onnx", nodes, {"x0": (FLOAT, ["batch", 4])}, ["x30"], weights)
    assert "... 10 more" in succeeds("import", "deep.onnx")
    assert "more" not in succeeds("import", "deep.onnx", "-o", "b.py", "--verbose")


def test_the_written_file_trains_the_network_of_the_onnx_file(images: Path, beside: Path) -> None:
    succeeds("import", images, "-o", beside / "net" / "tuning.py")
    declared = load(beside / "net" / "tuning.py")
    rng = np.random.default_rng(0)
    data = {
        "image": rng.normal(size=(32, 3, 6, 8)).astype(np.float32),
        "label": rng.integers(0, 5, 32),
    }
    assert list(declared.model.inputs) == ["image", "label"]
    trainer = Trainer(declared.recipe)
    feeds = {"image": data["image"]}
    trainer.export(beside / "first.onnx")
    np.testing.assert_allclose(
        run(beside / "first.onnx", feeds)[0], run(images, feeds)[0], rtol=1e-4, atol=1e-5
    )
    before = trainer.evaluate(data)["loss"]
    trainer.fit(data, epochs=20, batch_size=32, verbose=0)
    assert trainer.evaluate(data)["loss"] < before


def test_import_replaces_no_file_unless_it_is_told_to(images: Path, beside: Path) -> None:
    (beside / "images.py").write_text("mine")
    assert "images.py exists already" in fails("import", images)
    assert (beside / "images.py").read_text() == "mine"
    succeeds("import", images, "--overwrite")
    assert "load_onnx" in (beside / "images.py").read_text()
    assert "-o a.py" in fails("import", images, "-o", "a.txt")


def two_heads(path: Path) -> Path:
    """Inputs whose names are none of Python's, an integer result and one of probabilities."""
    nodes = [
        node("Concat", ["input.1", "class"], ["x"], axis=1),
        node("MatMul", ["x", "w"], ["scores"]),
        node("ArgMax", ["scores"], ["best:0"], axis=1, keepdims=0),
        node("Softmax", ["scores"], ["p:0"], axis=1),
    ]
    inputs = {"input.1": (FLOAT, ["N", 3]), "class": (FLOAT, ["N", 2])}
    return written(path, nodes, inputs, ["best:0", "p:0"], {"w": weight(5, 4)})


def test_several_inputs_and_outputs_and_names_that_python_has_not(beside: Path) -> None:
    two_heads(beside / "two heads.onnx")
    succeeds("import", "two heads.onnx")
    source = (beside / "two_heads.py").read_text()
    assert '@model(predict=("best:0", "p:0"))' in source
    assert 'input_1=f32["N", 3], class_2=f32["N", 2], label=i64["N"]' in source
    assert "negative_log_likelihood(log(scores), label)" in source
    declared = load("two_heads.py")
    export(declared.model, "again.onnx", seed=0)
    feeds = {"input_1": np.ones((2, 3), np.float32), "class_2": np.eye(2, dtype=np.float32)}
    names = {"input_1": "input.1", "class_2": "class"}
    expected = run(beside / "two heads.onnx", {names[n]: x for n, x in feeds.items()})
    for ours, theirs in zip(run(beside / "again.onnx", feeds), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


@pytest.mark.parametrize("name", ["digits_qdq", "tumors_sklearn"])
def test_probabilities_that_may_be_zero_have_a_loss_that_is_finite(beside: Path, name: str) -> None:
    """A softmax that is quantized, and a sigmoid beside what is left of 1, of a file that has an
    output called label."""
    models = Path(__file__).parent.parent / "examples" / "models"
    (beside / f"{name}.onnx").write_bytes((models / f"{name}.onnx").read_bytes())
    succeeds("import", f"{name}.onnx")
    declared = load(f"{name}.py")
    assert "negative_log_likelihood(log(maximum(scores" in Path(f"{name}.py").read_text()
    trainer = Trainer(declared.recipe)
    *features, label = declared.model.inputs
    shapes = {name: declared.model.inputs[name].shape[1:] for name in features}
    # Far from all that the networks have seen, they are as sure as can be.
    data = {name: np.full((8, *shape), 1e3, np.float32) for name, shape in shapes.items()}
    trainer.fit({**data, label: np.arange(8) % 2}, steps=2, verbose=0)
    assert all(np.isfinite(x).all() for x in trainer.params.values())


OUTPUTS: dict[str, tuple[str, list[Any], str, str]] = {
    "Sigmoid": ("Sigmoid", ["N", 3], 'target=f32["N", 3]', "binary_cross_entropy(scores, target)"),
    "LogSoftmax": ("LogSoftmax", ["N", 3], 'label=i64["N"]', "negative_log_likelihood(scores,"),
    "numbers": ("Tanh", ["N", 1], 'target=f32["N", 1]', "mean_squared_error(scores, target)"),
    "tokens": ("Relu", ["N", "t", 9], 'label=i64["N", "t"]', "cross_entropy(scores, label)"),
    "pixels": ("Relu", ["N", 2, 4, 4], 'label=i64["N", 4, 4]', "cross_entropy(scores, label, axis"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_the_loss_follows_from_the_output(beside: Path, kind: str) -> None:
    op, shape, label, loss = OUTPUTS[kind]
    nodes = [node("MatMul", ["x", "w"], ["h"]), node(op, ["h"], ["y"])]
    inputs = {"x": (FLOAT, [*shape[:-1], 3])}
    written(beside / "m.onnx", nodes, inputs, ["y"], {"w": weight(3, shape[-1])})
    succeeds("import", "m.onnx")
    source = (beside / "m.py").read_text()
    assert label in source
    assert loss in source
    assert load("m.py").recipe.model.metrics


def test_a_file_without_an_output_of_floats_is_imported_without_a_loss(beside: Path) -> None:
    written(beside / "m.onnx", [node("Add", ["x", "x"], ["y"])], {"x": (INT64, ["N"])}, ["y"])
    succeeds("import", "m.onnx")
    assert "nothing to train, or no output of real" in (beside / "m.py").read_text()
    assert not load("m.py").recipes


def test_a_batch_that_the_file_fixes_is_opened_where_its_nodes_let_it(beside: Path) -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"])]
    written(beside / "m.onnx", nodes, {"x": (FLOAT, [4, 5])}, ["y"], {"w": weight(5, 3)})
    succeeds("import", "m.onnx")
    assert 'sizes={"x[0]": "batch"}' in (beside / "m.py").read_text()
    recipe = load("m.py").recipe
    assert str(recipe.model.inputs["x"].type) == "f32[batch, 5]"
    data = {"x": np.ones((64, 5), np.float32), "label": np.zeros(64, np.int64)}
    before = Trainer(recipe).evaluate(data)["loss"]
    assert Trainer(recipe).fit(data, epochs=2, verbose=0)["loss"][-1] < before


def test_a_batch_that_nodes_need_is_that_of_the_recipe(beside: Path) -> None:
    nodes = [node("Reshape", ["x", "four"], ["a"]), node("MatMul", ["a", "w"], ["y"])]
    weights = {"w": weight(5, 3), "four": np.asarray([4, 5])}
    written(beside / "m.onnx", nodes, {"x": (FLOAT, [4, 5])}, ["y"], weights)
    succeeds("import", "m.onnx")
    assert "The file fixes its batch at 4" in (beside / "m.py").read_text()
    assert load("m.py").recipe.batch_size == 4


def test_what_cannot_be_imported_is_one_message(beside: Path) -> None:
    nodes = [node("StringNormalizer", ["x"], ["y"])]
    written(beside / "m.onnx", nodes, {"x": (onnx.TensorProto.STRING, ["N"])}, ["y"])
    for command in ("import", "check", "show", "compile"):
        result = command_line.run(command, "m.onnx")
        assert result.exit_code == 2
        assert "m.onnx: 1 node cannot be imported" in result.stderr
        assert "texts" in result.stderr
    assert "nothing.onnx" in fails("import", "nothing.onnx")
