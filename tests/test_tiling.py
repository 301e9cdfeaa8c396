"""Updates tile by tile: like those on whole tensors, bit by bit, and all or nothing."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import parser

from dsl import (
    Dense,
    Optimizer,
    Value,
    adagrad,
    adam,
    adamax,
    adamw,
    cosine,
    cross_entropy,
    ema,
    f32,
    f64,
    i64,
    lamb,
    lion,
    mean,
    model,
    muon,
    nadam,
    parameter,
    plateau,
    relu,
    rmsprop,
    sgd,
    training,
)
from nncompile.compiler import compile as compile_module
from nncompile.compiler.compile import CompiledStep, compile_step
from nncompile.diagnostics.errors import BackendError
from nncompile.runtime import tiled_session
from nncompile.runtime.halves import HalvesRunner
from nncompile.runtime.session import Session
from nncompile.runtime.step_sources import METADATA_KEY
from nncompile.runtime.tiled_session import TiledSession
from nncompile.runtime.tiling import tiling_of
from tests.small_models import assert_same

TILE = 1000


@pytest.fixture(autouse=True)
def tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compile_module, "LARGE", 0)
    monkeypatch.setattr(tiled_session, "TILE", TILE)


@model
def net(x: Value = f32["batch", 70], label: Value = i64["batch"]) -> dict[str, Value]:
    hidden = x >> Dense(61, relu) >> Dense(53, relu)
    return {"loss": cross_entropy(hidden >> Dense(10), label)}


def batches(count: int = 4) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {"x": rng.normal(size=(16, 70)).astype(np.float32), "label": rng.integers(0, 10, 16)}
        for _ in range(count)
    ]


def whole(compiled: CompiledStep, monkeypatch: pytest.MonkeyPatch, **options: Any) -> HalvesRunner:
    """A runner whose updates are on whole tensors."""
    with monkeypatch.context() as patched:
        patched.setattr(tiled_session, "tiling_of", lambda *_: None)
        return of(compiled, Session, **options)


def of(compiled: CompiledStep, kind: type[Session] = TiledSession, **options: Any) -> HalvesRunner:
    runner = compiled.runner(**{"threads": 1, "native": False, **options})
    assert isinstance(runner, HalvesRunner)
    assert type(runner.session) is kind
    return runner


RECIPES: dict[str, tuple[int, dict[str, Any]]] = {  # with how many models of tiles
    "adam": (1, {"optimizer": adam(1e-3)}),
    "adamw": (1, {"optimizer": adamw(cosine(1e-3, steps=9))}),
    "sgd": (1, {"optimizer": sgd(0.1)}),
    "momentum": (1, {"optimizer": sgd(0.1, momentum=0.9)}),
    "rmsprop": (1, {"optimizer": rmsprop(1e-3)}),
    "adagrad": (1, {"optimizer": adagrad(1e-2)}),
    "adamax": (1, {"optimizer": adamax(1e-3)}),
    "nadam": (1, {"optimizer": nadam()}),  # each parameter has a number in its state
    "a rate that follows": (1, {"optimizer": adam(plateau(1e-2, patience=1))}),
    "clipped": (1, {"optimizer": adamw(1e-3), "clip_norm": 0.1}),
    "averaged": (1, {"optimizer": adamw(1e-3), "average": ema(0.9)}),
    "two optimizers": (2, {"optimizer": {"dense.*": sgd(0.1, momentum=0.9), "*": adam(1e-3)}}),
}


@pytest.mark.parametrize("name", RECIPES)
def test_the_bits_are_those_of_whole_tensors(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is looked at before the update is made, and after a step that was undone, too."""
    models, options = RECIPES[name]
    compiled = compile_step(training(net, **{"minimize": "loss", **options}))
    tiled, plain = of(compiled), whole(compiled, monkeypatch)
    session: Any = tiled.session
    assert (len(session.parts), len(session.sessions)) == (2, models)
    assert session.inputs == plain.session.inputs
    assert session.outputs == plain.session.outputs
    for i, batch in enumerate([*batches(), *batches()]):
        for runner in (tiled, plain):
            runner.step(batch)
        if i == 3:
            assert_same(tiled.look(tiled._sets[0]), plain.look(plain._sets[0]))
            assert_same(tiled.state(), plain.state())
            assert_same(tiled.look(["dense.weight"]), plain.look(["dense.weight"]))
            assert tiled.undo()
            assert plain.undo()
    assert_same(tiled.state(), plain.state())
    assert_same(tiled.views(), plain.views())
    assert tiled.steps == plain.steps == 7


