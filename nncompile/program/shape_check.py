"""Data whose sizes make a graph impossible: a kernel larger than an image, a table shorter than a
sequence.

Each op's own type rule says so once the sizes are numbers, and its location says which layer and
line the op is of; a runtime names a node of its own, or nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, ValuesView
from functools import cached_property
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import CompileError, FeedError, Row, ShapeError
from nncompile.diagnostics.locations import call_label, recording_locations
from nncompile.ir.argument_labels import argument_labels
from nncompile.ir.dims import Dim, solve, substitute, symbols
from nncompile.ir.graph import Graph, Input, graphs_within
from nncompile.ir.op import Op, Value, described
from nncompile.ir.types import AnyType, TupleType, Type
from nncompile.ops.core.assertions import AssertAtMost
from nncompile.ops.core.modes import Training
from nncompile.passes.rewriter import on, rewrite

Sizes = Mapping[sp.Symbol, int]
_FAR = 2**20  # sizes up to which one that fits is looked for


class SizeCheck:
    """Whether `graph` can be computed of data of given shapes; `inputs` are all that may be fed.

    Each combination of shapes is checked once, when it is first seen: a call costs nothing then.
    """

    def __init__(self, graph: Graph, inputs: Mapping[str, Value]) -> None:
        self.graph = graph
        self.inputs = dict(inputs)
        self._sizes_of_shapes: dict[tuple[Any, ...], Sizes] = {}

    def __call__(self, shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
        """The sizes of names that data of these shapes have. Raises `FeedError` at the line of the
        first node that is impossible then: one whose type rule refuses these sizes, or that has a
        negative size."""
        checked_shapes = {name: shape for name, shape in shapes.items() if name in self.inputs}
        key = tuple(checked_shapes.items())
        sizes = self._sizes_of_shapes.get(key)
        if sizes is None:
            sizes = self._checked(checked_shapes)
            self._sizes_of_shapes[key] = sizes
        return sizes

    def _checked(self, shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
        sizes = self._solved(shapes)
        at = _At(sizes)
        visited: set[tuple[Op, tuple[AnyType, ...]]] = set()
        for value in self._nodes:
            key = value.op, tuple(a.type for a in value.args)
            if key not in visited:
                visited.add(key)
                error = at.error(value)
                if error is not None:
                    raise self._refused(value, error, at, shapes)
        return sizes

    def _solved(self, shapes: Mapping[str, tuple[int, ...]]) -> Sizes:
        declared = {name: self.inputs[name].type for name in shapes}
        try:
            for name, shape in shapes.items():
                if len(shape) != declared[name].rank:
                    raise ShapeError(f"input {name!r} has rank {len(shape)}")
            return solve([t.shape for t in declared.values()], list(shapes.values()))
        except ShapeError as error:
            rows = [(n, str(t), f"got {t.with_shape(shapes[n])}") for n, t in declared.items()]
            raise FeedError(f"the data do not fit: {error.problem}", rows=rows) from None

    @cached_property
    def _fed(self) -> set[sp.Symbol]:
        """The names of sizes that data may tell."""
        return symbols(d for leaf in self.inputs.values() for d in leaf.shape)

    @cached_property
    def _nodes(self) -> list[Value]:
        """What has a size that depends on data, of the graph and of the loops in it, arguments
        first."""
        values = (v for v in _every(self.graph) if not isinstance(v.op, Input))
        concerned = [v for v in values if _symbols(v) & self._fed]
        # What a model asserts says more than an op that fails for the same reason.
        return sorted(concerned, key=lambda v: not isinstance(v.op, AssertAtMost))

    def _refused(
        self, value: Value, error: CompileError, at: _At, shapes: Mapping[str, tuple[int, ...]]
    ) -> FeedError:
        names = sorted(_symbols(value) & at.sizes.keys(), key=str)
        bounds: dict[sp.Symbol, str] = {}
        for trial in (at.sizes, dict.fromkeys(names, _FAR)):  # one size is wrong, or several are
            if not bounds:
                bounds = {s: bound for s in names if (bound := at.bound(value, s, trial))}
        concerned = set(bounds) or set(names)
        fed = [n for n in shapes if symbols(self.inputs[n].shape) & concerned] or list(shapes)
        rows: list[Row] = [
            ("input", n, str(t := self.inputs[n].type), f"got {t.with_shape(shapes[n])}")
            for n in fed
        ]
        rows += [("size", str(s), bound, f"got {at.sizes[s]}") for s, bound in bounds.items()]
        labels = argument_labels(value.op, len(value.args))
        with recording_locations(self.graph.locations):
            for label, a in zip(labels, value.args, strict=False):
                if not isinstance(a.type, TupleType):
                    rows.append((label, str(at.type(a.type)), *described(a)[1:]))
        location = self.graph.locations.location(value)
        label = call_label(location, value.op.label)
        prefix = "" if isinstance(value.op, AssertAtMost) else f"{label}: "
        size_hint = " and ".join(f"{s} {bound}" for s, bound in bounds.items())
        return FeedError(
            f"the model does not accept input {', '.join(map(repr, fed))}: {prefix}{error.problem}",
            rows=rows,
            hint=error.hint or (f"feed data with {size_hint}" if size_hint else None),
            location=location,
        )


class _At:
    """Types and ops at sizes; each size is computed once."""

    def __init__(self, sizes: Sizes) -> None:
        self.sizes = sizes
        self._dims: dict[Dim, Dim] = {}

    def dim(self, size: Dim) -> Dim:
        if isinstance(size, int):
            return size
        result = self._dims.get(size)
        if result is None:
            result = self._dims[size] = substitute(size, self.sizes)
        return result

    def type(self, type_: AnyType) -> Any:
        if isinstance(type_, TupleType):
            return TupleType(tuple(map(self.type, type_.items)))
        return Type(type_.dtype, tuple(map(self.dim, type_.shape)))

    def error(self, value: Value) -> CompileError | None:
        """What the type rule of the node says against these sizes; None where nothing."""
        try:
            if graphs_within(value.op):  # their nodes are checked one by one
                result = self.type(value.type)
            else:
                op: Any = value.op.at(self.sizes)
                result = op.infer(*(self.type(a.type) for a in value.args))
        except CompileError as error:
            return error
        negative = [d for d in _dims(result) if isinstance(d, int) and d < 0]
        return ShapeError(f"it would have the negative size {negative[0]}") if negative else None

    def bound(self, value: Value, name: sp.Symbol, assumed: Sizes) -> str | None:
        """The nearest size of one name at which the node would be possible, with `assumed` sizes:
        `at most 8`. None where there is none, or it is not this one that is wrong."""

        def fits(size: int) -> bool:
            return _At({**self.sizes, **assumed, name: size}).error(value) is None

        got = self.sizes[name]
        if fits(got):
            return None
        for kind, far in (("most", min(got, 1)), ("least", 2 * got + 1)):
            if kind == "least":
                while far < _FAR and not fits(far):
                    far *= 2
            if far != got and fits(far):
                near = got  # does not fit, while `far` does
                while abs(far - near) > 1:
                    middle = (far + near) // 2
                    far, near = (middle, near) if fits(middle) else (far, middle)
                return f"at {kind} {far}"
        return None


@on(Training)
def as_trained(value: Value) -> Value | None:
    """What is trained, and not what takes its place afterwards."""
    return value.args[0] if isinstance(value.op, Training) else None


def trained(graph: Graph) -> Graph:
    """The graph as a training step computes it, its claims included."""
    return rewrite(graph, [as_trained])


def _every(graph: Graph) -> Iterator[Value]:
    for value in graph.nodes:
        for body in graphs_within(value.op):
            yield from _every(body)
        yield value


def _symbols(value: Value) -> set[sp.Symbol]:
    """The names in the types of the node's arguments and results, and in its op."""
    return symbols(_dims([*(a.type for a in value.args), value.type, value.op.attributes.values()]))


def _dims(x: Any) -> Iterator[Dim]:
    """The sizes in types, and in tuples and other collections of them."""
    if isinstance(x, int | sp.Expr):
        yield x
    elif isinstance(x, Type):
        yield from x.shape
    elif isinstance(x, TupleType):
        yield from _dims(x.items)
    elif isinstance(x, tuple | list | ValuesView):
        for item in x:
            yield from _dims(item)
