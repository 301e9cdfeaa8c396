"""RNN, LSTM and GRU: torch's, from the same weights; their options and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import GRU, LSTM, RNN, Recipe, SimpleRNN, adam, f32, f64, i64, model, relu, sgd, training
from nncompile.autodiff.grad import grad
from nncompile.backends.onnx import to_model
from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.ir.graph import Graph, items
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import DType, boolean
from nncompile.ops.loops.scan import Scan
from nncompile.passes import optimize
from nncompile.program.initialization import initial_values
from nncompile.program.model import Model
from tests.backends import session, valid_model
from tests.tolerances import assert_close

torch = pytest.importorskip("torch")

KINDS = {"RNN": RNN, "LSTM": LSTM, "GRU": GRU}
HIDDEN, FEATURES = 5, 4
Feeds = dict[str, np.ndarray]

each_kind = pytest.mark.parametrize("kind", KINDS)


def built(kind: str, dtype: DType = f64, **options: Any) -> Model:
    """The outputs and the last states of a layer, and a loss of both."""
    masked = options.pop("masked", False)
    started = options.pop("started", False)
    layer = KINDS[kind](HIDDEN, return_sequences=True, return_state=True, name="r", **options)
    count = layer.num_layers * (2 if layer.bidirectional else 1)

    @model
    def net(
        x: Value = dtype["batch", "time", FEATURES],  # type: ignore[assignment]
        lengths: Value = i64["batch"],  # type: ignore[assignment]
        h: Value = dtype[count, "batch", HIDDEN],  # type: ignore[assignment]
        c: Value = dtype[count, "batch", HIDDEN],  # type: ignore[assignment]
    ) -> dict[str, Value]:
        initial = ((h, c) if kind == "LSTM" else h) if started else None
        out, *last = layer(x, initial, lengths=lengths if masked else None)
        loss = (out * out * out).sum() + sum((s * s).sum() for s in last)
        return {"out": out, **{f"last{i}": s for i, s in enumerate(last)}, "loss": loss}

    return net


def data(dtype: str = "float64", time: int = 6, batch: int = 3, states: int = 4) -> Feeds:
    rng = np.random.default_rng(0)
    return {
        "x": rng.normal(size=(batch, time, FEATURES)).astype(dtype),
        "lengths": np.array([time, 2, 1][:batch]),
        "h": rng.normal(size=(states, batch, HIDDEN)).astype(dtype),
        "c": rng.normal(size=(states, batch, HIDDEN)).astype(dtype),
    }


def peer(kind: str, weights: Feeds, **options: Any) -> Any:
    """torch's layer with the same weights."""
    module = getattr(torch.nn, kind)(FEATURES, HIDDEN, batch_first=True, **options)
    named = {
        path.rpartition(".")[2]: torch.tensor(np.asarray(w).T.copy()) for path, w in weights.items()
    }
    module.to(next(iter(named.values())).dtype).load_state_dict(named)
    return module


def torch_outputs(kind: str, module: Any, feeds: Feeds, started: bool, masked: bool) -> list[Any]:
    x = torch.tensor(feeds["x"], requires_grad=True)
    states = [torch.tensor(feeds[n]) for n in ("h", "c")]
    initial = (tuple(states) if kind == "LSTM" else states[0]) if started else None
    given: Any = x
    if masked:
        given = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(feeds["lengths"]), batch_first=True, enforce_sorted=False
        )
    out, last = module(given, initial)
    if masked:
        out, _ = torch.nn.utils.rnn.pad_packed_sequence(
            out, batch_first=True, total_length=feeds["x"].shape[1]
        )
    last = last if isinstance(last, tuple) else (last,)
    loss = (out**3).sum() + sum((s * s).sum() for s in last)
    loss.backward()
    return [out, *last, loss, x.grad]


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "initial": {"started": True},
    "stacked": {"num_layers": 2},
    "bidirectional": {"bidirectional": True},
    "masked": {"masked": True},
    "all": {"num_layers": 2, "bidirectional": True, "masked": True, "started": True},
    "no bias": {"bias": False},
}


