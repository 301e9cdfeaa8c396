"""All passes together: whole training steps, random graphs, names, work."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import CompileError, ModelError
from nncompile.elementwise import (
    exp,
    log,
    maximum,
    relu,
    sigmoid,
    sqrt,
    stop_gradient,
    tanh,
    where,
)
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.printer import text
from nncompile.ir.types import f32, f64, i64
from nncompile.ops import (
    cast,
    concatenate,
    full,
    log_softmax,
    mean,
    reshape,
    softmax,
    split,
    take_along_axis,
    transpose,
    zeros_like,
)
from nncompile.ops import max as maximum_of
from nncompile.ops import sum as total
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.shape.gathering import ScatterAdd
from nncompile.optim import adam, sgd
from nncompile.passes import PASSES, optimize, same_outputs
from tests.counting import calls, lines
from tests.leaves import leaf
from tests.pass_checks import LABEL, A, B, C, W, expanded, graph_of, random_feeds
from tests.tolerances import assert_close


def mlp(depth: int, optimizer: object, width: int = 6) -> Graph:
    """A training step of a classifier, by hand."""
    x, label = leaf("image", f32["batch", 5]), leaf("label", i64["batch"])
    parameters: list[Value] = []
    h = x
    for i in range(depth):
        last = i == depth - 1
        w = Input(f"l{i}.weight", f32[h.shape[-1], 3 if last else width], "parameter")()
        b = Input(f"l{i}.bias", f32[3 if last else width], "parameter")()
        parameters += [w, b]
        h = h @ w + b if last else relu(h @ w + b)
    loss = -mean(take_along_axis(log_softmax(h), reshape(label, ("batch", 1)), 1))
    outputs = {"loss": loss}
    step = Input("step", i64[()], "state")()
    for p, g in zip(parameters, grad(loss, parameters), strict=True):
        slots = {s: Input(f"{p.op.name}.{s}", p.type, "state")() for s in optimizer.slots}  # type: ignore[attr-defined]
        new, states = optimizer.update(p, g, slots, step)  # type: ignore[attr-defined]
        outputs |= {f"{p.op.name}.next": new}
        outputs |= {f"{p.op.name}.{s}.next": v for s, v in states.items()}
    return Graph("step", outputs, (x, label))


def kinds(graph: Graph) -> dict[str, int]:
    found: dict[str, int] = {}
    for v in graph.nodes:
        found[v.op.label] = found.get(v.op.label, 0) + 1
    return found


def test_a_step_of_sgd_is_three_products_a_layer() -> None:
    graph = optimize(mlp(3, sgd(0.1)))
    found = kinds(graph)
    assert found["gemm"] == 3 + 2 + 3  # forward, backward but for the data, updates
    assert "transpose" not in found
    assert found["matmul"] == 3  # the sums down the rows of a bias, with the rate
    assert found["scatter_add"] == 1
    for name, value in graph.outputs.items():
        if name.endswith("weight.next"):
            assert isinstance(value.op, Gemm)
            assert value.op.alpha == -0.1
            assert value.args[2].op.name == name.removesuffix(".next")  # type: ignore[attr-defined]
    assert len(graph.nodes) <= 45


def test_a_step_of_momentum_keeps_two_passes_a_weight() -> None:
    graph = optimize(mlp(2, sgd(0.1, momentum=0.9)))
    for i in range(2):
        u = graph.outputs[f"l{i}.weight.u.next"]
        assert isinstance(u.op, Gemm)
        assert (u.op.alpha, u.op.beta) == (0.1, 0.9)
        w = graph.outputs[f"l{i}.weight.next"]
        assert set(w.args) == {Input(f"l{i}.weight", w.type, "parameter")(), u}


def test_a_product_that_is_needed_elsewhere_stays() -> None:
    graph = optimize(mlp(2, adam(1e-3)))
    squares = [v for v in graph.nodes if isinstance(v.op, Gemm) and v.op.transpose_a]
    assert [len(v.args) for v in squares] == [2, 2]


STEPS = [sgd(0.1), sgd(0.1, momentum=0.9), sgd(0.1, momentum=0.9, nesterov=True), adam(1e-3)]


@pytest.mark.parametrize("optimizer", STEPS, ids=repr)
def test_a_step_computes_the_same_after_all_passes(optimizer: object) -> None:
    graph = mlp(3, optimizer)
    done = optimize(graph)
    feeds = random_feeds(graph.outputs.values())
    before, now = (evaluate(g, feeds, np.float64) for g in (graph, done))
    assert before.keys() == now.keys()
    for name in before:
        assert done.outputs[name].type == graph.outputs[name].type
        assert_close(now[name], before[name], before[name].dtype.name, name)
    assert same_outputs(optimize(done), done)


@pytest.mark.parametrize("name", PASSES)
def test_every_pass_alone_and_every_other_without_it(name: str) -> None:
    graph = mlp(2, sgd(0.1, momentum=0.9))
    feeds = random_feeds(graph.outputs.values())
    expected = evaluate(graph, feeds, np.float64)
    for done in (PASSES[name](graph), optimize(graph, without=[name])):
        for output, array in evaluate(done, feeds, np.float64).items():
            assert_close(array, expected[output], array.dtype.name, output)
    assert PASSES[name].__doc__


def test_optimize_says_what_it_does() -> None:
    seen: list[tuple[str, Graph, Graph]] = []
    graph = mlp(2, sgd(0.1))
    done = optimize(graph, observe=lambda *made: seen.append(made))
    names = [name for name, _, _ in seen]
    *rounds, last = PASSES
    assert names[: len(rounds) + 1] == [last, *rounds]
    assert names[-2:] == [last, "dead"] == ["pack", "dead"]
    assert names.count(last) == 2
    assert same_outputs(seen[0][1], graph)
    assert same_outputs(seen[-1][2], done)  # together they do what they do one by one
    for (_, _, one), (_, other, _) in itertools.pairwise(seen):
        assert one is other


def test_passes_are_switched_off_by_name() -> None:
    seen: list[str] = []
    done = optimize(
        mlp(2, sgd(0.1)), without=["update", "gemm"], observe=lambda n, *_: seen.append(n)
    )
    assert not {"update", "gemm"} & set(seen)
    assert "matmul" in kinds(done)
    with pytest.raises(
        ModelError, match=r"there is no pass 'gem'; the passes are merge, release, fold"
    ):
        optimize(done, without=["gem"])


def test_a_pass_that_changes_an_output_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(graph: Graph) -> Graph:
        return graph.with_outputs({name: total(v) for name, v in graph.outputs.items()})

    monkeypatch.setitem(PASSES, "wrong", wrong)
    with pytest.raises(CompileError, match=r"pass wrong is wrong: it turns output y0 into f32\[\]"):
        optimize(graph_of(A))


def test_passes_do_linear_work() -> None:
    def work(depth: int) -> int:
        graph = mlp(depth, sgd(0.1))
        return calls(lambda: optimize(graph))

    work(10)
    assert work(200) < 1.1 * 4 * work(50)


def test_lowering_does_linear_work_where_each_sum_chooses_its_form() -> None:
    def work(depth: int) -> int:
        graph = optimize(mlp(depth, sgd(0.1)))
        return lines(lambda: to_model(graph))

    work(2)
    assert work(40) < 1.1 * 4 * work(10)


UNARY = [relu, tanh, exp, sigmoid, lambda x: -x, lambda x: x * 0.5, lambda x: sqrt(x * x + 1)]
BINARY = [
    lambda x, y: x + y,
    lambda x, y: x * y,
    lambda x, y: x - y,
    maximum,
    lambda x, y: where(x > y, x, 2 * y),
]


SHAPED = [
    lambda x: transpose(transpose(x) * 2),
    lambda x: expanded(total(x, 0), "n", 3),
    lambda x: expanded(mean(x, 1, keepdims=True), "n", 3),
    lambda x: softmax(x, 1),
    lambda x: log(softmax(tanh(x), 1)),
    lambda x: x - maximum_of(x, 1, keepdims=True),
    lambda x: reshape(reshape(x, (-1,)), ("n", 3)),
    lambda x: x @ (W @ transpose(W)) + C,
    lambda x: tanh(x) @ (transpose(x) @ x) * 0.1,
    lambda x: concatenate(split(x, [1], 1)[::-1], 1),
    lambda x: x * total(x) / x.shape[0],
    lambda x: ScatterAdd(1)(zeros_like(x), LABEL, x[:, :1]) + x,
    lambda x: cast(cast(x, f64), f32),
    lambda x: stop_gradient(x) * x,
    lambda x: x + full(("n", 3), 2.0, f32),
]


@st.composite
def programs(draw: st.DrawFn) -> Value:
    """A random expression of a few values of one shape."""
    values = [A, B, A * 0 + C]
    for _ in range(draw(st.integers(1, 7))):
        kind = draw(st.sampled_from(["unary", "binary", "shaped"]))
        x = draw(st.sampled_from(values))
        if kind == "unary":
            values.append(draw(st.sampled_from(UNARY))(x))
        elif kind == "binary":
            values.append(draw(st.sampled_from(BINARY))(x, draw(st.sampled_from(values))))
        else:
            values.append(draw(st.sampled_from(SHAPED))(x))
    return values[-1]


@settings(max_examples=60, deadline=None)
@given(programs(), st.integers(0, 2**31))
def test_random_graphs_compute_the_same_after_all_passes(value: Value, seed: int) -> None:
    squashed = tanh(value)  # what grows beyond all numbers is compared as 1
    gradients = grad(mean(squashed), [A, B, W])
    graph = graph_of(squashed, *gradients)
    done = optimize(graph)
    feeds = random_feeds(graph.outputs.values(), seed)
    before, now = (evaluate(g, feeds, np.float64) for g in (graph, done))
    for name, old in graph.outputs.items():
        assert done.outputs[name].type == old.type
        if np.isfinite(before[name]).all():  # a stable form may be finite where the naive is not
            np.testing.assert_allclose(now[name], before[name], 1e-6, 1e-9, err_msg=text(graph))
    assert same_outputs(optimize(done), done)
