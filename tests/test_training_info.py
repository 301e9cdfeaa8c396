"""Files that hold their training step: run as ONNX's format says, they do what a trainer does."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from dsl import BatchNorm, Dense, Dropout, adam, cross_entropy, f32, i64, model, relu, training
from nncompile import Trainer, export, load_onnx
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import ModelError
from nncompile.optim import cosine
from nncompile.program.recipe import Recipe
from tests.backends import session
from tests.command_line import fails, succeeds
from tests.onnx_files import FLOAT, weight, written
from tests.tolerances import assert_close

# onnxruntime 1.23 refuses to load a newer one.
NEWEST = 23 if onnxruntime.__version__.startswith("1.23.") else 26
DRAWN = np.random.default_rng(0)
BATCHES = [
    {"x": DRAWN.normal(size=(6, 4)).astype(np.float32), "label": DRAWN.integers(0, 3, 6)}
    for _ in range(3)
]


@model(predict="logits")
def net(x: Any = f32["batch", 4], label: Any = i64["batch"]) -> Any:
    logits = x >> Dense(8, name="hidden") >> BatchNorm() >> relu >> Dropout(0.5) >> Dense(3)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


def recipe(**options: Any) -> Recipe:
    rate = cosine(0.1, steps=10)
    return training(net, **{"optimizer": adam(rate), "batch_size": 6, "seed": 5, **options})


class Interpreter:
    """What the format says of `training_info`, with onnxruntime for single graphs."""

    def __init__(self, path: Path) -> None:
        self.model = onnx.load(path)
        onnx.checker.check_model(self.model, full_check=True)
        (self.info,) = self.model.training_info
        graphs = self.model.graph, self.info.algorithm
        initializers = [t for graph in graphs for t in graph.initializer]
        names = [t.name for t in initializers]
        assert len({*names}) == len(names)
        self.variables = {t.name: numpy_helper.to_array(t) for t in initializers}
        joined = (
            [x for graph in graphs for x in getattr(graph, field)]
            for field in ("node", "input", "output")
        )
        nodes, inputs, outputs = joined
        # Variables are inputs, so that they can be other numbers each time.
        given = [*inputs, *(value_info(t) for t in initializers)]
        graph = helper.make_graph(nodes, "combined", given, outputs)
        self.run = session(self.whole(graph))

    def whole(self, graph: onnx.GraphProto) -> onnx.ModelProto:
        made = helper.make_model(
            graph, opset_imports=self.model.opset_import, ir_version=self.model.ir_version
        )
        onnx.checker.check_model(made, full_check=True)
        return made

    def initialize(self) -> None:
        assert not self.info.initialization.input
        results = session(self.whole(self.info.initialization))({})
        for entry in self.info.initialization_binding:
            assert entry.key in self.variables
            self.variables[entry.key] = results[entry.value]

    def step(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        results = self.run({**self.variables, **batch})
        keys = [entry.key for entry in self.info.update_binding]
        assert len({*keys}) == len(keys)
        for entry in self.info.update_binding:
            assert entry.key in self.variables
            self.variables[entry.key] = results[entry.value]
        return results


def value_info(tensor: onnx.TensorProto) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))


def assert_same_state(got: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    for name, array in expected.items():
        assert got[name].dtype == array.dtype, name
        assert_close(got[name], array, array.dtype.name, name)


@pytest.mark.parametrize("opset", [17, 21, NEWEST])
def test_it_trains_as_a_trainer_does(opset: int, tmp_path: Path) -> None:
    (path,) = export(recipe(), tmp_path / "m.onnx", opset=opset, training_info=True)
    # By the same operators: the gradient of the bias before the batch normalization is what is left
    # by rounding, and Adam makes whole steps of it.
    runner = compile_step(recipe()).runner(threads=1, native=False)
    interpreter = Interpreter(path)
    taken = {i.name for i in interpreter.info.algorithm.input}
    assert taken == {"label"}
    assert [o.name for o in interpreter.model.graph.output] == ["logits"]
    for batch in BATCHES:
        results = interpreter.step(batch)
        runner.step(batch)
        assert_close(results["loss"], runner.metrics()["loss"], "float32", "loss")
    state = runner.state()
    assert state["step"] == 3
    assert_same_state(interpreter.variables, state)


def test_the_model_goes_on_from_what_was_trained_and_can_begin_anew(tmp_path: Path) -> None:
    trainer = Trainer(recipe())
    trainer.fit(BATCHES, epochs=2)
    (path,) = trainer.export(tmp_path / "m.onnx", training_info=True)
    interpreter = Interpreter(path)
    assert_same_state(interpreter.variables, trainer.state)
    predicted = session(interpreter.model)({"x": BATCHES[0]["x"]})
    assert_close(predicted["logits"], trainer.predict(BATCHES[0]["x"])["logits"], "float32")
    interpreter.initialize()
    assert_same_state(interpreter.variables, compile_step(recipe()).source.initial())


def test_a_model_of_a_file_can_hold_its_step(tmp_path: Path) -> None:
    nodes = "y = Gemm(x, w, b)"
    weights = {"w": weight(4, 3), "b": weight(3)}
    inner = load_onnx(written(tmp_path / "x.onnx", nodes, {"x": (FLOAT, ["N", 4])}, ["y"], weights))

    @model(predict="logits")
    def tuned(x: Any = f32["batch", 4], label: Any = i64["batch"]) -> Any:
        logits = inner(x)["y"]
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    of_file = training(tuned, optimizer=adam(0.1))
    (path,) = export(of_file, tmp_path / "m.onnx", training_info=True)
    interpreter, runner = Interpreter(path), compile_step(of_file).runner(threads=1)
    interpreter.step(BATCHES[0])
    runner.step(BATCHES[0])
    assert_same_state(interpreter.variables, runner.state())
    interpreter.initialize()
    assert_close(interpreter.variables["w"], weights["w"], "float32")


def test_names_of_the_model_are_kept_from_those_of_the_step(tmp_path: Path) -> None:
    @model(predict=("logits", "loss"))
    def both(x: Any = f32["batch", 4], label: Any = i64["batch"]) -> Any:
        logits = x >> Dense(3)
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    (path,) = export(training(both, optimizer=adam(0.1)), tmp_path / "m.onnx", training_info=True)
    interpreter = Interpreter(path)
    assert interpreter.info.algorithm.output[0].name == "training/loss"
    results = interpreter.step(BATCHES[0])
    assert results["loss"] == pytest.approx(results["training/loss"])


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        (net, {}, "training_info of model net needs a recipe"),
        (recipe(), {"to": "step"}, "training_info is of the target onnx, not of step"),
        (recipe(), {"external_data": True}, "a file with training_info holds its weights"),
    ],
)
def test_what_cannot_hold_a_step_is_refused(
    source: Any, options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match=words):
        export(source, tmp_path / "m.onnx", training_info=True, **options)
    assert not [*tmp_path.iterdir()]


FILE = """
from dsl import Dense, adam, f32, model, mse, training

@model
def line(x=f32["batch", 2], y=f32["batch", 1]):
    z = x >> Dense(1)
    return {"z": z, "loss": mse(z, y)}

recipe = training(line, optimizer=adam(0.1))
"""


def test_the_command_writes_it(tmp_path: Path) -> None:
    file, target = tmp_path / "line.py", tmp_path / "line.onnx"
    file.write_text(FILE)
    succeeds("compile", file, "--training-info", "-o", target, "--initial")
    assert len(onnx.load(target).training_info) == 1
    message = fails("compile", file, "--training-info", "--to", "step", "-o", target)
    assert "training_info is of the target onnx" in message
