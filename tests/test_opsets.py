"""Every opset that is exported: what is emitted is valid at it, and computes the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from dsl import (
    BatchNorm,
    Conv2d,
    Dense,
    Embedding,
    LayerNorm,
    adam,
    cross_entropy,
    f32,
    flatten,
    gelu,
    i64,
    model,
    relu,
    softmax,
    training,
)
from nncompile.backends.onnx import OPSET, to_model
from nncompile.backends.onnx.model import OPSETS
from nncompile.compiler.compile import compile_model, compile_step
from nncompile.diagnostics.errors import BackendError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import INTEGERS, DType
from nncompile.program.recipe import Recipe
from tests import op_checks, op_types
from tests.backends import session
from tests.leaves import leaf
from tests.op_types import Case
from tests.test_integers_of_all_widths import BINARY, UNARY, ends
from tests.tolerances import assert_close

# onnxruntime 1.23 refuses to load a newer one.
RUN = range(OPSETS[0], 24 if onnxruntime.__version__.startswith("1.23.") else OPSETS[-1] + 1)
OTHERS = [opset for opset in OPSETS if opset != OPSET]
SAMPLES = 1  # of each op at each opset


def graphs_of(case: Case) -> Iterator[Graph]:
    yield case.graph(case.results)
    if op_checks.is_differentiable(case):
        gradients, extra = case.first_order
        outputs = {f"g{i}": g for i, g in enumerate(gradients)}
        yield Graph("gradients", outputs, (*case.inputs, *extra))


@pytest.mark.parametrize("opset", OTHERS)
def test_every_op_is_valid(opset: int) -> None:
    count = 0
    for op_type in op_types.registered_ops():
        for case in islice(op_types.cases_of(op_type), SAMPLES):
            for graph in graphs_of(case):
                proto = to_model(graph, opset)
                onnx.checker.check_model(proto, full_check=True)
                if opset in RUN and opset in (OPSETS[0], OPSETS[-1]):
                    session(proto)
                count += 1
    assert count >= 130


def test_every_op_computes_the_same_at_the_oldest() -> None:
    for op_type in op_types.registered_ops():
        for case in islice(op_types.cases_of(op_type), 2):
            graph, sizes = case.graph(case.results), case.bindings[0]
            feeds = case.feeds(sizes)
            expected = op_checks.in_double(graph, feeds)
            got = session(to_model(graph, OPSETS[0]))(feeds, expected)
            for name, y in graph.outputs.items():
                assert_close(got[name], expected[name], y.dtype.name, case.name)


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_at_the_oldest(dtype: DType) -> None:
    """It has no bitwise operators."""
    one = ends(dtype)
    feeds = dict(zip("xy", (a.ravel() for a in np.meshgrid(one, one)), strict=True))
    x, y = (leaf(name, dtype["n"]) for name in feeds)
    outputs = {name: f(x, y) for name, f in BINARY.items()}
    outputs |= {name: f(x) for name, f in UNARY.items()}
    graph = Graph("integers", outputs)
    expected = evaluate(graph, feeds)
    for name, array in session(to_model(graph, OPSETS[0]))(feeds, expected).items():
        np.testing.assert_array_equal(array, expected[name], name)


@model(predict="logits")
def pictures(x: Any = f32["batch", 2, 6, 6], label: Any = i64["batch"]) -> Any:
    features = x >> Conv2d(3, 3, padding="same") >> BatchNorm() >> relu >> flatten
    logits = features >> Dense(4)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


@model(predict="logits")
def texts(x: Any = i64["batch", "time"], label: Any = i64["batch"]) -> Any:
    h = x >> Embedding(7, 6)
    weights = softmax(h @ h.transpose((0, 2, 1)))
    h = (h + weights @ h) >> LayerNorm() >> Dense(6, gelu)
    logits = h.mean(1) >> Dense(4)
    return {"logits": logits, "loss": cross_entropy(logits, label)}


LABEL = {"label": np.array([0, 3, 1, 2, 2])}
BATCHES: Mapping[str, Mapping[str, Any]] = {
    "pictures": {"x": np.random.default_rng(0).normal(size=(5, 2, 6, 6)).astype(np.float32)},
    "texts": {"x": np.arange(15).reshape(5, 3) % 7},
}
MODELS = {"pictures": pictures, "texts": texts}


@cache
def at_default(kind: str) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    """The inputs of a step, what it makes of them, and the outputs of the inference model."""
    step = compile_step(recipe_of(kind))
    feeds = {**BATCHES[kind], **LABEL, **step.source.initial()}
    inference = compile_model(MODELS[kind]).model
    return feeds, run(step.step_model, feeds), run(inference, feeds)


def recipe_of(kind: str) -> Recipe:
    return training(MODELS[kind], optimizer=adam(1e-2), batch_size=5)


def run(proto: onnx.ModelProto, feeds: Mapping[str, Any]) -> Mapping[str, Any]:
    onnx.checker.check_model(proto, full_check=True)
    return session(proto)({i.name: feeds[i.name] for i in proto.graph.input})


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("opset", [opset for opset in OTHERS if opset in RUN])
def test_a_step_and_a_model_compute_the_same(kind: str, opset: int) -> None:
    feeds, stepped, predicted = at_default(kind)
    step = compile_step(recipe_of(kind), opset=opset).step_model
    inference = compile_model(MODELS[kind], opset=opset).model
    for proto, expected in ((step, stepped), (inference, predicted)):
        assert {o.domain: o.version for o in proto.opset_import}[""] == opset
        for name, array in run(proto, feeds).items():
            assert_close(array, expected[name], array.dtype.name, name)


@pytest.mark.parametrize("opset", [16, 27])
def test_others_are_refused(opset: int) -> None:
    with pytest.raises(BackendError, match=f"opset {opset} is not supported") as error:
        compile_model(pictures, opset=opset).model  # noqa: B018 (it is lowered here)
    assert error.value.hint == "choose 17 to 26"
