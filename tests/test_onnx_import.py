"""ONNX files as models: numbers, roles, names, ties, training, and what is refused."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from dsl import LSTM, Dense, TransformerEncoder, adam, cross_entropy, f32, i64, model
from nncompile import (
    BackendError,
    ModelError,
    Trainer,
    export,
    grad,
    load_onnx,
    training,
)
from nncompile.diagnostics.errors import CompileError, FileError
from nncompile.frontends.onnx.refusals import ImportRefused
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.printer import text
from nncompile.program.initialization import initial_values
from tests.onnx_files import FLOAT, INT64, convolutional, run, tied_language_model, weight, written

node = helper.make_node


def outputs_of(net: Any, feeds: Any) -> Any:
    graph = net.inference()
    return evaluate(graph, {**initial_values(net, 0), **feeds})


@pytest.fixture
def language(tmp_path: Path) -> Path:
    return tied_language_model(tmp_path / "language.onnx")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    return convolutional(tmp_path / "images.onnx")


@pytest.mark.parametrize("batch, seq", [(1, 3), (2, 5)])
def test_shapes_that_are_computed_hold_for_all_sizes(language: Path, batch: int, seq: int) -> None:
    net = load_onnx(language)
    ids = np.arange(batch * seq).reshape(batch, seq) % 20
    (expected,) = run(language, {"ids": ids})
    np.testing.assert_allclose(outputs_of(net, {"ids": ids})["logits"], expected, rtol=1e-5)
    assert str(net.outputs["logits"].type) == "f32[batch, seq, 20]"


def test_a_tied_weight_is_one_parameter_with_the_whole_gradient(language: Path) -> None:
    net = load_onnx(language)
    assert net.report is not None
    assert net.report.ties == {"tok.weight": ["tok.weight", "onnx::MatMul_12 transposed"]}
    assert set(net.parameters) == {"tok.weight", "block.o.weight", "block.o.bias"}
    loss = (net.outputs["logits"] ** 2).mean()
    leaf = net.parameters["tok.weight"]
    (g,) = grad(loss, [leaf])
    start = {k: v.astype(np.float64) for k, v in initial_values(net, 0).items()}
    feeds: dict[str, Any] = {"ids": np.array([[1, 4, 4, 7]])}
    graph = Graph("g", {"loss": loss, "g": g}, tuple(net.inputs.values()))
    found = evaluate(graph, {**start, **feeds}, precision=np.float64)["g"]
    step = 1e-6
    for place in [(4, 2), (7, 0), (11, 3)]:
        moved = []
        for sign in (1, -1):
            table = start["tok.weight"].copy()
            table[place] += sign * step
            fed = {**start, **feeds, "tok.weight": table}
            moved.append(evaluate(graph, fed, precision=np.float64)["loss"])
        np.testing.assert_allclose((moved[0] - moved[1]) / (2 * step), found[place], rtol=1e-5)
    apart = load_onnx(language, ties=False)
    assert len(apart.parameters) == 4


def test_statistics_are_states_that_a_training_moves(images: Path, tmp_path: Path) -> None:
    backbone = load_onnx(images, prefix="backbone", outputs=["features", "flat"])
    assert set(backbone.states) == {"backbone.bn.mean", "backbone.bn.var"}
    assert set(backbone.updates) == set(backbone.states)
    assert set(backbone.outputs) == {"features", "flat"}

    @model(predict="logits")
    def net(image=f32["batch", 3, 8, 8], label=i64["batch"]):
        logits = backbone(image)["flat"] >> Dense(3, name="head")
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    rng = np.random.default_rng(0)
    data = {
        "image": rng.standard_normal((24, 3, 8, 8)).astype(np.float32),
        "label": rng.integers(0, 3, 24),
    }
    trainer = Trainer(training(net, optimizer=adam(3e-2)))
    history = trainer.fit(data, epochs=10, batch_size=12, verbose=False)
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert not np.allclose(trainer.state["backbone.bn.mean"], weight(4, seed=3))
    export(trainer, tmp_path / "tuned.onnx")
    (found,) = run(tmp_path / "tuned.onnx", {"image": data["image"]})
    np.testing.assert_allclose(
        found, trainer.predict({"image": data["image"]})["logits"], rtol=1e-4, atol=1e-5
    )
    frozen = Trainer(training(net, optimizer=adam(1e-2), freeze="backbone.*"))
    frozen.fit(data, epochs=1, batch_size=12, verbose=False)
    np.testing.assert_array_equal(frozen.state["backbone.bn.mean"], weight(4, seed=3))
    np.testing.assert_array_equal(frozen.state["backbone.stem.weight"], weight(4, 3, 3, 3))


def test_numbers_are_those_of_the_file_in_use(images: Path) -> None:
    net = load_onnx(images, static={"height": 6})
    image = weight(2, 3, 6, 8, seed=9)
    (expected,) = run(images, {"image": image})
    np.testing.assert_allclose(outputs_of(net, {"image": image})["logits"], expected, rtol=1e-5)
    assert str(net.inputs["image"].type) == "f32[batch, 3, 6, 8]"


def test_a_model_of_a_file_is_pickled_with_its_report(images: Path) -> None:
    net = load_onnx(images)
    again = pickle.loads(pickle.dumps(net))
    assert again.report == net.report and set(again.parameters) == set(net.parameters)
    text = str(net.report)
    assert "trained (5):" in text and "states (2):" in text and "stem.weight" in text


def test_what_is_trained_may_be_chosen(images: Path) -> None:
    net = load_onnx(images, trainable=["fc.*", "bn.weight"], renames={"fc.bias": "head.bias"})
    assert set(net.parameters) == {"fc.weight", "bn.weight"}
    with pytest.raises(ModelError, match=r"trainable='heat' matches no stored tensor"):
        load_onnx(images, trainable="heat")
    with pytest.raises(ModelError, match=r"stores no tensor 'fc.bais'") as error:
        load_onnx(images, renames={"fc.bais": "x"})
    assert error.value.hint == "did you mean 'fc.bias'?"


def test_a_tensor_that_is_not_there_is_answered_with_those_like_it(images: Path) -> None:
    names = {o: n.op_type for n in onnx.load(images).graph.node for o in n.output}
    for wanted, operator in (("conv", "Conv"), ("/Relu", "Relu"), ("relu", "Relu")):
        with pytest.raises(ModelError, match="has no tensor") as error:
            load_onnx(images, outputs=[wanted])
        assert [row[0] for row in error.value.rows] == [
            n for n, o in names.items() if o == operator
        ]
        last = error.value.rows[-1][0]
        assert error.value.hint is not None and last in error.value.hint
    with pytest.raises(ModelError, match="has no tensor 'nothing'") as error:
        load_onnx(images, outputs=["nothing"])
    assert 0 < len(error.value.rows) <= 13
    assert "outputs=['Relu']" in str(error.value.hint)


def test_merged_scales_of_several_layers_are_apart(tmp_path: Path) -> None:
    nodes = [
        node("LayerNormalization", ["x", "ones", "zeros"], ["a"], name="/first/LayerNorm"),
        node("LayerNormalization", ["a", "ones", "zeros"], ["y"], name="/second/LayerNorm"),
    ]  # fmt: skip
    weights = {"ones": np.ones(4, np.float32), "zeros": np.zeros(4, np.float32)}
    path = written(tmp_path / "n.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], weights)
    net = load_onnx(path)
    assert set(net.parameters) == {"ones", "zeros", "second.weight", "second.bias"}
    assert net.report is not None and len(net.report.assumptions) == 2


def test_all_that_is_refused_stands_in_one_message(tmp_path: Path) -> None:
    nodes = [
        node("StringNormalizer", ["x"], ["a"], name="words"),
        node("Relu", ["a"], ["b"]),
        node("Reshape", ["x", "shape"], ["c"], name="turn"),
        node("Frobnicate", ["x"], ["d"], name="odd", domain="com.example"),
    ]
    path = written(
        tmp_path / "bad.onnx",
        nodes,
        {"x": (FLOAT, ["n", 4]), "shape": (INT64, [2])},
        ["b", "c", "d"],
        opsets=[helper.make_opsetid("com.example", 1)],
    )
    with pytest.raises(ImportRefused) as error:
        load_onnx(path)
    assert [(r.op, r.version, r.node) for r in error.value.refusals] == [
        ("StringNormalizer", 10, "words"),
        ("Reshape", 14, "turn"),
        ("com.example.Frobnicate", 1, "odd"),
    ]
    text = str(error.value)
    assert "bad.onnx: 3 nodes cannot be imported" in text
    row = next(line for line in text.splitlines() if "Reshape" in line)
    assert " ".join(row.split()) == "Reshape-14 f32[n, 4],i64[2] turn shape depends on data"


@pytest.mark.parametrize("condition, expected", [(True, 2.0), (False, -2.0)])
def test_a_condition_of_data_chooses_between_results(
    tmp_path: Path, condition: bool, expected: float
) -> None:
    lines = """
        y = If (c) <then_branch = branch () => (float[n] same) { same = Identity (x) },
                    else_branch = branch () => (float[n] minus) { minus = Neg (x) }>"""
    inputs = {"c": (TensorProto.BOOL, []), "x": (FLOAT, ["n"])}
    net = load_onnx(written(tmp_path / "if.onnx", lines, inputs, ["y"]))
    found = outputs_of(net, {"c": np.array(condition), "x": np.array([2.0], np.float32)})["y"]
    assert found.tolist() == [expected]


@pytest.mark.parametrize("kind", ["attention", "causal attention", "a loop"])
def test_what_was_exported_here_is_the_model_again(tmp_path: Path, kind: str) -> None:
    """What depends on sizes that are open is chosen anew: between sums of few and of many terms,
    and between a loop and what it gives without an iteration."""

    @model
    def net(x: Any = f32["batch", "time", 8]) -> Any:
        loops, is_causal = kind == "a loop", kind == "causal attention"
        return {
            "y": x
            >> (
                LSTM(4, return_sequences=True)
                if loops
                else TransformerEncoder(2, is_causal=is_causal)
            )
        }

    export(net, tmp_path / "net.onnx", seed=0)
    assert "If" in {n.op_type for n in onnx.load(tmp_path / "net.onnx").graph.node}
    again = load_onnx(tmp_path / "net.onnx")
    weights = {name for name in net.parameters if "bias" not in name}
    assert weights <= set(again.parameters)
    assert kind == "a loop" or set(again.parameters) == set(net.parameters)  # it adds up biases
    for shape in ((2, 3, 8), (1, 5, 8)):
        x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
        expected = evaluate(net.inference(), {**initial_values(net, 0), "x": x})["y"]
        np.testing.assert_allclose(outputs_of(again, {"x": x})["y"], expected, 1e-5, 1e-6)
    proto = onnx.load(tmp_path / "net.onnx")
    proto.producer_name = "another"  # whose branches may be anything
    onnx.save(proto, tmp_path / "other.onnx")
    with pytest.raises(CompileError, match="depends on data"):
        load_onnx(tmp_path / "other.onnx")


@pytest.mark.parametrize("length", [1, 4])
def test_a_loop_over_a_size_is_a_scan_with_gradients(tmp_path: Path, length: int) -> None:
    lines = """
        shape = Shape (x)
        time = Gather (shape, zero)
        [recurrence] last, all = Loop (time, "", start) <body =
            body (int64 i, bool going, float[n, 3] h)
                => (bool still, float[n, 3] next, float[n, 3] stacked) {
                row = Gather (x, i)
                turned = MatMul (h, w)
                sum = Add (turned, row)
                next = Tanh (sum)
                still = Identity (going)
                stacked = Identity (next)
            }>"""
    weights = {"zero": np.int64(0), "w": weight(3, 3)}
    inputs = {"x": (FLOAT, ["time", "n", 3]), "start": (FLOAT, ["n", 3])}
    path = written(tmp_path / "loop.onnx", lines, inputs, ["last", "all"], weights)
    net = load_onnx(path)
    feeds = {"x": weight(length, 2, 3, seed=1), "start": weight(2, 3, seed=2)}
    found = outputs_of(net, feeds)
    for name, expected in zip(("last", "all"), run(path, feeds), strict=True):
        np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=1e-6)
    (g,) = grad(net.outputs["last"].sum(), [net.parameters["w"]])
    assert np.isfinite(
        evaluate(Graph("g", {"g": g}), {**initial_values(net, 0), **feeds})["g"]
    ).all()


def test_a_quantized_weight_gives_the_same_numbers_and_its_input_a_gradient(tmp_path: Path) -> None:
    nodes = (
        "q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  "
        "w = DequantizeLinear <axis = 1> (wq, ws, wz)  y = MatMul(d, w)"
    )
    weights = {
        **{"s": np.float32(0.02), "z": np.uint8(100), "wz": np.zeros(3, np.int8)},
        "ws": np.array([0.01, 0.02, 0.03], np.float32),
        "wq": np.arange(-6, 6, dtype=np.int8).reshape(4, 3),
    }
    path = written(tmp_path / "q.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], weights)
    net = load_onnx(path)
    x = np.array([[0.5, -1.0, 9.0, 0.013]], np.float32)
    np.testing.assert_array_equal(outputs_of(net, {"x": x})["y"], run(path, {"x": x})[0])
    (g,) = grad(net.outputs["y"].sum(), [net.inputs["x"]])
    assert set(net.parameters) == {"wq"}
    found = evaluate(Graph("g", {"g": g}), {**initial_values(net, 0), "x": x})["g"][0]
    real = (weights["wq"] * weights["ws"]).sum(1)
    np.testing.assert_allclose(found, [real[0], real[1], 0, real[3]], rtol=1e-6)


def test_what_is_quantized_does_not_hide_a_nan_from_a_training(tmp_path: Path) -> None:
    """It would be an integer, and the loss finite; the inference model is as the file."""
    nodes = (
        "q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  "
        "w = DequantizeLinear(wq, ws)  a = MatMul(d, w)  aq = QuantizeLinear(a, s, z)  "
        "y = DequantizeLinear(aq, s, z)"
    )
    weights = {
        **{"s": np.float32(0.02), "z": np.uint8(100), "ws": np.float32(0.01)},
        "wq": np.arange(-6, 6, dtype=np.int8).reshape(4, 3),
    }
    path = written(tmp_path / "q.onnx", nodes, {"x": (FLOAT, ["n", 4])}, ["y"], weights)
    net = load_onnx(path)
    values = initial_values(net, 0)
    spoiled = {"wq": np.where(np.arange(3) == 1, np.nan, values["wq"]).astype(np.float32)}
    x = np.ones((2, 4), np.float32)
    y = evaluate(net.graph, {**values, **spoiled, "x": x})["y"]
    np.testing.assert_array_equal(np.isnan(y), [[False, True, False]] * 2)
    (g,) = grad(net.outputs["y"].sum(), [net.parameters["wq"]])
    assert np.isfinite(evaluate(Graph("g", {"g": g}), {**values, "x": x})["g"]).all()
    assert "isnan" in text(net.graph)
    assert "isnan" not in text(net.inference())
    np.testing.assert_array_equal(outputs_of(net, {"x": x})["y"], run(path, {"x": x})[0])


def test_an_output_of_sizes_alone_needs_its_input(tmp_path: Path) -> None:
    """No node takes the numbers of the input, which has to be there to have a shape."""
    nodes = "y = Shape(x)  count = Size(z)"
    inputs = {"x": (FLOAT, ["batch", 3]), "z": (FLOAT, ["batch", "time"])}
    path = written(tmp_path / "shape.onnx", nodes, inputs, ["y", "count"])
    net = load_onnx(path)
    export(net, tmp_path / "again.onnx")
    feeds = {"x": np.zeros((2, 3), np.float32), "z": np.zeros((2, 5), np.float32)}
    shape, count = run(tmp_path / "again.onnx", feeds)
    assert (shape.tolist(), count) == ([2, 3], 10)


def test_files_that_are_none_are_told(tmp_path: Path, images: Path) -> None:
    with pytest.raises(FileError, match="no such file"):
        load_onnx(tmp_path / "none.onnx")
    for name, content in (("empty.onnx", b""), ("text.onnx", b"hello, this is not a model")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(BackendError, match=rf"{name} is not an ONNX model"):
            load_onnx(tmp_path / name)
    (tmp_path / "cut.onnx").write_bytes(images.read_bytes()[:300])
    with pytest.raises(BackendError):
        load_onnx(tmp_path / "cut.onnx")
    proto = onnx.load(images)
    proto.opset_import[0].version = 99
    onnx.save(proto, tmp_path / "new.onnx")
    with pytest.raises(BackendError, match="opset 99 is not known"):
        load_onnx(tmp_path / "new.onnx")
    with pytest.raises(ModelError, match=r"has no tensor 'featurs'") as error:
        load_onnx(images, outputs=["featurs"])
    assert error.value.hint == "did you mean 'features'?"
    with pytest.raises(ModelError, match=r"no input of images.onnx has a size called 'hight'"):
        load_onnx(images, static={"hight": 3})


def test_a_weight_outside_the_directory_is_refused(tmp_path: Path, images: Path) -> None:
    proto = onnx.load(images)
    tensor = proto.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../secret")
    (tmp_path / "in").mkdir()
    (tmp_path / "secret").write_bytes(bytes(1000))
    onnx.save(proto, tmp_path / "in" / "x.onnx")
    with pytest.raises(BackendError, match="not a path within the directory"):
        load_onnx(tmp_path / "in" / "x.onnx")


def test_a_tensor_that_declares_more_than_there_is_is_refused(tmp_path: Path, images: Path) -> None:
    proto = onnx.load(images)
    proto.graph.initializer[0].dims[0] = 2**40
    onnx.save(proto, tmp_path / "large.onnx")
    with pytest.raises(ImportRefused, match="bytes, not"):
        load_onnx(tmp_path / "large.onnx")


def test_a_function_that_calls_itself_is_refused(tmp_path: Path) -> None:
    own = helper.make_function(
        "own", "again", ["x"], ["y"], [node("again", ["x"], ["y"], domain="own")],
        [helper.make_opsetid("own", 1)],
    )  # fmt: skip
    path = written(
        tmp_path / "f.onnx", [node("again", ["x"], ["y"], domain="own")], {"x": (FLOAT, ["n"])},
        ["y"], opsets=[helper.make_opsetid("own", 1)], functions=[own],
    )  # fmt: skip
    with pytest.raises(ImportRefused, match="within each other"):
        load_onnx(path)
