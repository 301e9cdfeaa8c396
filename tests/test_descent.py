"""What an optimizer of the package does to parameters of one type is asked once; one of one's own
is asked for each parameter."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from nncompile.ir.broadcasting import full
from nncompile.ir.graph import input_of
from nncompile.ir.op import Value
from nncompile.ir.types import f16
from nncompile.optim import (
    Optimizer,
    Slots,
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
from nncompile.program.recipe import Recipe, training
from tests.small_models import LAYERS, deep


class own(Optimizer):
    """One that looks at the name of the parameter, and begins with other numbers each time."""

    asked: Any = None
    slots = ("start",)

    def initial(self, w: Value) -> dict[str, Value]:
        self.asked.append(w)
        return {"start": full(w.shape, len(self.asked), w.dtype)}

    def update(self, w: Value, g: Value, slots: Mapping[str, Value], step: Value) -> Any:
        return w - (0.1 if ".bias" in input_of(w).name else 0.2) * g, dict(slots)


class another(adam):
    """Adam that notes what its moments are taken of."""

    asked: Any = None

    def _accumulated(self, g: Value, slots: Slots) -> Slots:
        self.asked.append(g)
        return super()._accumulated(g, slots)


def test_ones_own_is_asked_for_each_parameter() -> None:
    asked: list[Any] = []
    step = compose(training(deep(), optimizer=own(asked=asked)))
    assert len(asked) == 2 * LAYERS + 1
    assert len(set(step.first.values())) == 2 * LAYERS + 1
    moments: list[Any] = []
    compose(training(deep(), optimizer=another(1e-2, asked=moments)))
    assert len(moments) == 2 * LAYERS + 1


def test_those_of_the_package_are_asked_once_for_each_type(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []
    update = adam.update

    def counted(self: Any, w: Value, *others: Any) -> Any:
        asked.append(w.type)
        return update(self, w, *others)

    monkeypatch.setattr(adam, "update", counted)
    compose(training(deep(), optimizer=adam(1e-2)))
    assert sorted(map(str, asked)) == ["f32[4, 1]", "f32[4, 4]", "f32[4]"]


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
    "bounded": {"optimizer": adam(1e-2), "max_norm": 2.0},
}


@pytest.mark.parametrize("name", RECIPES)
def test_it_is_what_it_is_when_each_is_asked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Node by node: equal ones are one object."""

    def recipe() -> Recipe:
        options = dict(RECIPES[name])
        return training(options.pop("model", None) or deep(), minimize="loss", **options)

    once = compose(recipe())
    monkeypatch.setattr("nncompile.program.descent._follows_types", lambda _: False)
    each = compose(recipe())
    for graph, other in ((once.step, each.step), (once.update, each.update)):
        assert same_outputs(graph, other)
        here, there = graph.locations, other.locations
        assert [here.location(v) for v in graph.nodes] == [there.location(v) for v in other.nodes]
    assert once.state == each.state
    assert once.first == each.first
    assert all(x is each.first[path] for path, x in once.first.items())
