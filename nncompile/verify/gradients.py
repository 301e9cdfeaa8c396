"""Whether gradients are derivatives: backends share the pullbacks, so none shows a wrong one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

import numpy as np

from nncompile.autodiff.grad import grad, vjp
from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.locations import Site, tracing
from nncompile.ir.graph import Graph, Input, Value, apply, input_of, items, toposort
from nncompile.ir.interpreter import evaluate
from nncompile.ir.printer import node_text
from nncompile.ir.types import Array, TupleType, Type, is_real
from nncompile.ops.core.annotations import Reroute
from nncompile.passes.stabilise import stabilise
from nncompile.verify.finite_differences import (
    DIFFERENCES,
    GRADIENT_TOLERANCE,
    declared_slopes,
    derivative_error,
    has_declared_slope,
    is_stopped,
    worst_slope,
)
from nncompile.verify.inputs import Case
from nncompile.verify.locate import Place, site_of

Arrays = dict[str, Array]

STEPS = (*DIFFERENCES, 1e-7, 1e-8)  # relative ones; the last for what is curved on a scale of ones
POINTS = 3  # of which a difference steps over a kink at one or another, and not at all
ASIDE = 1e-3  # that arguments are moved by, at which elements are equal


@dataclass(frozen=True)
class Slopes:
    """What is found of the slopes of one loss, on the inputs `case`: the largest relative `error`,
    at the leaf `where` (None where nothing could be compared); the `place` of the first node whose
    pullback is wrong; lines of what was `skipped` and of declared slopes, `unchecked`."""

    case: Case
    error: float | None = None
    where: str = ""
    place: Place | None = None
    skipped: str = ""
    unchecked: tuple[str, ...] = ()

    @property
    def departs(self) -> bool:
        """Whether a slope is no derivative."""
        return self.place is not None or (
            self.error is not None and not self.error <= GRADIENT_TOLERANCE
        )


def slope_error(
    graph: Graph, loss: Value, trained: Mapping[str, Value], cases: Iterator[Case], seed: int
) -> Slopes:
    """The slopes of `loss` at the leaves `trained`, against central differences.

    They are taken on the first of `cases` on which the loss and its slopes are finite, for the
    differences of infinities say nothing; where there is none, and where slopes are declared and
    not derivatives, only the nodes are looked at, one by one.
    """
    with np.errstate(all="ignore"):  # of what is not finite: it is told in words
        return _slopes(graph, loss, trained, cases, seed)


def _slopes(
    graph: Graph, loss: Value, trained: Mapping[str, Value], cases: Iterator[Case], seed: int
) -> Slopes:
    draws = list(islice(cases, 1))
    first = draws[0]
    declared = declared_slopes(loss)
    if declared:
        places = dict.fromkeys(_declared_at(graph, v) for v in declared)
        place = wrong_pullback(graph, loss, first.feeds, seed)
        return Slopes(first, place=place, unchecked=tuple(places))
    with tracing(graph.trace):
        slopes = dict(zip(trained, grad(loss, list(trained.values())), strict=True))
    random = np.random.default_rng((seed, 3))
    infinite, tried = "", 0
    for case in chain(draws, cases):
        skipped = _left_out(tried, tried + 1, infinite)
        tried += 1
        feeds, found = case.feeds, []
        for _ in range(POINTS):
            said = _not_finite(graph, loss, slopes, feeds)
            if not said:
                error, where = worst_slope(loss, slopes, feeds, random)
                if error <= GRADIENT_TOLERANCE:
                    return Slopes(case, error, where, skipped=skipped)
                if np.isfinite(error):
                    found.append((error, where))
                else:
                    said = "the loss is not finite beside the point"
            infinite = infinite or said
            feeds = {n: _aside(x, random) if n in trained else x for n, x in feeds.items()}
        if found:
            place = wrong_pullback(graph, loss, feeds, seed)
            return Slopes(case, *min(found), place=place, skipped=skipped)
    place = wrong_pullback(graph, loss, first.feeds, seed)
    return Slopes(first, place=place, skipped=_left_out(tried, tried, infinite))


def _left_out(count: int, tried: int, why: str) -> str:
    return f"{count} of {tried} random inputs: {why}" if count else ""


def _not_finite(
    graph: Graph, loss: Value, slopes: Mapping[str, Value], feeds: Mapping[str, Array]
) -> str:
    """Which of the loss and its slopes is not finite, and the first node that makes it so, with its
    line; nothing where all are finite."""
    known: dict[Value, Any] = {}

    def keep(v: Value, result: Any) -> Any:
        known[v] = result
        return result

    titles = {"the loss": loss, **{f"the slope at {n}": s for n, s in slopes.items()}}
    leaves = tuple(graph.leaves.values())
    evaluate(Graph(graph.name, titles, leaves, graph.trace), feeds, np.float64, keep)
    for title, v in titles.items():
        if _is_finite(known[v]):
            continue
        # By arguments, for infinities that are meant (those of masks) lead nowhere.
        while before := [a for a in v.args if not _is_finite(known[a])]:
            v = before[0]
        node = node_text(Graph(graph.name, {title: titles[title]}, leaves, graph.trace), v)
        site = site_of(graph, v)
        return f"{title} is not finite, first {node}" + (f", {site}" if site else "")
    return ""


def _is_finite(result: Any) -> bool:
    arrays = result if isinstance(result, tuple) else (result,)
    return all(not is_real(x.dtype) or bool(np.isfinite(x).all()) for x in arrays)


def _declared_at(graph: Graph, v: Value) -> str:
    """Where the slope of a node was declared, or else where the node was written."""
    code = getattr(v.op.slope, "__code__", None) if isinstance(v.op, Reroute) else None
    site = Site(code.co_filename, code.co_firstlineno) if code else site_of(graph, v)
    return f"the slope declared at {site.place}" if site else f"the declared slope of {v.op.label}"


def wrong_pullback(
    graph: Graph, loss: Value, feeds: Mapping[str, Array], seed: int
) -> Place | None:
    """The first node before `loss` whose slopes are not its derivatives, where its arguments are
    those of `feeds`."""
    with tracing(graph.trace):
        stable = stabilise(Graph("loss", {"loss": loss}, (), graph.trace)).outputs["loss"]
    whole = Graph(graph.name, {"loss": stable}, tuple(graph.leaves.values()), graph.trace)
    order = toposort([stable])
    known: dict[Value, Any] = {}

    def keep(v: Value, result: Any) -> Any:
        known[v] = result
        return result

    evaluate(whole, feeds, np.float64, keep)
    random = np.random.default_rng((seed, 4))
    for v in order:
        reals = [a for a in v.args if isinstance(a.type, Type) and a.dtype.is_float]
        known_slope = has_declared_slope(v) or is_stopped(v) or not v.op.differentiable
        if not reals or known_slope:
            continue
        if isinstance(v.type, Type) and not v.dtype.is_float:
            continue
        error = _error(v, known, whole, feeds, random)
        if error > GRADIENT_TOLERANCE:
            remark = f"its slope differs from a central difference, by {error:.1e} of it"
            return Place(node_text(whole, v), str(v.type), site_of(graph, v), None, remark)
    return None


def _error(
    v: Value,
    known: Mapping[Value, Any],
    whole: Graph,
    feeds: Mapping[str, Array],
    random: np.random.Generator,
) -> float:
    """The relative error of ⟨slopes, direction⟩ of one node; 0 where it has no gradient."""
    own: Arrays = {}
    args: list[Value] = []
    for i, a in enumerate(v.args):
        if not isinstance(a.type, Type):
            return 0.0
        own[f"argument {i}"] = known[a]
        args.append(apply(Input(f"argument {i}", a.type)))
    reals = [a for a in args if a.dtype.is_float]
    y = apply(v.op, *args)
    results = items(y) if isinstance(y.type, TupleType) else (y,)
    found = known[v] if isinstance(known[v], tuple) else (known[v],)
    weights, outputs = [], []
    for i, (result, array) in enumerate(zip(results, found, strict=True)):
        if result.dtype.is_float:
            weights.append(apply(Input(f"weight {i}", result.type)))
            own[f"weight {i}"] = random.uniform(-1, 1, np.shape(array))
            outputs.append(result)
    try:
        slopes = vjp(outputs, reals, weights)
    except CompileError:
        return 0.0  # it has no gradient, and none was needed of it
    leaves = (*whole.leaves.values(), *args, *weights)

    def computed(values: list[Value], moved: Mapping[str, Array]) -> list[Array]:
        graph = Graph("node", {str(i): x for i, x in enumerate(values)}, leaves)
        return list(evaluate(graph, {**feeds, **own, **moved}, np.float64).values())

    names = [input_of(a).name for a in reals]
    for n in names:  # off ties, and in units of the elements, so that none goes past zero
        own[n] = _aside(own[n], random)
    direction = {n: own[n] * random.uniform(-1, 1, own[n].shape) for n in names}
    terms = [s * direction[n] for n, s in zip(names, computed(slopes, {}), strict=True)]
    exact = float(sum(np.sum(t) for t in terms))
    size = float(sum(np.sum(np.abs(t)) for t in terms))

    def total(h: float) -> float:
        arrays = computed(outputs, {n: own[n] + h * direction[n] for n in names})
        pairs = zip(weights, arrays, strict=True)
        return float(sum(np.sum(own[input_of(w).name] * x) for w, x in pairs))

    error = derivative_error(total, exact, max(abs(exact), 1e-3 * size), STEPS)
    return error if np.isfinite(error) and np.isfinite(exact) else 0.0


def _aside(x: Array, random: np.random.Generator) -> Array:
    return np.asarray(x * (1 + ASIDE * random.uniform(-1, 1, x.shape)), np.float64)
