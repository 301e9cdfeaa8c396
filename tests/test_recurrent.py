"""RNN, LSTM and GRU are torch's, from the same weights, in files for every size."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from dsl import adam, f32, model, sgd, training
from nncompile.autodiff.grad import grad
from nncompile.compiler.compile import compile_step
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.passes import optimize
from nncompile.program.initialization import initial_values
from tests.backends import in_onnxruntime, session, valid_model
from tests.recurrent_checks import FEATURES, HIDDEN, KINDS, Feeds, built, data, each_kind
from tests.tolerances import assert_close

torch = pytest.importorskip("torch")


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
    given = {**feeds, **weights}
    for found in (evaluate(graph, given), in_onnxruntime(graph, given)):
        for (name, actual), theirs in zip(found.items(), whole, strict=True):
            assert_close(actual, theirs, "float64", name)


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
