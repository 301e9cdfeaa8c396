"""The first node that mismatches: where a backend stops doing what the graph says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from nncompile.diagnostics.errors import CompileError
from nncompile.diagnostics.locations import Location
from nncompile.ir.graph import Graph, Input, Item
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.printer import node_text
from nncompile.ir.types import Array, Type
from nncompile.passes import PASSES, optimize
from nncompile.verify.backends import Backend, Lowered
from nncompile.verify.error_bound import Difference, Reference, computed_by

Arrays = dict[str, Array]


FAILURES = (CompileError, RuntimeError)  # those of onnxruntime are the former, of torch the latter


@dataclass(frozen=True)
class Place:
    """A node that mismatches: as it is printed, its type, where the user wrote it, what was
    expected at one element and what came; `remark` says how it was found."""

    node: str
    type: str
    location: Location | None
    difference: Difference | None = None
    remark: str = ""


def first_mismatch(
    graph: Graph, backend: Backend, feeds: Mapping[str, Array], seed: int
) -> Place | None:
    """The first node that gives another result than in numpy, of the arguments that it had.

    The backend computes all nodes of the graph (which it was given after the passes), and each is
    computed again by numpy from what the backend computed before it, so that an earlier error
    does not count against it. Where no node mismatches so, the runtime may have joined several into
    one only where it need not show what is between: then each node is computed alone, and compared
    with numpy's from the start. None where that finds nothing either.
    """
    nodes = [v for v in graph.nodes if isinstance(v.type, Type) and v.args]
    leaves = tuple(graph.leaves.values())
    shown = Graph(graph.name, dict(_outputs(nodes)), leaves, graph.locations)
    try:
        got = backend.load(Lowered(shown))(feeds)
    except FAILURES:
        return _alone(graph, backend, feeds, nodes, seed)  # it fails, and some node shows where
    results = {v: got[name] for name, v in shown.outputs.items()}
    for v in nodes:
        place = _mismatching(graph, v, results, leaves, feeds, seed)
        if place is not None:
            return place
    return _alone(graph, backend, feeds, nodes, seed)


def _outputs(nodes: list[Value]) -> Iterator[tuple[str, Value]]:
    return ((f"node {number}", v) for number, v in enumerate(nodes))


def _mismatching(
    graph: Graph,
    v: Value,
    computed: Mapping[Value, Array],
    leaves: tuple[Value, ...],
    feeds: Mapping[str, Array],
    seed: int,
) -> Place | None:
    """What is wrong with one node, from arguments as the backend has them."""
    producer = v.args[0] if isinstance(v.op, Item) else v  # a tuple's arguments are those of its op
    argument_feeds: dict[str, Array] = {}
    args = []
    for i, a in enumerate(producer.args):
        if a not in computed or not isinstance(a.type, Type):
            args.append(a)  # a leaf, a constant or a tuple: as in the graph
            continue
        argument_feeds[f"argument {i}"] = computed[a]
        args.append(apply(Input(f"argument {i}", a.type, "parameter")))
    result = apply(producer.op, *args)
    result = apply(v.op, result) if producer is not v else result
    alone = Graph("node", {"result": result}, leaves)
    compute = computed_by(alone, {**feeds, **argument_feeds})
    difference = Reference(compute, (seed,)).differences({"result": computed[v]})[0]
    return _describe(graph, v, difference) if difference.mismatches else None


def _alone(
    graph: Graph,
    backend: Backend,
    feeds: Mapping[str, Array],
    nodes: list[Value],
    seed: int,
) -> Place | None:
    """The first node that mismatches when it is the only output."""
    leaves = tuple(graph.leaves.values())
    for v in nodes:
        single = Graph(graph.name, {"result": v}, leaves, graph.locations)
        try:
            got = backend.load(Lowered(single))(feeds)
        except FAILURES:
            return _describe(graph, v)
        difference = Reference(computed_by(single, feeds), (seed,)).differences(got)[0]
        if difference.mismatches:
            remark = "only when the backend does not expose the values computed before it"
            return _describe(graph, v, difference, remark)
    return None


def _describe(
    graph: Graph, v: Value, difference: Difference | None = None, remark: str = ""
) -> Place:
    # An item has no line of its own.
    producer = v.args[0] if isinstance(v.op, Item) else v
    text = node_text(graph, producer)
    text = f"result {v.op.index} of {text}" if isinstance(v.op, Item) else text
    return Place(text, str(v.type), location_of(graph, v), difference, remark)


def location_of(graph: Graph, v: Value) -> Location | None:
    """Where the node was written, or else the first of its arguments that was."""
    pending = [v]
    while pending:
        node = pending.pop(0)
        location = graph.locations.location(node)
        if location is not None:
            return location
        pending += [a for a in node.args if not isinstance(a.op, Input)]
    return None


def first_pass(
    graph: Graph, output: str, feeds: Mapping[str, Array], allowed: float
) -> Place | None:
    """The first pass that changes what the graph computes for `output`, by more than `allowed`."""
    changed: list[Place] = []

    def computed(stage: Graph) -> Array:
        alone = stage.with_outputs({output: stage.outputs[output]})
        return np.asarray(evaluate(alone, feeds, np.float64)[output])

    def observe(name: str, before: Graph, after: Graph) -> None:
        v = before.outputs[output]
        if changed or v is after.outputs[output]:
            return
        a, b = computed(before), computed(after)
        finite = np.isfinite(a) & np.isfinite(b) if a.shape == b.shape else None
        if finite is None or float(np.max(np.abs(a - b)[finite], initial=0.0)) > allowed:
            doing = " ".join((PASSES[name].__doc__ or "").split()).partition(". ")[0]
            remark = f"the pass {name!r} changes it: {doing}"
            place = Place(f"output {output}", str(v.type), location_of(before, v), None, remark)
            changed.append(place)

    optimize(graph, observe=observe)
    return changed[0] if changed else None