@pytest.mark.slow
@each_kind
@pytest.mark.parametrize("case", CASES)
def test_agrees_with_torch(kind: str, case: str) -> None:
    """Outputs, last states, and the gradient at x and every weight, in float64; onnxruntime in
    float64 gives the same."""
    options = dict(CASES[case])
    started, masked = options.pop("started", False), options.pop("masked", False)
    ours = {
        "num_layers": options.get("num_layers", 1),
        "bidirectional": options.get("bidirectional", False),
        "bias": options.get("bias", True),
    }
    net = built(kind, started=started, masked=masked, **ours)
    weights = initial_values(net, 1)
    states = ours["num_layers"] * (2 if ours["bidirectional"] else 1)
    feeds = data(states=states)
    feeds = {n: x for n, x in feeds.items() if n in net.inputs}
    module = peer(kind, weights, **options)
    expected = torch_outputs(kind, module, data(states=states), started, masked)
    wrt = [net.inputs["x"], *net.parameters.values()]
    gradients = grad(net.outputs["loss"], wrt)
    outputs = {**net.outputs, **{f"s{i}": s for i, s in enumerate(gradients)}}
    graph = optimize(Graph("g", outputs, (*net.inputs.values(), *net.parameters.values())))
    by_torch = {n: p.grad.numpy().T for n, p in module.named_parameters()}
    whole = [x.detach().numpy() for x in expected]
    whole += [by_torch[path.rpartition(".")[2]] for path in net.parameters]
    for found in (evaluate(graph, {**feeds, **weights}), run(graph, {**feeds, **weights})):
        for (name, actual), theirs in zip(found.items(), whole, strict=True):
            assert_close(actual, theirs, "float64", name)


def run(graph: Graph, feeds: Feeds) -> Feeds:
    shapes = {n: x.shape for n, x in evaluate(graph, feeds).items()}
    return session(valid_model(graph))(feeds, shapes)


@each_kind
@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_ten_steps_as_torch(kind: str, optimizer: str) -> None:
    """In float32, from the same weights: within 2·10⁻⁶ after SGD; Adam divides by the size of
    gradients, so that what is rounded in small ones is seen: within 10⁻⁴ of steps of 10⁻²."""

    @model
    def net(x: Value = f32["batch", "time", FEATURES], y: Value = f32["batch", HIDDEN]) -> Any:  # type: ignore[assignment]
        out = x >> KINDS[kind](HIDDEN, name="r")
        return {"out": out, "loss": ((out - y) * (out - y)).mean()}

    mine, theirs = {
        "sgd": (sgd(0.1), lambda p: torch.optim.SGD(p, 0.1)),
        "adam": (adam(1e-2), lambda p: torch.optim.Adam(p, 1e-2)),
    }[optimizer]
    step = compile_step(training(net, optimizer=mine, batch_size=3))
    state = step.source.initial()
    runner = step.runner(state, threads=1)
    module = peer(kind, {n: state[n] for n in net.parameters})
    descent = theirs(module.parameters())
    feeds = data("float32")
    y = np.random.default_rng(1).normal(size=(3, HIDDEN)).astype(np.float32)
    for _ in range(10):
        runner.step({"x": feeds["x"], "y": y})
        descent.zero_grad()
        out = module(torch.tensor(feeds["x"]))[0][:, -1]
        loss = ((out - torch.tensor(y)) ** 2).mean()
        loss.backward()
        descent.step()
    bound = 2e-6 if optimizer == "sgd" else 1e-4
    found = runner.state()
    for name, p in module.named_parameters():
        np.testing.assert_allclose(found[f"r.{name}"].T, p.detach().numpy(), rtol=0, atol=bound)
    assert float(runner.metrics()["loss"]) == pytest.approx(loss.item(), rel=1e-4)


@each_kind
def test_one_file_for_every_size(kind: str) -> None:
    net = built(kind, f32, masked=True, num_layers=2, bidirectional=True)
    weights = initial_values(net, 0)
    gradients = grad(net.outputs["loss"], list(net.parameters.values()))
    outputs = {**net.outputs, **{f"s{i}": s for i, s in enumerate(gradients)}}
    leaves = (*net.inputs.values(), *net.parameters.values())
    graph = optimize(Graph("g", outputs, leaves))
    compiled = session(valid_model(graph))
    for time, batch in ((6, 3), (9, 2), (1, 1)):
        feeds = {n: x for n, x in data("float32", time, batch).items() if n in net.inputs}
        feeds["lengths"] = np.minimum(feeds["lengths"], time)
        expected = evaluate(graph, {**feeds, **weights}, np.float64)
        found = compiled({**feeds, **weights}, expected)
        for name, x in expected.items():
            assert_close(found[name], x, "float32", f"{name} at {time}")


def output(layer: Any, x: Value, feeds: Feeds, *args: Any, **options: Any) -> tuple[Model, Any]:
    """The model of one layer, and its output at the weights of seed 0."""

    @model
    def net(x: Value = x.type) -> dict[str, Value]:
        return {"y": layer(x, *args, **options)}

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


def called(layer: Any, type_: Any, *args: Any, **options: Any) -> Model:
    @model
    def net(x: Value = type_) -> dict[str, Value]:
        return {"y": layer(x, *args, **options)}

    return net


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