@pytest.mark.parametrize("size", [1001, 2000, 2001, 4999])
def test_every_element_is_in_a_tile(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    @model
    def line(x: Value = f32["batch", size]) -> dict[str, Value]:
        return {"loss": mean((x * parameter("w", (size,))) ** 2)}

    compiled = compile_step(training(line, minimize="loss", optimizer=adam(0.1)))
    tiled, plain = of(compiled), whole(compiled, monkeypatch)
    for runner in (tiled, plain):
        for _ in range(3):
            runner.step({"x": np.ones((2, size), np.float32)})
    assert_same(tiled.state(), plain.state())
    binding: Any = tiled._bindings[tiled._turn]
    assert len(binding.runs(ort.RunOptions())) == 1 + -(-size // TILE)


def test_double_precision_is_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    @model
    def line(x: Value = f64["batch", 1500]) -> dict[str, Value]:
        return {"loss": mean((x * parameter("w", (1500,), dtype=f64)) ** 2)}

    compiled = compile_step(training(line, minimize="loss", optimizer=adam(0.1)))
    tiled, plain = of(compiled), whole(compiled, monkeypatch)
    for runner in (tiled, plain):
        runner.step({"x": np.ones((2, 1500))})
    assert tiled.state()["w"].dtype == np.float64
    assert_same(tiled.state(), plain.state())


def test_states_are_held_once() -> None:
    runner = of(compile_step(training(net, minimize="loss", optimizer=sgd(0.1, momentum=0.9))))
    first, second = runner._sets
    assert all(first[name] is second[name] for name in runner.state_map)


class Quotients(Optimizer):
    """What onnxruntime writes otherwise: (1/x)·y is y/x."""

    def initial(self, w: Value) -> dict[str, Value]:
        return {"m": w * 0.0}

    def update(self, w: Value, g: Value, slots: Any, step: Value) -> tuple[Value, Any]:
        m = 0.9 * slots["m"] + (1.0 / (abs(g) + 1.0)) * (g * g * g - 0.01)
        return w - 0.1 * g, {"m": m}


class Named(Optimizer):
    """States whose names are those of what is made for tiles."""

    def initial(self, w: Value) -> dict[str, Value]:
        return {name: w.sum() * 0.0 + 0.1 for name in ("s", "s:kept", "s:kept'")}

    def update(self, w: Value, g: Value, slots: Any, step: Value) -> tuple[Value, Any]:
        return slots["s"] * w + slots["s:kept"] * g, {name: 0.9 * x for name, x in slots.items()}


class Sums(Optimizer):
    """Its state is read by a sum as well, and written elementwise."""

    lr: float = 0.1

    def initial(self, w: Value) -> dict[str, Value]:
        return {"m": w * 0.0}

    def update(self, w: Value, g: Value, slots: Any, step: Value) -> tuple[Value, Any]:
        m = 0.9 * slots["m"] + g
        return w - self.lr * m / (1 + slots["m"].sum()), {"m": m}


class Scaled(Optimizer):
    """What it multiplies gradients by is a number in its state, which changes."""

    def initial(self, w: Value) -> dict[str, Value]:
        return {"scale": w.sum() * 0.0 + 0.1}

    def update(self, w: Value, g: Value, slots: Any, step: Value) -> tuple[Value, Any]:
        return w - slots["scale"] * g, {"scale": 2.0 * slots["scale"]}


class Neighbours(Optimizer):
    """An element of what is next is computed of others."""

    def initial(self, w: Value) -> dict[str, Value]:
        return {}

    def update(self, w: Value, g: Value, slots: Any, step: Value) -> tuple[Value, Any]:
        return w - 0.1 * g.sum(0, keepdims=True), {}


OWN: dict[str, tuple[type[Session], Callable[[], Optimizer]]] = {
    "sums": (TiledSession, Sums),
    "quotients": (TiledSession, Quotients),
    "named": (TiledSession, Named),
    "scaled": (TiledSession, Scaled),
    "neighbours": (Session, Neighbours),
    "lion": (Session, lambda: lion(1e-3)),  # reads a state after it is written
    "muon": (Session, lambda: muon(1e-2)),  # products come before what is elementwise
    "lamb": (Session, lambda: lamb(1e-3)),  # norms are between
}


@pytest.mark.parametrize("name", OWN)
def test_what_is_not_elementwise_runs_before(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind, make = OWN[name]
    compiled = compile_step(training(net, minimize="loss", optimizer=make()))
    tiled, plain = of(compiled, kind), whole(compiled, monkeypatch)
    for batch in batches():
        for runner in (tiled, plain):
            runner.step(batch)
    assert_same(tiled.state(), plain.state())


def test_small_tensors_are_not_tiled(monkeypatch: pytest.MonkeyPatch) -> None:
    compiled = compile_step(training(net, minimize="loss", optimizer=adam(1e-3)))
    monkeypatch.setattr(tiled_session, "TILE", 70 * 61)
    of(compiled, Session)
    monkeypatch.setattr(tiled_session, "TILE", 70 * 61 - 1)
    runner = of(compiled)
    assert [part.size for part in runner.session.parts] == [70 * 61]  # type: ignore[attr-defined]  # of a tiled one
    of(compiled, Session, threads=2)  # whose tiles are twice as large


def test_where_a_signal_could_come_between_tensors_are_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    compiled = compile_step(training(net, minimize="loss", optimizer=adam(1e-3)))
    monkeypatch.setattr(Session, "runs_at_once", False)
    of(compiled, Session)


def test_a_tile_that_fails_is_a_lost_state() -> None:
    runner = of(compile_step(training(net, minimize="loss", optimizer=adam(1e-3))))
    first, second, *_ = batches()
    start = runner.state()

    def fail() -> None:
        raise RuntimeError("no memory")

    runner.step(first)
    runner.views()  # makes the update
    binding: Any = runner._bindings[runner._turn]
    binding._tiles = [*binding.runs(ort.RunOptions())[1:2], fail]
    runner.step(second)
    with pytest.raises(BackendError, match="this was while the state was written, which is lost"):
        runner.views()
    runner.load(start)
    assert_same(runner.state(), start)


UPDATE = """
<ir_version: 10, opset_import: ["": 21]>
update (float[40, 50] w, float[40, 50] g, float s) => (float[40, 50] w_next, float s_next) {
  s_next = Add(s, s)
  a = Mul(g, s)
  w_next = Sub(w, a)
}
"""


def update_of(text: str = UPDATE, **states: str) -> onnx.ModelProto:
    made = parser.parse_model(text)
    pairs = {"w": "w_next", "s": "s_next", **states}
    onnx.helper.set_model_props(made, {METADATA_KEY: json.dumps(pairs)})
    return made


def as_run(model: bytes) -> onnx.ModelProto:
    return onnx.load_model_from_string(model)


def test_nodes_of_unknown_types_belong_to_the_rest() -> None:
    text = UPDATE.replace('["": 21]', '["": 21, "own": 1]').replace(
        "float s_next)", "float s_next, float t)"
    )
    text = text.replace(
        "a = Mul(g, s)", "a = Mul(g, s)\n  b = own.Made(g)\n  c = Neg(b)\n  t = own.Made(c)"
    )
    tiling = tiling_of(update_of(text), TILE, as_run)
    assert tiling is not None
    assert [n.op_type for n in tiling.rest.graph.node] == ["Add", "Made", "Neg", "Made", "Identity"]


def test_a_number_is_taken_before_its_state_is_written() -> None:
    tiling = tiling_of(update_of(), TILE, as_run)
    assert tiling is not None
    (part,) = tiling.parts
    assert set(part.numbers.values()) == {"s:kept"}
    assert [(n.op_type, *n.input, *n.output) for n in tiling.rest.graph.node] == [
        ("Add", "s", "s", "s_next"),
        ("Identity", "s", "s:kept"),
    ]
    assert [x.name for x in tiling.rest.graph.input] == ["s"]
    assert tiling.states == {"w"}


def test_a_state_that_the_rest_writes_is_not_read_later() -> None:
    text = UPDATE.replace("float s)", "float s, float[40, 50] u)")
    text = text.replace("float s_next)", "float s_next, float[40, 50] u_next)")
    text = text.replace("a = Mul(g, s)", "a = Mul(g, u)\n  u_next = Exp(u)")
    assert tiling_of(update_of(text), TILE, as_run) is not None  # where it is no state
    assert tiling_of(update_of(text, u="u_next"), TILE, as_run) is None


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("w_next = Sub(w, a)", "w_next = Sub(a, g)"),  # the state is not among what it takes
        ("a = Mul(g, s)", "a = Exp(g)"),  # what comes before the last operator is none of inputs
        ("a = Mul(g, s)", "a = ReduceSum <keepdims = 1> (g)"),
        ("float[40, 50] w, float[40, 50] g", "float[40, n] w, float[40, n] g"),
        ("float[40, 50] g", "float[50] g"),
        ("float[40, 50]", "float16[40, 50]"),
        ("float s_next)", "float s_next, float[40, 50] a)"),  # which is a result, too
    ],
)
def test_other_updates_are_left(old: str, new: str) -> None:
    assert tiling_of(update_of(), TILE, as_run) is not None
    text = UPDATE.replace(old, new)
    if "float16" in new:
        text = text.replace("float s", "float16 s")
    if "n]" in new:
        text = text.replace("float[40, 50] w_next", "float[40, n] w_next")
    assert tiling_of(update_of(text), TILE, as_run) is None
