"""Options of RNN, LSTM and GRU, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import GRU, LSTM, RNN, Recipe, SimpleRNN, f32, f64, i64, model, relu, sgd, training
from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.ir.graph import Graph, items
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import boolean
from nncompile.ops.loops.scan import Scan
from nncompile.passes import optimize
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from tests.layer_checks import model_of
from tests.recurrent_checks import FEATURES, HIDDEN, KINDS, Feeds, built, data, each_kind


def called(layer: Any, type_: Any, *args: Any, **options: Any) -> Model:
    return model_of(lambda x: layer(x, *args, **options), x=type_)


def output(layer: Any, x: Value, feeds: Feeds) -> tuple[Model, Any]:
    """The model of one layer, and its output at the weights of seed 0."""
    net = called(layer, x.type)
    found = evaluate(net.graph, {**feeds, **initial_values(net, 0)})
    return net, found["y"]


@each_kind
def test_last_output_and_sequence(kind: str) -> None:
    """The last output is that of the last step; with both directions, each one's own last."""
    feeds = {"x": data()["x"]}
    x = built(kind).inputs["x"]
    for options in ({}, {"reverse": True}, {"bidirectional": True}, {"num_layers": 3}):
        _, last = output(KINDS[kind](HIDDEN, name="r", **options), x, feeds)
        _, every = output(KINDS[kind](HIDDEN, True, name="r", **options), x, feeds)
        ends = every[:, 0] if options.get("reverse") else every[:, -1]
        if options.get("bidirectional"):
            ends = np.concatenate([every[:, -1, :HIDDEN], every[:, 0, HIDDEN:]], 1)
        np.testing.assert_array_equal(last, ends)


@each_kind
def test_reversed_is_the_same_on_the_flipped_sequence(kind: str) -> None:
    feeds, x = {"x": data()["x"]}, built(kind).inputs["x"]
    _, one = output(KINDS[kind](HIDDEN, True, reverse=True, name="r"), x, feeds)
    _, other = output(KINDS[kind](HIDDEN, True, name="r"), x, {"x": feeds["x"][:, ::-1]})
    np.testing.assert_allclose(one, other[:, ::-1], rtol=1e-12)


@each_kind
def test_what_is_past_the_end_does_not_matter(kind: str) -> None:
    """Of rows of 6, 2 and 1 steps: outputs and last states are those of the rows alone, and the
    gradients at what lies behind are zero. A mask says the same as lengths."""
    net = built(kind, masked=True, bidirectional=True)
    weights, feeds = initial_values(net, 0), data(states=2)
    feeds = {n: x for n, x in feeds.items() if n in net.inputs}
    gradient = grad(net.outputs["loss"], net.inputs["x"])
    found = evaluate({**net.outputs, "gradient": gradient}, {**feeds, **weights})
    for row, length in enumerate(feeds["lengths"]):
        alone = {"x": feeds["x"][row : row + 1, :length], "lengths": np.array([length])}
        expected = evaluate(net.graph, {**alone, **weights})
        np.testing.assert_allclose(found["out"][row, :length], expected["out"][0], rtol=1e-12)
        np.testing.assert_allclose(found["last0"][:, row], expected["last0"][:, 0], rtol=1e-12)
        np.testing.assert_array_equal(found["out"][row, length:], 0)
        np.testing.assert_array_equal(found["gradient"][row, length:], 0)
    layer = KINDS[kind](HIDDEN, True, bidirectional=True, name="r")

    @model
    def masked(
        x: Value = f64["batch", "time", FEATURES], mask: Value = boolean["batch", "time"]
    ) -> Any:  # type: ignore[assignment]
        return {"out": layer(x, mask=mask)}

    present = np.arange(6) < feeds["lengths"][:, None]
    again = evaluate(masked.graph, {"x": feeds["x"], "mask": present, **weights})
    np.testing.assert_array_equal(again["out"], found["out"])


def test_dropout_is_between_layers_alone() -> None:
    feeds, x = data(), built("GRU").inputs["x"]
    feeds = {"x": feeds["x"], **{n: np.asarray(0, np.int64) for n in ("seed", "step")}}
    one, _ = output(GRU(HIDDEN, num_layers=1, dropout=0.5, name="r"), x, feeds)
    assert "seed" not in one.states
    layer = GRU(HIDDEN, True, num_layers=2, dropout=0.5, name="r")
    net, dropped = output(layer, x, feeds)
    plain, kept = output(GRU(HIDDEN, True, num_layers=2, name="r"), x, feeds)
    assert not np.allclose(dropped, kept)
    weights = initial_values(net, 0)
    np.testing.assert_array_equal(
        evaluate(net.inference(), {"x": feeds["x"], **weights})["y"], kept
    )
    assert list(plain.parameters) == list(net.parameters)


