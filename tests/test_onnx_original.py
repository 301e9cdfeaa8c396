"""Models of files, written as these files with other weights."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from dsl import Dense, f32, lora, mean_squared_error, model, training
from nncompile import Trainer, export, load_onnx, merge
from nncompile.compiler.originals import inference_target
from nncompile.diagnostics.errors import ModelError
from nncompile.finetuning.objectives import with_loss
from nncompile.frontends.onnx.differences import differences
from nncompile.optim import adam
from nncompile.program.heads import with_new_head
from tests.onnx_files import FLOAT, convolutional, run, tied_language_model, weight, written

node = helper.make_node


def tuned(base: Any, loss: str, label: Any, feeds: Mapping[str, Any]) -> Trainer:
    """The model trained for a few steps on its only output."""
    (output,) = base.predict
    net = with_loss(base, loss, output, "label", label).model
    trainer = Trainer(training(net, optimizer=adam(3e-2)), threads=1)
    trainer.fit({**feeds, "label": label}, steps=4, verbose=0)
    return trainer


def weights(file: Path) -> dict[str, Any]:
    return {t.name: numpy_helper.to_array(t) for t in onnx.load(file).graph.initializer}


def check(trainer: Trainer, file: Path, path: Path, feeds: Mapping[str, Any]) -> set[str]:
    """That the file which is written computes what the trainer predicts and has the nodes, names
    and metadata of the first; and which of its weights are others."""
    export(trainer, path, "original")
    (output,) = trainer.model.predict
    (found,) = run(path, feeds, [output])
    expected = trainer.predict(feeds)[output]
    np.testing.assert_allclose(found, expected, 1e-4, 1e-5 * np.abs(expected).max())
    before, after = onnx.load(file), onnx.load(path)
    for one, two in ((before, after), (before.graph, after.graph)):
        for field in ("node", "input", "opset_import", "producer_name", "metadata_props", "name"):
            if field in one.DESCRIPTOR.fields_by_name:
                assert getattr(one, field) == getattr(two, field)
    old, new = weights(file), weights(path)
    assert list(old) == list(new)
    return {name for name, x in new.items() if not np.array_equal(x, old[name])}


def test_all_weights_and_statistics_are_in_their_places(tmp_path: Path) -> None:
    file = convolutional(tmp_path / "m.onnx")
    feeds = {"image": 2 + weight(8, 3, 6, 8, seed=7)}
    trainer = tuned(load_onnx(file), "cross_entropy", np.arange(8) % 5, feeds)
    changed = check(trainer, file, tmp_path / "tuned.onnx", feeds)
    assert changed == set(weights(file))
    assert load_onnx(tmp_path / "tuned.onnx").report.trained == load_onnx(file).report.trained


def test_factors_and_transposed_ties_are_merged(tmp_path: Path) -> None:
    file = tied_language_model(tmp_path / "m.onnx")
    base = lora(load_onnx(file, prefix="lm"), rank=2, params="lm.tok.*")
    ids = np.random.default_rng(0).integers(0, 20, (4, 5))
    trainer = tuned(base, "cross_entropy", np.roll(ids, -1, 1), {"ids": ids})
    changed = check(trainer, file, tmp_path / "tuned.onnx", {"ids": ids})
    assert changed == {"tok.weight", "onnx::MatMul_12"}
    found = weights(tmp_path / "tuned.onnx")
    np.testing.assert_array_equal(found["tok.weight"].T, found["onnx::MatMul_12"])
    export(merge(base, trainer.state), tmp_path / "merged.onnx", "original")
    assert (tmp_path / "merged.onnx").read_bytes() == (tmp_path / "tuned.onnx").read_bytes()


def test_a_new_head_has_its_place(tmp_path: Path) -> None:
    file = convolutional(tmp_path / "m.onnx")
    changed, _ = with_new_head(load_onnx(file), 7)
    feeds = {"image": weight(8, 3, 6, 8, seed=7)}
    trainer = tuned(changed, "cross_entropy", np.arange(8) % 7, feeds)
    check(trainer, file, tmp_path / "tuned.onnx", feeds)
    assert weights(tmp_path / "tuned.onnx")["fc.weight"].shape == (7, 4)
    tied, _ = with_new_head(load_onnx(tied_language_model(tmp_path / "t.onnx")), 3)
    assert inference_target(tied) == ("onnx", "its outputs are computed in another way now")


def test_a_vector_that_an_exporter_merged_is_two_where_it_became_two(tmp_path: Path) -> None:
    nodes = [
        node("MatMul", ["x", "a"], ["y"]),
        node("Mul", ["y", "ones"], ["z"], name="/one/Mul"),
        node("MatMul", ["z", "b"], ["w"]),
        node("Mul", ["w", "ones"], ["out"], name="/two/Mul"),
    ]
    tensors = {"a": weight(3, 4), "b": weight(4, 4, seed=1), "ones": np.ones(4, np.float32)}
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 3])}, ["out"], tensors)
    feeds = {"x": weight(6, 3, seed=2)}
    trainer = tuned(load_onnx(file), "mse", weight(6, 4, seed=3), feeds)
    export(trainer, tmp_path / "tuned.onnx", "original")
    (found,) = run(tmp_path / "tuned.onnx", feeds)
    np.testing.assert_allclose(found, trainer.predict(feeds)["out"], 1e-4, 1e-5)
    assert set(weights(tmp_path / "tuned.onnx")) == {"a", "b", "ones", "ones.1"}
    export(load_onnx(file), tmp_path / "again.onnx", "original")
    assert set(weights(tmp_path / "again.onnx")) == {"a", "b", "ones"}  # not trained: one still


@pytest.mark.parametrize("axis", [None, 0, 1])
def test_quantized_weights_are_quantized_again(tmp_path: Path, axis: int | None) -> None:
    rng = np.random.default_rng(0)
    size = () if axis is None else ((4, 3)[axis],)
    scale = rng.uniform(0.01, 0.02, size).astype(np.float32)
    attributes = {} if axis is None else {"axis": axis}
    nodes = [
        node("DequantizeLinear", ["q", "scale", "zero"], ["w"], **attributes),
        node("MatMul", ["x", "w"], ["y"]),
    ]
    tensors = {
        "q": rng.integers(-120, 120, (4, 3)).astype(np.int8),
        "scale": scale,
        "zero": np.zeros(size, np.int8),
    }
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], tensors)
    feeds = {"x": weight(6, 4, seed=2)}
    trainer = tuned(load_onnx(file), "mse", weight(6, 3, seed=3), feeds)
    assert check(trainer, file, tmp_path / "tuned.onnx", feeds) == {"q"}
    assert weights(tmp_path / "tuned.onnx")["q"].dtype == np.int8
    changed, _ = with_new_head(load_onnx(file), 5)
    _, reason = inference_target(changed)
    assert reason in ("a quantized weight is of another size",
                      "its outputs are computed in another way now")  # fmt: skip


def test_weights_in_nodes_and_beside_the_file(tmp_path: Path) -> None:
    """Constants are replaced in their nodes; what lay in another file is in this one then."""
    constant = numpy_helper.from_array(weight(3, 2), "value")
    nodes = [node("Constant", [], ["w"], value=constant), node("MatMul", ["x", "w"], ["y"])]
    file = written(tmp_path / "m.onnx", nodes, {"x": (FLOAT, ["n", 3])}, ["y"])
    feeds = {"x": weight(6, 3, seed=2)}
    trainer = tuned(load_onnx(file), "mse", weight(6, 2, seed=3), feeds)
    export(trainer, tmp_path / "tuned.onnx", "original")
    (found,) = run(tmp_path / "tuned.onnx", feeds)
    np.testing.assert_allclose(found, trainer.predict(feeds)["y"], 1e-4, 1e-5)
    beside = convolutional(tmp_path / "a.onnx")
    external = tmp_path / "b.onnx"
    onnx.save(onnx.load(beside), external, save_as_external_data=True, size_threshold=0)
    export(load_onnx(external), tmp_path / "c.onnx", "original")
    for name, x in weights(tmp_path / "c.onnx").items():
        np.testing.assert_array_equal(x, weights(beside)[name])
    assert (
        not onnx.load(tmp_path / "c.onnx", load_external_data=False)
        .graph.initializer[0]
        .external_data
    )


def test_what_is_no_longer_the_file_is_told(tmp_path: Path) -> None:
    file = convolutional(tmp_path / "m.onnx")
    base = load_onnx(file)
    assert inference_target(base) == ("original", None)
    assert inference_target(lora(base, 2)) == ("original", None)

    @model
    def net(image=f32["batch", 3, 8, 8], target=f32["batch", 2]):
        y = base(image)["logits"] >> Dense(2, name="head")
        return {"y": y, "loss": mean_squared_error(y, target)}

    assert inference_target(net) == ("onnx", None)
    with pytest.raises(ModelError, match="net was not loaded from an ONNX file"):
        export(net, tmp_path / "a.onnx", "original", seed=0)
    cut = load_onnx(file, outputs=["features"])
    with pytest.raises(ModelError, match="it was loaded without some of its outputs"):
        export(cut, tmp_path / "a.onnx", "original")
    made = inference_target(dataclasses.replace(base, original=None))
    assert made == ("onnx", "it was made without its file")
    proto = onnx.load(file)
    proto.graph.node[2].op_type = "Sigmoid"
    onnx.save(proto, file)
    with pytest.raises(ModelError, match=r"m\.onnx was changed since it was loaded"):
        export(base, tmp_path / "a.onnx", "original")
    file.unlink()
    with pytest.raises(ModelError, match=r"m\.onnx is gone"):
        export(base, tmp_path / "a.onnx", "original")


@pytest.mark.parametrize("kind", ["regressor", "classifier"])
def test_linear_models_of_scikit_learn_go_on(tmp_path: Path, kind: str) -> None:
    """Their weights are attributes of a node, and are written there."""
    rng = np.random.default_rng(0)
    x, count = rng.normal(size=(24, 4)).astype(np.float32), 1 if kind == "regressor" else 3
    attributes: dict[str, Any] = {"coefficients": rng.normal(size=4 * count).tolist()}
    outputs = ["y"]
    if kind == "classifier":
        attributes |= {"classlabels_ints": [0, 1, 2], "post_transform": "SOFTMAX"}
        outputs = ["label", "y"]
    one = node(
        f"Linear{kind.title()}", ["x"], outputs, domain="ai.onnx.ml", name="linear",
        intercepts=[0.1] * count, **attributes,
    )  # fmt: skip
    ml = [helper.make_opsetid("ai.onnx.ml", 1)]
    inputs = {"x": (FLOAT, ["n", 4])}
    file = written(tmp_path / "m.onnx", [one], inputs, outputs, opsets=ml)
    base = load_onnx(file)
    assert {p: str(v.type) for p, v in base.parameters.items()} == {
        "linear.coefficients": f"f32[{count}, 4]", "linear.intercepts": f"f32[{count}]",
    }  # fmt: skip
    (before,) = run(file, {"x": x}, ["y"])
    loss, label = ("mse", weight(24, 1)) if count == 1 else ("cross_entropy", np.arange(24) % 3)
    net = with_loss(base, loss, "y", "wanted", label).model
    trainer = Trainer(training(net, minimize="loss", optimizer=adam(1e-2)), threads=1)
    np.testing.assert_allclose(trainer.predict({"x": x})["y"], before, 1e-5, 1e-6)
    losses = trainer.fit({"x": x, "wanted": label}, epochs=20, verbose=0)["loss"]
    assert losses[-1] < 0.9 * losses[0]
    export(trainer, tmp_path / "tuned.onnx", "original")
    (after,) = run(tmp_path / "tuned.onnx", {"x": x}, ["y"])
    np.testing.assert_allclose(after, trainer.predict({"x": x})["y"], 1e-5, 1e-6)
    found = differences(file, tmp_path / "tuned.onnx")
    assert found.is_same_graph and found.weights == 2
    assert {change.name for change in found.changed} == set(base.parameters)


@pytest.mark.parametrize("kind", ["whole", "adapted", "quantized"])
def test_a_copy_knows_its_file(tmp_path: Path, kind: str) -> None:
    """Of a model that is pickled, as where processes train it."""
    file = tied_language_model(tmp_path / "m.onnx")
    if kind == "quantized":
        nodes = "q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  y = MatMul(d, w)"
        tensors = {"s": np.float32(0.1), "z": np.uint8(9), "w": weight(4, 3)}
        file = written(tmp_path / "q.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], tensors)
        assert load_onnx(file).outputs["y"] is load_onnx(file).outputs["y"]
    base = load_onnx(file)
    if kind == "adapted":
        base = lora(base, 2)
    again = pickle.loads(pickle.dumps(base))
    assert inference_target(again) == ("original", None)
    assert list(again.original.outputs) == list(base.original.outputs)
    assert all(v is base.original.outputs[n] for n, v in again.original.outputs.items())
    for model_, path in ((base, "a.onnx"), (again, "b.onnx")):
        export(model_, tmp_path / path, "original", seed=0)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    file.rename(tmp_path / "elsewhere.onnx")
    assert inference_target(again)[1] == f"{file} is gone"


def test_a_file_in_training_mode_is_written_anew(tmp_path: Path) -> None:
    """It would normalize by the batch where it is used."""
    proto = onnx.load(convolutional(tmp_path / "m.onnx"))
    normalization = proto.graph.node[1]
    normalization.attribute.append(helper.make_attribute("training_mode", 1))
    normalization.output.extend(["mean.out", "var.out"])
    onnx.save(proto, tmp_path / "m.onnx")
    target, reason = inference_target(load_onnx(tmp_path / "m.onnx"))
    assert target == "onnx"
    assert reason == "it is in training mode, as of /bn/BatchNormalization"
