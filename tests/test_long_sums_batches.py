"""A file sums in a form that suits the batch it is made for, and is right for other batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from dsl import Dense, adam, flatten, model, sgd, training
from nncompile import ops
from nncompile.backends.onnx import from_bytes, to_model
from nncompile.compiler import sized
from nncompile.compiler.compile import compile_step
from nncompile.ir.dims import substitute, symbol
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.ops.contraction.gemm import gemm
from nncompile.ops.contraction.matmul import matmul
from nncompile.runtime.session import Session
from tests.backends import session
from tests.leaves import leaf
from tests.long_sum_checks import near, positive, thousand


@pytest.mark.parametrize("optimizer", [sgd(1e-9), adam(1e-3)])
@pytest.mark.parametrize("most", [1, 3])
def test_a_step_for_a_batch_of_any_size(optimizer: Any, most: int, monkeypatch: Any) -> None:
    """Steps of a runner are made for sizes of batches, without choices in them, until there are
    many: then one chooses at run time."""

    @model
    def line(x: Value = f32["batch", 3], y: Value = f32["batch"]) -> dict[str, Value]:
        predicted = x >> Dense(1) >> flatten
        return {"loss": ops.mean((ops.reshape(predicted, y.shape) - y) ** 2)}

    monkeypatch.setattr(sized, "MOST", most)
    compiled = compile_step(training(line, optimizer=optimizer, batch_size=8))
    state = compiled.source.initial(0)
    runner = compiled.runner(state, threads=1, native=False)
    first = runner.session
    rng = np.random.default_rng(0)
    for rows, made in ((8, 1), (600, 2), (5, 2), (300_007, 3)):
        batch = {"x": thousand(rng, (rows, 3)), "y": thousand(rng, (rows,))}
        expected = evaluate(compiled.source.step, {**state, **batch}, precision=np.float64)
        runner.step(batch)
        assert (runner.session is first) == (rows <= 8)
        assert len(compiled.files("step", False, 1).files) == min(made, most)
        nodes = from_bytes(runner.model).graph.node
        assert any(node.op_type == "If" for node in nodes) == (most == 1 and rows > 8)
        loss = runner.metrics()["loss"]
        near(loss, expected["loss"], expected["loss"], f"loss of {rows}", 3e-6)
        state = runner.state()
        for path, following in compiled.source.state_map.items():
            if state[path].dtype == np.float32:
                scale = np.abs(expected[following]).max() + 1e-30
                near(state[path], expected[following], scale, f"{path} of {rows}", 3e-6)


def test_a_step_for_a_large_batch_is_right_for_a_small_one() -> None:
    """What is summed in blocks may be short; a bound is where it is not."""

    @model
    def line(x: Value = f32["batch", 3]) -> dict[str, Value]:
        return {"loss": ops.mean(x >> Dense(1))}

    compiled = compile_step(training(line, optimizer=sgd(1e-9), batch_size=100_000))
    runner = compiled.runner(threads=1, native=False)
    first, rng = runner.session, np.random.default_rng(0)
    for rows in (100_000, 7):
        runner.step({"x": thousand(rng, (rows, 3))})
        assert runner.session is first
    (step,) = compiled.files("step", False, 1).files
    assert all(bound >= 100_000 for bound in step.bounds.values())


def test_a_step_in_a_file_sums_as_the_batch_of_the_recipe_asks() -> None:
    @model
    def scaled(x: Value = f32["batch"]) -> dict[str, Value]:
        return {"loss": ops.mean((ops.reshape(x, (-1, 1)) >> Dense(1)) ** 2)}

    rng = np.random.default_rng(0)
    for rows in (64, 300_007):
        compiled = compile_step(training(scaled, optimizer=sgd(1e-9), batch_size=rows))
        assert "If" not in {node.op_type for node in compiled.step_model.graph.node}
        feeds = {**compiled.source.initial(0), "x": thousand(rng, (rows,))}
        exact = evaluate(compiled.source.step, feeds, precision=np.float64)["loss"]
        given = {x.name: feeds[x.name] for x in compiled.step_model.graph.input}
        found = Session(compiled.step_model.SerializeToString()).run(given)["loss"]
        near(found, exact, exact, f"loss of {rows}", 3e-6)


SUMS: dict[str, tuple[Callable[..., Value], list[tuple[Any, ...]]]] = {
    "sum": (lambda x: ops.sum(x), [("n",)]),
    "sum down": (lambda x: ops.sum(x, 0), [("n", 2)]),
    "sum down, kept": (lambda x: ops.sum(x, 0, True), [("n", 2)]),
    "sum across": (lambda x: ops.sum(x, (1, 2)), [(2, "n", "m", 3)]),
    "sum of blocks": (lambda x: ops.sum(x, 0), [("64*n", 3)]),
    "mean square": (lambda x: ops.mean(x * x, (0, 2)), [("n", 3, "m")]),
    "cumsum": (lambda x: ops.cumsum(x, 0), [("n", 2)]),
    "prod": (lambda x: ops.prod(x, 0), [("n", 2)]),
    "logsumexp": (lambda x: ops.logsumexp(x, 1), [(2, "n+1")]),
    "softmax": (lambda x: ops.softmax(x, 1), [(2, "n")]),
    "log_softmax": (lambda x: ops.log_softmax(x, 0), [("n", 2)]),
    "layer_norm": (lambda x: ops.layer_norm(x), [(2, "n+1")]),
    "dot": (matmul, [("n",), ("n",)]),
    "row": (matmul, [("n",), ("n", 3)]),
    "column": (matmul, [(3, "n"), ("n",)]),
    "stack": (matmul, [("m", 3, "n"), ("n", 2)]),
    "gemm": (lambda a, b, c: gemm(a, b, c, transpose_a=True), [("n", 3), ("n", 2), (2,)]),
    "gemm, rows": (lambda a, b: gemm(a, b, transpose_b=True), [("m", "n"), (2, "n")]),
    "einsum": (lambda a, b: ops.einsum("nbi,nb->bi", a, b), [("n", "m", 3), ("n", "m")]),
}


@pytest.mark.parametrize("name", SUMS)
def test_forms_for_many_are_right_for_few(name: str) -> None:
    """A file for large batches, too, meets a small one, and one without examples."""
    function, shapes = SUMS[name]
    leaves = [leaf(f"x{i}", f32[shape]) for i, shape in enumerate(shapes)]
    graph = Graph("many", {"y": function(*leaves)}, tuple(leaves))
    expected = dict.fromkeys((symbol("n"), symbol("m")), 10**6)
    model = to_model(graph, sizes=expected)
    assert "If" not in {node.op_type for node in model.graph.node}
    run = session(model)
    rng = np.random.default_rng(16)
    for n, m in ((0, 2), (1, 1), (5, 0), (300, 3)):
        sizes = {symbol("n"): n, symbol("m"): m}
        feeds = {
            v.op.name: positive(rng, tuple(substitute(d, sizes) for d in v.shape)) for v in leaves
        }
        exact = evaluate(graph, feeds, precision=np.float64)["y"]
        found = run(feeds, {"y": exact.shape})["y"]
        np.testing.assert_allclose(found, exact, 2e-6, 2e-6, err_msg=f"n = {n}, m = {m}")
