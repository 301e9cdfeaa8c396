"""Sums of a tensor and a multiple of another, by onnxruntime's own operator."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import pytest

from dsl import (
    Dense,
    adagrad,
    adam,
    adamw,
    f32,
    lamb,
    mean,
    model,
    nadam,
    radam,
    rmsprop,
    sgd,
    tanh,
    training,
)
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import BackendError
from nncompile.runtime import scaled_sums, step_session
from nncompile.runtime.session import Session
from nncompile.runtime.tiling import TILE_SIZE
from tests.hand_made import build
from tests.native_checks import needs_library


@pytest.fixture
def operator() -> str:
    """The operator, where this onnxruntime has it."""
    if not scaled_sums.has_operator():
        pytest.skip("this onnxruntime has no operator with the bits of Mul and Add")
    return scaled_sums.OPERATOR


CONSTANTS = {"c": np.float32(0.9), "cs": np.full(1, 0.9, np.float32)}


def _model(lines: str, shape: str = "3, 32") -> onnx.ModelProto:
    """A graph that takes tensors `x`, `y` and a number `s`, and gives `z`."""
    tensors = ", ".join(f"float[{shape}] {name}" for name in "xy")
    return build(f"sums ({tensors}, float s) => (float[{shape}] z) {{ {lines} }}", CONSTANTS)


def _feeds(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    feeds: dict[str, np.ndarray] = {}
    for info in model.graph.input:
        shape = [d.dim_value or 5 for d in info.type.tensor_type.shape.dim]
        feeds[info.name] = np.asarray(rng.normal(size=shape), np.float32)
        feeds[info.name].flat[:4] = [0.0, -0.0, np.inf, 1e-42][: feeds[info.name].size]
    feeds["s"] = np.float32(-0.37)
    return feeds


def _same_bits(a: Mapping[str, Any], b: Mapping[str, Any]) -> None:
    for name, x in a.items():
        np.testing.assert_array_equal(x, b[name], name)
        np.testing.assert_array_equal(np.signbit(x), np.signbit(b[name]), name)


SUMS = {
    "of a constant": ("p = Mul (y, c)  z = Add (x, p)", "3, 32"),
    "of a number that is given": ("p = Mul (s, y)  z = Add (p, x)", "3, 32"),
    "a difference": ("p = Mul (y, c)  z = Sub (x, p)", "3, 32"),
    "a difference by a number": ("p = Mul (y, s)  z = Sub (x, p)", "3, 32"),
    "of two multiples": ("p = Mul (x, c)  q = Mul (y, s)  z = Add (p, q)", "3, 32"),
    "twice": ("p = Mul (y, s)  q = Add (x, p)  r = Mul (q, s)  z = Sub (y, r)", "3, 32"),
    "with itself": ("p = Mul (x, s)  z = Add (x, p)", "3, 32"),
    "of a vector": ("p = Mul (y, c)  z = Add (x, p)", "7"),
    "of one number": ("p = Mul (y, c)  z = Add (x, p)", "1"),
    "of a tile": ("p = Mul (y, s)  z = Sub (x, p)", f'"{TILE_SIZE}"'),
    "of images": ("p = Mul (y, s)  z = Add (x, p)", "2, 3, 4, 32"),
    "that is split": (
        "p = Mul (y, c)  q = Add (x, p)  a, b, d = Split <axis = 0, num_outputs = 3> (q)"
        "  z = Concat <axis = 0> (d, b, a)",
        "3, 32",
    ),
}


@pytest.mark.parametrize("name", SUMS)
def test_bits_are_those_of_the_operators(name: str, operator: str) -> None:
    lines, shape = SUMS[name]
    plain = _model(lines, shape)
    for threads in (1, 2):
        rewritten = scaled_sums.rewritten(plain)
        onnx.checker.check_model(plain)
        count = sum(node.op_type == operator for node in rewritten.graph.node)
        assert count == lines.count("Add") + lines.count("Sub")
        feeds = _feeds(plain)
        expected, found = (Session(m, threads=threads).run(feeds) for m in (plain, rewritten))
        _same_bits(expected, found)


LEFT = {
    "a product that others need": ("p = Mul (y, c)  q = Add (x, p)  z = Mul (q, p)", "3, 32"),
    "a multiple less a tensor": ("p = Mul (y, c)  z = Sub (p, x)", "3, 32"),
    "a product of tensors": ("p = Mul (y, x)  z = Add (x, p)", "3, 32"),
    "a number for each row": ("p = Mul (y, cs)  z = Add (x, p)", "3, 32"),
    "a sum with a number": ("p = Mul (y, c)  z = Add (p, s)", "3, 32"),
    "the same product twice": ("p = Mul (y, c)  z = Add (p, p)", "3, 32"),
    "narrow rows": ("p = Mul (y, c)  z = Add (x, p)", "16, 31"),
    "any length, which may be none": ("p = Mul (y, s)  z = Sub (x, p)", "n"),
    "rows of any length": ("p = Mul (y, c)  z = Add (x, p)", "2, n"),
    "any number of rows": ("p = Mul (y, c)  z = Add (x, p)", "n, 32"),
    "no elements": ("p = Mul (y, c)  z = Add (x, p)", "0, 32"),
    "what something else follows": (
        "p = Mul (y, c)  q = Add (x, p)  r = Exp (q)  z = Add (q, r)",
        "3, 32",
    ),
    "no sum": ("z = Mul (y, c)", "3, 32"),
}


@pytest.mark.parametrize("name", LEFT)
def test_others_stay_as_they_are(name: str) -> None:
    plain = _model(*LEFT[name])
    assert scaled_sums.rewritten(plain) is plain


_BRANCH = "branch () => (float[3, 32] inner) { inner = Neg (p) }"
GRAPHS = {
    "a product that is a result": """
        sums (float[3, 32] x, float[3, 32] y) => (float[3, 32] z, float[3, 32] p) {
            p = Mul (y, c)
            z = Add (x, p)
        }""",
    "another element type": """
        sums (double[3, 32] x, double[3, 32] y, double s) => (double[3, 32] z) {
            p = Mul (y, s)
            z = Add (x, p)
        }""",
    "a product that a branch needs": f"""
        sums (float[3, 32] x, float[3, 32] y, bool b) => (float[3, 32] z, float[3, 32] o) {{
            p = Mul (y, c)
            z = Add (x, p)
            o = If <then_branch = {_BRANCH}, else_branch = {_BRANCH}> (b)
        }}""",
}


@pytest.mark.parametrize("name", GRAPHS)
def test_other_graphs_stay_as_they_are(name: str) -> None:
    plain = build(GRAPHS[name], CONSTANTS)
    assert scaled_sums.rewritten(plain) is plain


def test_what_two_sums_need_is_made_once() -> None:
    rewritten = scaled_sums.rewritten(
        _model("p = Mul (y, s)  q = Add (x, p)  r = Mul (x, s)  z = Add (q, r)")
    )
    operators = [node.op_type for node in rewritten.graph.node]
    assert operators == ["Expand", "GatedAdd", "GatedAdd"]


def test_nodes_keep_their_names_and_lines() -> None:
    plain = _model("p = Mul (y, s)  z = Sub (x, p)")
    plain.graph.node[1].name = "net/update"
    plain.graph.node[1].metadata_props.add(key="line", value="net.py:3")
    nodes = scaled_sums.rewritten(plain).graph.node
    assert [node.op_type for node in nodes] == ["Neg", "Expand", "GatedAdd"]
    assert {node.metadata_props[0].value for node in nodes} == {"net.py:3"}
    assert nodes[-1].name == "net/update"


@pytest.mark.parametrize("place", ["input", "initializer", "output"])
def test_names_that_no_node_reads_are_taken_too(place: str, operator: str) -> None:
    plain = _model("p = Mul (y, c)  q = Mul (p, s)  z = Sub (x, q)")
    added = {x.name for x in scaled_sums.rewritten(plain).graph.initializer} - {*CONSTANTS}
    added |= {x for n in scaled_sums.rewritten(plain).graph.node for x in n.output} - {"p", "z"}
    assert len(added) == 3
    for name in added:
        info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.INT64, [3])
        if place == "initializer":
            array = np.zeros(3, np.int64)
            plain.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        else:
            plain.graph.input.append(info)
            if place == "output":
                plain.graph.output.append(info)
    rewritten = scaled_sums.rewritten(plain)
    assert any(node.op_type == operator for node in rewritten.graph.node)
    feeds = _feeds(plain) | dict.fromkeys(added, np.arange(3))
    feeds = {info.name: feeds[info.name] for info in plain.graph.input}
    _same_bits(*(Session(m, threads=1).run(feeds) for m in (plain, rewritten)))


def test_old_operators_stay() -> None:
    plain = _model(*SUMS["of a number that is given"])
    plain.opset_import[0].version = 7
    assert scaled_sums.with_scaled_sums(plain) is plain


@pytest.mark.parametrize("content", [b"garbage", b"", b"ORTM"])
def test_what_is_no_model_is_told_as_ever(content: bytes) -> None:
    with pytest.raises(BackendError, match="the model"):
        step_session.step_session(content)


def test_where_the_operator_is_missing_or_rounds_otherwise_sums_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plain = _model(*SUMS["of a constant"])
    for name in ("NoSuchOperator", "Add"):  # the second gives other numbers
        monkeypatch.setattr(scaled_sums, "OPERATOR", name)
        monkeypatch.setattr(scaled_sums, "DOMAIN", "com.microsoft" if name != "Add" else "")
        scaled_sums.has_operator.cache_clear()
        assert not scaled_sums.has_operator()
        assert scaled_sums.with_scaled_sums(plain) is plain
    scaled_sums.has_operator.cache_clear()


@model
def net(x: Any = f32["batch", 8]) -> dict[str, Any]:
    y = x >> Dense(64, tanh) >> Dense(40, tanh) >> Dense(3)
    return {"loss": mean(y * y)}


BATCH = {"x": np.random.default_rng(0).normal(size=(5, 8)).astype(np.float32)}
OPTIMIZERS = {
    "sgd": sgd(0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adam": adam(1e-2, amsgrad=True, weight_decay=1e-2),
    "adamw": adamw(1e-2),
    "adagrad": adagrad(3e-3),
    "rmsprop": rmsprop(1e-2, momentum=0.9, centered=True),
    "lamb": lamb(1e-2),
    "nadam": nadam(1e-2),
    "radam": radam(1e-2),
}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_steps_have_the_same_bits(
    name: str, in_place: bool, threads: int, operator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = compile_step(training(net, optimizer=OPTIMIZERS[name]))
    assert operator not in str(compiled.step_model)
    written: list[int] = []

    def rewritten(model: onnx.ModelProto) -> onnx.ModelProto:
        result = scaled_sums.with_scaled_sums(model)
        written.append(sum(node.op_type == operator for node in result.graph.node))
        return result

    states = []
    for function in (lambda model: model, rewritten):
        monkeypatch.setattr(step_session, "with_scaled_sums", function)
        runner = compiled.runner(threads=threads, native=False, in_place=in_place)
        for _ in range(5):
            runner.step(BATCH)
        states.append(runner.state())
    assert sum(written) > 0
    _same_bits(*states)


@needs_library
def test_steps_with_native_kernels_have_none() -> None:
    compiled = compile_step(training(net, optimizer=adam(1e-2)))
    runner = compiled.runner(threads=1, native=True)
    assert runner.library is not None
    model = onnx.load_model_from_string(bytes(runner.model))
    assert model.functions
    assert scaled_sums.with_scaled_sums(model) is model
