"""The head of a loss is made simpler before the gradient behind it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from dsl import Dense, LayerNorm, Residual, adam, cross_entropy, f32, i64, model, relu, training
from nncompile import passes
from nncompile.ir.graph import Graph
from nncompile.passes import optimize
from nncompile.passes.losses_first import losses_first
from nncompile.program.composition import compose


def _deep(layers: int) -> Graph:
    @model
    def deep(x: Any = f32["batch", 8], y: Any = i64["batch"]) -> dict[str, Any]:
        for _ in range(layers):
            x = x >> LayerNorm() >> Residual(Dense(8, relu))
        return {"loss": cross_entropy(x, y)}

    return compose(training(deep, minimize="loss", optimizer=adam(1e-3))).step


def _ops(graph: Graph) -> Counter[str]:
    return Counter(v.op.label for v in graph.nodes)


def test_what_is_computed_stays() -> None:
    step = _deep(6)
    assert _ops(optimize(step, losses=["loss"])) == _ops(optimize(step))


def test_all_needs_of_a_part_are_its_outputs() -> None:
    step = _deep(6)
    seen: list[Graph] = []

    def look(part: Graph) -> Graph:
        seen.append(part)
        return part

    assert losses_first(step, ["loss"], look) is step
    (part,) = seen
    inside = set(part.nodes)
    needs = Counter(a for v in step.nodes if v not in inside for a in v.args if a in inside)
    needs += Counter(v for v in step.outputs.values() if v in inside)
    assert Counter(part.outputs.values()) == needs
    assert step.outputs["loss"] in inside


def test_a_part_has_no_state_of_updates_far_behind_the_loss() -> None:
    step = passes.EARLY(_deep(12))  # the updates of small tensors are one, and need all gradients
    seen: list[Graph] = []
    losses_first(step, ["loss"], lambda part: seen.append(part) or part)
    (part,) = seen
    states = [leaf for path, leaf in step.leaves.items() if path.endswith((".m", ".v"))]
    assert states
    assert set(states).isdisjoint(part.nodes)


@pytest.mark.parametrize("losses", [[], ["no output"]])
def test_without_a_loss_there_is_no_part(losses: list[str]) -> None:
    step = _deep(6)
    assert losses_first(step, losses, _refused) is step


def test_a_small_graph_is_one_part() -> None:
    step = _deep(1)
    assert losses_first(step, ["loss"], _refused) is step


def _refused(part: Graph) -> Graph:
    raise AssertionError("there is a part")


def test_the_gradient_is_made_anew_less_often(monkeypatch: pytest.MonkeyPatch) -> None:
    step = _deep(12)
    whole = _changes(monkeypatch, lambda: optimize(step))
    assert _changes(monkeypatch, lambda: optimize(step, losses=["loss"])) <= whole // 2


def _changes(monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> int:
    """How many stages made the whole graph anew."""
    found: list[int] = []
    applied = passes._applied

    def counted(stage: Any, graph: Graph, *others: Any) -> Graph:
        after = applied(stage, graph, *others)
        if after is not graph and len(graph.nodes) > 480:
            found.append(len(after.nodes))
        return after

    with monkeypatch.context() as patch:
        patch.setattr(passes, "_applied", counted)
        call()
    return len(found)
