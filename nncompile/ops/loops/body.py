"""Bodies of loops: graphs within an op, and loops whose bodies are open.

A body is *closed*: its leaves are formals, called by their place, so that equal bodies are one
object; what it needs from outside is handed to it as an argument (closure conversion). Toposort,
gradients and passes thus see every dependence of a loop as an argument of its node. To be traced,
differentiated or rewritten, a body is *opened*: binders of its own stand for what changes from one
iteration to the next, and what does not stands there as it is outside. Closing it again takes
everything that depends on no binder, however large, out of the loop.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import sympy as sp

from nncompile.diagnostics.errors import ShapeError
from nncompile.diagnostics.locations import current_locations
from nncompile.ir.basic import Constant, SizeOf
from nncompile.ir.broadcasting import Expand
from nncompile.ir.dims import Dim
from nncompile.ir.graph import Graph, Input, items, toposort
from nncompile.ir.op import Op, Value, apply, described
from nncompile.ir.transform import dependent, replace
from nncompile.ir.types import Type, i64
from nncompile.ops.core.counting import iota

SMALL = 16  # elements of a constant that stays in the body, where passes see its numbers


@dataclass(frozen=True, eq=False, repr=False)
class Body:
    """`results` computed from `formals` alone. Equal where both are the same nodes."""

    formals: tuple[Value, ...]
    results: tuple[Value, ...]

    def __eq__(self, other: object) -> bool:
        # Not by `==` of values, which is elementwise.
        return isinstance(other, Body) and self._nodes == other._nodes

    def __hash__(self) -> int:
        return hash(self._nodes)

    def __repr__(self) -> str:
        """Of the contents alone: the digest of an op is made of it."""
        types = ", ".join(str(v.type) for v in self.formals)
        return f"Body({types} -> {' '.join(v.digest.hex() for v in self.results)})"

    @property
    def _nodes(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return tuple(map(id, self.formals)), tuple(map(id, self.results))

    @property
    def graph(self) -> Graph:
        """The body as a graph, whose leaves are the formals and whose outputs have numbers. It is
        one object while locations are recorded in one table: what is known of it stays known."""
        known: Graph | None = self.__dict__.get("_graph")
        table = current_locations()
        if known is None or known.locations is not table:
            outputs = {str(i): v for i, v in enumerate(self.results)}
            known = Graph("body", outputs, self.formals, table)
            object.__setattr__(self, "_graph", known)
        return known

    def changed(self, change: Callable[[Graph], Graph]) -> Body:
        """The body after a change of its graph; itself where that changes nothing."""
        before = self.graph
        after = change(before)
        return self if after is before else Body(after.inputs, tuple(after.outputs.values()))

    def __reduce__(self) -> Any:
        return Body, (self.formals, self.results)

    def at(self, sizes: Mapping[sp.Symbol, Dim]) -> Body:
        """The body with sizes in place of the names of dimensions."""
        new = replace((*self.formals, *self.results), {}, sizes)
        count = len(self.formals)
        return Body(tuple(new[:count]), tuple(new[count:]))


def formal(index: int, type_: Type) -> Value:
    """The input for argument `index` of a closed body."""
    return apply(Input(f"#{index}", type_, "formal"))


def binder(name: str, type_: Type) -> Value:
    """What stands for something of one iteration in an open body."""
    return apply(Input(name, type_, "binder"))


@dataclass(frozen=True)
class Loop:
    """A loop with an open body.

    `carries` and `elements` are binders: of what one iteration hands to the next, which starts at
    `initial` and becomes `following`, and of the rows of `sequences` along their first axis, which
    has `length` of them. `results` are those of one iteration that are stacked.
    """

    carries: tuple[Value, ...]
    initial: tuple[Value, ...]
    following: tuple[Value, ...]
    elements: tuple[Value, ...]
    sequences: tuple[Value, ...]
    results: tuple[Value, ...]
    length: Dim
    reverse: bool = False

    @property
    def binders(self) -> tuple[Value, ...]:
        """The arguments of the body: carries, then elements."""
        return (*self.carries, *self.elements)

    def with_values(self, new: Mapping[Value, Value], order: Sequence[Value] | None = None) -> Loop:
        """The loop with other values in place of some in its body, whose nodes are `order` where
        they are known."""
        values = tuple(replace([*self.following, *self.results], new, order=order))
        count = len(self.following)
        return dataclasses.replace(self, following=values[:count], results=values[count:])

    def closed(self) -> tuple[Body, tuple[Value, ...]]:
        """The body, and the arguments of the loop's node: initial values, sequences, and what the
        body takes from outside in an order that does not depend on how it was written."""
        outputs = (*self.following, *self.results)
        every = toposort(outputs)
        inner, binders = dependent(every, self.binders), set(self.binders)
        order = [v for v in every if v in inner and v not in binders]
        for v in order:
            if v.op.makes:
                raise ShapeError(
                    f"the size of {v.type} differs from one iteration of a loop to the next",
                    rows=[("result", *described(v))],
                    hint="where(mask, x, 0) keeps the shape",
                )
        outside = {a: None for v in order for a in v.args if a not in inner}
        outside |= dict.fromkeys(v for v in outputs if v not in inner)
        free = [v for v in outside if not stays(v)]
        free.sort(key=lambda v: (str(v.type), v.digest))
        new = {v: formal(i, v.type) for i, v in enumerate((*self.binders, *free))}
        results = replace(outputs, new, order=every)
        return Body(tuple(new.values()), tuple(results)), (*self.initial, *self.sequences, *free)


def applied(
    loop: Loop, scan: Callable[[Body, int, int, bool], Op]
) -> tuple[tuple[Value, ...], tuple[Value, ...]]:
    """The last carries and the stacks of a loop, whose op `scan` makes."""
    if not loop.sequences:  # something has to say how often it runs
        iteration = binder(fresh("iteration"), Type(i64))
        loop = dataclasses.replace(loop, elements=(iteration,), sequences=(iota(loop.length),))
    body, args = loop.closed()
    count = len(loop.carries)
    results = items(apply(scan(body, count, len(loop.elements), loop.reverse), *args))
    return results[:count], results[count:]


def opened(
    value: Value,
    carries: Sequence[Value] | None = None,
    elements: Sequence[Value] | None = None,
    free: Sequence[Value] | None = None,
) -> Loop:
    """The loop of a scan, with the given binders or with its own; what it takes from outside
    stands in it, or `free` in its place."""
    op: Any = value.op
    count = op.carries + op.elements
    stem = value.digest.hex()

    def own(first: int, end: int) -> list[Value]:
        return [binder(f"{stem} {i}", op.body.formals[i].type) for i in range(first, end)]

    carried = tuple(own(0, op.carries) if carries is None else carries)
    rows = tuple(own(op.carries, count) if elements is None else elements)
    outside = value.args[count:] if free is None else free
    inside = dict(zip(op.body.formals, (*carried, *rows, *outside), strict=True))
    loop = Loop(
        op.body.formals[: op.carries],
        value.args[: op.carries],
        op.body.results[: op.carries],
        op.body.formals[op.carries : count],
        value.args[op.carries : count],
        op.body.results[op.carries :],
        value.args[op.carries].shape[0],
        op.reverse,
    ).with_values(inside, op.body.graph.nodes)
    return dataclasses.replace(loop, carries=carried, elements=rows)


def stays(v: Value) -> bool:
    """Whether it stays in a body that needs it: numbers, and what is made of one number."""
    while isinstance(v.op, Expand):
        v = v.args[0]
    if isinstance(v.op, SizeOf):
        return not v.args
    return isinstance(v.op, Constant) and v.op.value.size <= SMALL


# Which iteration of which loops is being traced: random numbers differ from one to the next.

_iterations: ContextVar[tuple[Value, ...]] = ContextVar("iterations", default=())
_numbers = itertools.count()


def iterations() -> tuple[Value, ...]:
    """The place in time, i64, of each loop whose body is being traced, outermost first."""
    return _iterations.get()


@contextmanager
def iterating() -> Iterator[Value]:
    """A binder of the place in time, known to `iterations` while the block runs."""
    iteration = binder(fresh("iteration"), Type(i64))
    token = _iterations.set((*_iterations.get(), iteration))
    try:
        yield iteration
    finally:
        _iterations.reset(token)


@contextmanager
def outside_loops() -> Iterator[None]:
    """While the block runs, what is traced is of no iteration: it is drawn once."""
    token = _iterations.set(())
    try:
        yield
    finally:
        _iterations.reset(token)


def fresh(stem: str) -> str:
    """A name that no other binder has."""
    return f"{stem} {next(_numbers)}"