def test_activation_and_initial_values() -> None:
    feeds, x = {"x": data()["x"]}, built("RNN").inputs["x"]
    net, y = output(SimpleRNN(HIDDEN, True, activation=relu, init=0.5, name="r"), x, feeds)
    assert y.min() == 0
    weights = initial_values(net, 0)
    assert list(weights) == [f"r.{n}_l0" for n in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
    assert (weights["r.weight_ih_l0"] == 0.5).all()
    limit = 1 / np.sqrt(HIDDEN)
    assert 0.5 * limit < np.abs(weights["r.weight_hh_l0"]).max() <= limit


@each_kind
def test_a_step_of_the_reverse_loop_is_short(kind: str) -> None:
    """Derivatives are computed for all steps at once: what is left for a step is a handful of nodes
    of which one is a product."""
    net = built(kind, f32)
    gradients = grad((net.outputs["out"] * net.outputs["out"]).sum(), list(net.parameters.values()))
    leaves = (*net.inputs.values(), *net.parameters.values())
    graph = optimize(Graph("g", {f"s{i}": s for i, s in enumerate(gradients)}, leaves))
    back = [v for v in graph.nodes if isinstance(v.op, Scan) and v.op.reverse]
    assert len(back) == 1
    count = nodes_within(
        to_model(Graph("b", {f"y{i}": x for i, x in enumerate(items(back[0]))}, leaves))
    )
    assert count <= {"RNN": 4, "LSTM": 8, "GRU": 7}[kind]


def nodes_within(model: Any) -> int:
    """The number of nodes of the last loop's body."""
    found: list[int] = []

    def visit(nodes: Any) -> None:
        for node in nodes:
            for attribute in node.attribute:
                if node.op_type == "Scan" and attribute.name == "body":
                    found.append(len(attribute.g.node))
                visit(attribute.g.node)

    visit(model.graph.node)
    return found[-1]


# Mistakes.


def test_x_must_fit() -> None:
    with pytest.raises(
        ShapeError, match=r"LSTM needs \[batch, time, features\], x is f32\[batch, 4\]"
    ):
        called(LSTM(3), f32["batch", 4])
    with pytest.raises(DTypeError, match=r"GRU needs floating numbers, x is i64"):
        called(GRU(3), i64["batch", 5, 4])
    with pytest.raises(ShapeError, match=r"RNN needs a known number of features"):
        called(RNN(3), f32["batch", 5, "n"])


def test_options_must_fit() -> None:
    for options, message in (
        ({"hidden_size": 0}, "hidden_size of GRU must be at least 1, got 0"),
        ({"hidden_size": 3, "num_layers": 0}, "num_layers of GRU must be at least 1"),
        ({"hidden_size": 3, "dropout": 1.0}, r"the dropout of GRU must be in \[0, 1\), got 1.0"),
        (
            {"hidden_size": 3, "bidirectional": True, "reverse": True},
            "both bidirectional and reversed",
        ),
    ):
        with pytest.raises(ModelError, match=message):
            GRU(**options)


def test_states_and_masks_must_fit() -> None:
    x = f32["batch", 5, 4]
    zero = np.zeros((1, 2, 3), np.float32)
    with pytest.raises(
        ShapeError, match=r"initial state of GRU must be f32\[1, batch, 3\], got f32\[1, 2, 3\]"
    ):
        called(GRU(3), x, zero)
    with pytest.raises(ModelError, match="initial state of LSTM must have 2 parts, got 1"):
        called(LSTM(3), x, zero)
    with pytest.raises(
        ShapeError, match=r"the lengths for f32\[batch, 5, 4\] must be i64\[batch\]"
    ):
        called(GRU(3), x, lengths=np.zeros(2, np.int64))
    with pytest.raises(ShapeError, match=r"the mask for .* must be bool\[batch, 5\], got i64\[2\]"):
        called(GRU(3), x, mask=np.zeros(2, np.int64))
    with pytest.raises(ModelError, match="either lengths or a mask"):
        called(GRU(3), x, lengths=np.zeros(2, np.int64), mask=np.zeros(2, bool))


def test_a_recipe_takes_it() -> None:
    net = called(GRU(3, name="r"), f32["batch", "time", 4])

    @model
    def whole(x: Value = f32["batch", "time", 4]) -> dict[str, Value]:  # type: ignore[assignment]
        return {"loss": net(x)["y"].mean()}

    assert isinstance(training(whole, optimizer=sgd(0.1), batch_size=2), Recipe)
