"""Gradients of convolutions at their weights in a loop over the examples of a batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from dsl import Conv2d, Dense, cross_entropy, f32, f64, flatten, i64, model, sgd, training
from nncompile.backends.onnx import to_model
from nncompile.backends.onnx.protos import all_nodes
from nncompile.compiler.compile import compile_step
from nncompile.ir.dims import symbols
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import DType
from nncompile.ops.convolution.by_example import FULL
from nncompile.ops.convolution.convolve import ConvWeightGradient
from tests.backends import session, valid_model
from tests.leaves import leaf
from tests.tolerances import assert_close

FORMS: list[tuple[tuple[int, int, int], tuple[int, ...], dict[str, Any]]] = [
    ((16, 9, 8), (8, 16, 3, 3), {"pads": (1, 1, 1, 1)}),
    ((8, 9, 8), (24, 8, 3, 3), {"pads": (0, 2, 1, 0)}),
    ((8, 9, 8), (8, 8, 5, 5), {"pads": (2, 1, 0, 3)}),
    ((8, 12, 7), (16, 8, 3, 3), {"pads": (0, 2, 0, 2), "dilations": (3, 2)}),
    ((8, 8, 8), (16, 8, 3, 1), {"pads": (2, 0, 1, 0)}),
    ((8, 1, 40), (16, 8, 1, 3), {"pads": (0, 2, 0, 0)}),
    ((8, 9, 8), (8, 8, 2, 8), {"pads": (0, 3, 0, 4)}),
]


def gradient(
    x: tuple[Any, ...], w: tuple[int, ...], dtype: DType = f32, **options: Any
) -> tuple[Graph, ConvWeightGradient]:
    """The graph of a gradient at the weights, of leaves x and g."""
    fields = {"strides": (1, 1), "dilations": (1, 1), "pads": (0, 0, 0, 0), "groups": 1}
    op = ConvWeightGradient(w[2:], **{**fields, **options})
    data = leaf("x", dtype[x])
    g = leaf("g", dtype[(x[0], w[0], *op.window.results(data.shape[2:]))])
    return Graph("test", {"y": op(data, g)}, (data, g)), op


def operators(graph: Graph, **options: Any) -> set[str]:
    return {node.op_type for node in all_nodes(to_model(graph, **options).graph.node)}


def sizes(graph: Graph, batch: int) -> dict[Any, int]:
    """What says that batches of that size are expected."""
    return dict.fromkeys(symbols(graph.leaves["x"].shape[:1]), batch)


@pytest.mark.parametrize(("x", "w", "options"), FORMS)
@pytest.mark.parametrize("dtype", [f32, f64])
def test_loops_compute_the_gradient_of_any_batch(
    x: tuple[int, int, int], w: tuple[int, ...], options: dict[str, Any], dtype: DType
) -> None:
    """In files for large batches, also where others come; with inf and NaN where they belong."""
    graph, op = gradient(("n", *x), w, dtype, **options)
    model = valid_model(graph, threads=1, sizes=sizes(graph, FULL))
    assert "Scan" in {node.op_type for node in all_nodes(model.graph.node)}
    run, rng = session(model), np.random.default_rng(0)
    for batch in (3, 1, 0, 130):
        feeds = {
            name: rng.normal(size=[batch, *value.shape[1:]]).astype(dtype.numpy)
            for name, value in graph.leaves.items()
        }
        exact = op.numpy(*(array.astype(np.float64) for array in feeds.values()))
        found = run(feeds, {"y": w})["y"]
        assert_close(found, exact, dtype.name, f"batch {batch}")
    feeds["g"][0, 3] = np.nan
    found = run(feeds)["y"]
    assert np.isnan(found[3]).all() and np.isfinite(np.delete(found, 3, 0)).all()


def test_the_loop_is_for_a_processor_and_large_batches() -> None:
    """Files for any device have none, nor those of batches that the caches hold, which more threads
    have more of, nor those of unknown batches."""
    graph, _ = gradient(("n", 16, 32, 32), (16, 16, 3, 3), pads=(1, 1, 1, 1))
    least = FULL // (2 * 16 * 32 * 32)
    for batch, threads, loops in (
        (least, 1, True),
        (least - 1, 1, False),
        (least, 2, False),
        (2 * least, 2, True),
        (10_000, 0, False),
    ):
        found = operators(graph, sizes=sizes(graph, batch), threads=threads)
        assert ("Scan" in found) == loops, (batch, threads)
    assert "Scan" not in operators(graph, threads=1)
    known, _ = gradient((16, 16, 32, 32), (16, 16, 3, 3), pads=(1, 1, 1, 1))
    assert "Scan" in operators(known, threads=1)


@pytest.mark.parametrize(
    ("x", "w", "options"),
    [
        ((16, 32, 32), (16, 16, 1, 1), {}),
        ((16, 32, 32), (16, 16, 3, 3), {}),
        ((16, 32, 32), (16, 8, 3, 3), {"pads": (1, 1, 1, 1), "groups": 2}),
        ((16, 32, 32), (16, 16, 3, 3), {"pads": (1, 1, 1, 1), "strides": (2, 1)}),
        ((16, "h", 32), (16, 16, 3, 3), {"pads": (1, 1, 1, 1)}),
        ((3, 32, 32), (16, 3, 3, 3), {"pads": (1, 1, 1, 1)}),
        ((64, 8, 8), (64, 64, 3, 3), {"pads": (1, 1, 1, 1)}),
    ],
)
def test_what_does_not_gain_has_no_loop(
    x: tuple[Any, ...], w: tuple[int, ...], options: dict[str, Any]
) -> None:
    graph, _ = gradient((1000, *x), w, **options)
    assert "Scan" not in operators(graph, threads=1)


def test_a_runner_loops_on_the_cpu_and_files_do_not() -> None:
    """The loop is in what a runner trains with, to the numbers of the step, and in no file."""

    @model
    def net(
        image: Value = f32["batch", 8, 16, 16], label: Value = i64["batch"]
    ) -> dict[str, Value]:
        x = image >> Conv2d(8, 3, padding=1) >> flatten
        logits = x >> Dense(3)
        return {"loss": cross_entropy(logits, label)}

    recipe = training(net, minimize="loss", optimizer=sgd(0.1), batch_size=256)
    compiled = compile_step(recipe)
    state, rng = compiled.source.initial(0), np.random.default_rng(0)
    runner = compiled.runner(state, threads=1, native=False)
    kinds = {n.op_type for n in all_nodes(onnx.load_from_string(runner.model).graph.node)}
    assert "Scan" in kinds
    batch = {"image": rng.normal(size=(256, 8, 16, 16)), "label": rng.integers(0, 3, 256)}
    batch["image"] = batch["image"].astype(np.float32)
    runner.step(batch)
    expected = evaluate(compiled.source.step, {**state, **batch}, precision=np.float64)
    for path, following in compiled.source.state_map.items():
        if state[path].dtype == np.float32:
            assert_close(runner.state()[path], expected[following], "float32", path)
    for kernels in (True, False):
        step = compile_step(recipe, kernels=kernels).step_model
        nodes = [*step.graph.node, *(n for f in step.functions for n in f.node)]
        assert "Scan" not in {node.op_type for node in all_nodes(nodes)}
