"""Whether gradients are derivatives: backends share the pullbacks, so none shows a wrong one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import numpy as np

from nncompile.autodiff.grad import grad, vjp
from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.locations import Location, recording_locations
from nncompile.ir.graph import Graph, Input, input_of, items, toposort
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.printer import node_text
from nncompile.ir.types import Array, TupleType, Type
from nncompile.ops.core.annotations import CustomVjp
from nncompile.passes.stabilise import stabilise
from nncompile.train.locate import locate_nonfinite
from nncompile.verify.finite_differences import (
    DIFFERENCES,
    GRADIENT_TOLERANCE,
    declared_gradients,
    derivative_error,
    has_declared_gradient,
    is_stopped,
    worst_gradient,
)
from nncompile.verify.inputs import Case
from nncompile.verify.locate import Place, location_of
from nncompile.verify.report import Gradients

Arrays = dict[str, Array]

STEPS = (*DIFFERENCES, 1e-7, 1e-8)  # relative ones; the last for what is curved on a scale of ones
POINTS = 3  # a difference may step over a kink at one of them, but not at all
LOSS, GRADIENT = "the loss", "the gradient for "
ASIDE = 1e-3  # that arguments are moved by, at which elements are equal


def gradient_error(
    graph: Graph, loss: Value, trained: Mapping[str, Value], cases: Iterator[Case], seed: int
) -> Gradients:
    """The gradients of `loss` at the leaves `trained`, against central differences.

    They are taken on the first of `cases` on which the loss and its gradients are finite, for the
    differences of infinities say nothing; where there is none, and where gradients are declared and
    turn out not to be derivatives, only single nodes are compared.
    """
    with np.errstate(all="ignore"):  # the report says what is not finite
        declared = declared_gradients(loss)
        if declared:
            first = next(cases)
            found = _Comparison(graph, loss, trained, seed).on(chain([first], cases))
            if found.error is not None and not found.mismatches:
                return found  # what is declared is the derivative, as of most losses
            declared_nodes = dict.fromkeys(_declared_at(graph, v) for v in declared)
            place = wrong_pullback(graph, loss, first.feeds, seed)
            return Gradients(first, place=place, unchecked=tuple(declared_nodes))
        return _Comparison(graph, loss, trained, seed).on(cases)


class _Comparison:
    """The gradients of a loss and central differences, on one set of inputs after another. `reason`
    says why the first of them, where there is one, gives nothing to compare; `lost` where gradients
    are not finite and the loss is."""

    def __init__(self, graph: Graph, loss: Value, trained: Mapping[str, Value], seed: int) -> None:
        with recording_locations(graph.locations):
            self.gradients = dict(zip(trained, grad(loss, list(trained.values())), strict=True))
        titles = {LOSS: loss, **{f"{GRADIENT}{name}": s for name, s in self.gradients.items()}}
        leaves = tuple(graph.leaves.values())
        self.derived = Graph(graph.name, titles, leaves, graph.locations)
        self.graph, self.loss, self.seed = graph, loss, seed
        self.random = np.random.default_rng((seed, 3))
        self.reason = self.lost = ""

    def on(self, cases: Iterator[Case]) -> Gradients:
        """The gradients on the first of `cases` on which there is something to compare."""
        first, tried = None, 0
        for tried, case in enumerate(cases, start=1):
            first = first or case
            error, path = self.around(case)
            if np.isfinite(error):
                mismatches = error > GRADIENT_TOLERANCE
                place = self._wrong_pullback(case) if mismatches else None
                return self._gradients_at(case, tried - 1, tried, place, error, path)
        assert first is not None
        return self._gradients_at(first, tried, tried, self._wrong_pullback(first))

    def around(self, case: Case) -> tuple[float, str]:
        """The least of the errors at a few points beside the case, and the parameter; infinite
        where none can be had."""
        least, feeds = (float("inf"), ""), case.feeds
        for _ in range(POINTS):
            least = min(least, self.at(feeds))
            if least[0] <= GRADIENT_TOLERANCE:
                break
            moved = {name: _aside(feeds[name], self.random) for name in self.gradients}
            feeds = {**feeds, **moved}
        return least

    def at(self, feeds: Arrays) -> tuple[float, str]:
        """The largest relative error at one point, and the parameter; infinite where there is
        none."""
        bad = locate_nonfinite(self.derived, feeds, precision=np.float64)
        if bad is not None:
            source = str(bad) + (f"; then {bad.then}" if bad.then else "")
            self.reason = self.reason or f"{bad.output} is not finite: {source}"
            if bad.output != LOSS:
                name = bad.output.removeprefix(GRADIENT)
                self.lost = self.lost or f"it is not finite at {name}, where the loss is: {source}"
            return float("inf"), ""
        error, path = worst_gradient(self.loss, self.gradients, feeds, self.random)
        if not np.isfinite(error):
            self.reason = self.reason or "the loss is not finite beside the point"
            return float("inf"), ""
        return error, path

    def _wrong_pullback(self, case: Case) -> Place | None:
        return wrong_pullback(self.graph, self.loss, case.feeds, self.seed)

    def _gradients_at(
        self,
        case: Case,
        skipped: int,
        tried: int,
        place: Place | None,
        error: float | None = None,
        path: str = "",
    ) -> Gradients:
        text = f"{skipped} of {tried} random inputs: {self.reason}" if skipped else ""
        count = len(self.gradients)
        return Gradients(case, count, error, path, place, text, self.lost)


def _declared_at(graph: Graph, v: Value) -> str:
    """Where the gradient of a node was declared, or else where the node was written."""
    code = getattr(v.op.gradient, "__code__", None) if isinstance(v.op, CustomVjp) else None
    location = Location(code.co_filename, code.co_firstlineno) if code else location_of(graph, v)
    return (
        f"the gradient declared at {location.place}"
        if location
        else f"the declared gradient of {v.op.label}"
    )


def wrong_pullback(
    graph: Graph, loss: Value, feeds: Mapping[str, Array], seed: int
) -> Place | None:
    """The first node before `loss` whose gradients are not its derivatives, where its arguments are
    those of `feeds`."""
    with recording_locations(graph.locations):
        stable = stabilise(Graph("loss", {"loss": loss}, (), graph.locations)).outputs["loss"]
    leaves = tuple(graph.leaves.values())
    rebuilt = Graph(graph.name, {"loss": stable}, leaves, graph.locations)
    order = toposort([stable])
    results: dict[Value, Any] = {}

    def keep(v: Value, result: Any) -> Any:
        results[v] = result
        return result

    evaluate(rebuilt, feeds, np.float64, keep)
    random = np.random.default_rng((seed, 4))
    for v in order:
        reals = [a for a in v.args if isinstance(a.type, Type) and a.dtype.is_float]
        is_exempt = has_declared_gradient(v) or is_stopped(v) or not v.op.differentiable
        if not reals or is_exempt:
            continue
        if isinstance(v.type, Type) and not v.dtype.is_float:
            continue
        error = _error(v, results, rebuilt, feeds, random)
        if error > GRADIENT_TOLERANCE:
            remark = f"its gradient differs from a central difference by a relative {error:.1e}"
            return Place(node_text(rebuilt, v), str(v.type), location_of(graph, v), None, remark)
    return None


def _error(
    v: Value,
    node_results: Mapping[Value, Any],
    loss_graph: Graph,
    feeds: Mapping[str, Array],
    random: np.random.Generator,
) -> float:
    """The relative error of ⟨gradients, direction⟩ of one node; 0 where it has no gradient."""
    node_feeds: Arrays = {}
    args: list[Value] = []
    for i, a in enumerate(v.args):
        if not isinstance(a.type, Type):
            return 0.0
        node_feeds[f"argument {i}"] = node_results[a]
        args.append(apply(Input(f"argument {i}", a.type)))
    reals = [a for a in args if a.dtype.is_float]
    y = apply(v.op, *args)
    results = items(y) if isinstance(y.type, TupleType) else (y,)
    v_results = node_results[v] if isinstance(node_results[v], tuple) else (node_results[v],)
    weights, outputs = [], []
    for i, (result, array) in enumerate(zip(results, v_results, strict=True)):
        if result.dtype.is_float:
            weights.append(apply(Input(f"weight {i}", result.type)))
            node_feeds[f"weight {i}"] = random.uniform(-1, 1, np.shape(array))
            outputs.append(result)
    try:
        gradients = vjp(outputs, reals, weights)
    except CompileError:
        return 0.0  # it has no gradient, and needs none
    leaves = (*loss_graph.leaves.values(), *args, *weights)

    def computed(values: list[Value], moved: Mapping[str, Array]) -> list[Array]:
        graph = Graph("node", {str(i): x for i, x in enumerate(values)}, leaves)
        return list(evaluate(graph, {**feeds, **node_feeds, **moved}, np.float64).values())

    names = [input_of(a).name for a in reals]
    for n in names:  # off ties, and in units of the elements, so that none goes past zero
        node_feeds[n] = _aside(node_feeds[n], random)
    direction = {n: node_feeds[n] * random.uniform(-1, 1, node_feeds[n].shape) for n in names}
    terms = [g * direction[n] for n, g in zip(names, computed(gradients, {}), strict=True)]
    exact = float(sum(np.sum(t) for t in terms))
    size = float(sum(np.sum(np.abs(t)) for t in terms))

    def total(h: float) -> float:
        arrays = computed(outputs, {n: node_feeds[n] + h * direction[n] for n in names})
        pairs = zip(weights, arrays, strict=True)
        return float(sum(np.sum(node_feeds[input_of(w).name] * x) for w, x in pairs))

    error = derivative_error(total, exact, max(abs(exact), 1e-3 * size), STEPS)
    return error if np.isfinite(error) and np.isfinite(exact) else 0.0


def _aside(x: Array, random: np.random.Generator) -> Array:
    return np.asarray(x * (1 + ASIDE * random.uniform(-1, 1, x.shape)), np.float64)
