"""What an optimizer does to parameters of one type is asked once, and done to each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nncompile.elementwise import tanh
from nncompile.ir.broadcasting import zeros_like
from nncompile.ir.graph import Graph
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f16, f32
from nncompile.ops.random.generator import normal, random_key, seed_leaf, step_leaf
from nncompile.optim import (
    Optimizer,
    adafactor,
    adam,
    adamw,
    asgd,
    cosine,
    lamb,
    lbfgs,
    muon,
    nadam,
    plateau,
    radam,
    rprop,
    sgd,
)
from nncompile.passes import same_outputs
from nncompile.program.composition import compose
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe, training
from tests.leaves import leaf
from tests.small_models import drawn

LAYERS = 3


def deep(dtype: DType = f32) -> Model:
    """Layers of one size, and a last one of another."""
    x = y = leaf("x", dtype["batch", 4])
    types = {f"{i}.weight": dtype[4, 4] for i in range(LAYERS)}
    types |= {f"{i}.bias": dtype[4] for i in range(LAYERS)} | {"last": dtype[4, 1]}
    p = {path: leaf(path, type_, "parameter") for path, type_ in types.items()}
    for i in range(LAYERS):
        y = tanh(y @ p[f"{i}.weight"] + p[f"{i}.bias"])
    y = y @ p["last"]
    outputs = {"y": y, "loss": (y * y).mean()}
    initial = {path: drawn(path, type_) for path, type_ in types.items()}
    return Model("deep", Graph("deep", outputs, (x, *p.values())), initial)


class counted(Optimizer):
    """Gradient descent that notes of which types the parameters were that it was asked for."""

    asked: Any = None

    def update(self, w: Value, g: Value, slots: Mapping[str, Value], step: Value) -> Any:
        self.asked.append(w.type)
        return w - 0.1 * g, {}


class noisy(counted):
    """The same with random numbers, drawn anew whenever it is asked."""

    def update(self, w: Value, g: Value, slots: Mapping[str, Value], step: Value) -> Any:
        key = random_key(f"noise {len(self.asked)}", seed_leaf(), step_leaf())
        return super().update(w, g + normal(key, w.shape, 0.0, 0.1), slots, step)


class anchored(Optimizer):
    """Keeps close to where the parameter began, which one slot holds, and counts in another."""

    slots = ("start", "count")

    def initial(self, w: Value) -> dict[str, Value]:
        return {"start": w, "count": zeros_like(w)}

    def update(self, w: Value, g: Value, slots: Mapping[str, Value], step: Value) -> Any:
        to = slots["start"] - w
        return w - 0.1 * g + 0.01 * to, {"start": slots["start"], "count": slots["count"] + 1}


def test_it_is_asked_once_for_each_type() -> None:
    asked: list[Any] = []
    compose(training(deep(), optimizer=counted(asked=asked)))
    assert sorted(map(str, asked)) == ["f32[4, 1]", "f32[4, 4]", "f32[4]"]


def test_what_draws_numbers_is_asked_for_each_parameter() -> None:
    asked: list[Any] = []
    step = compose(training(deep(), optimizer=noisy(asked=asked)))
    assert len(asked) == 2 * LAYERS + 1
    keys = {v for v in step.step.nodes if v.op.label == "hash" and not v.rank}
    assert len(keys) >= 2 * LAYERS + 1


RECIPES: dict[str, dict[str, Any]] = {
    "adam": {"optimizer": adam(1e-2, amsgrad=True, weight_decay=0.1)},
    "of 16 bits": {"optimizer": adamw(cosine(1e-2, steps=10)), "model": deep(f16)},
    "momentum": {"optimizer": sgd(0.1, momentum=0.9, nesterov=True), "clip_norm": 1.0},
    "norms": {"optimizer": lamb(1e-2), "clip_each_norm": 1.0},
    "numbers": {"optimizer": nadam(1e-2), "clip_value": 1.0},
    "warm": {"optimizer": radam(1e-2), "accumulate": 2},
    "signs": {"optimizer": rprop(1e-2)},
    "averages": {"optimizer": asgd(1e-2)},
    "rows": {"optimizer": adafactor(1e-2)},
    "matrices": {"optimizer": {"*.weight": muon(1e-2), "*": adam(1e-2)}},
    "together": {"optimizer": lbfgs(0.1)},
    "watched": {"optimizer": adam(plateau(1e-2))},
    "anchored": {"optimizer": anchored(0.1)},
    "bounded": {"optimizer": adam(1e-2), "max_norm": 2.0},
}


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_what_it_is_when_each_is_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Node by node: equal ones are one object."""

    def recipe() -> Recipe:
        options = dict(RECIPES[name])
        return training(options.pop("model", None) or deep(), minimize="loss", **options)

    once = compose(recipe())
    monkeypatch.setattr(
        "nncompile.program.descent._Update.is_of_arguments_alone", property(lambda _: False)
    )
    each = compose(recipe())
    for graph, other in ((once.step, each.step), (once.update, each.update)):
        assert same_outputs(graph, other)
        here, there = graph.locations, other.locations
        assert [here.location(v) for v in graph.nodes] == [there.location(v) for v in other.nodes]
    assert once.state == each.state
    assert once.first == each.first
    assert all(x is each.first[path] for path, x in once.first.items())
