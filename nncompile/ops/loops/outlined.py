"""Parts of a graph as one op, for which there is a native kernel.

What writes a file for native kernels makes them of a graph that is otherwise done; no pass sees
them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from nncompile.diagnostics.errors import ShapeError
from nncompile.elementwise import sqrt
from nncompile.ir.graph import Graph, Input, between, items
from nncompile.ir.native import Kernel, Native
from nncompile.ir.op import Backward, Op, Sample, Value, apply
from nncompile.ir.precision import computed
from nncompile.ir.transform import rebuilt, replace
from nncompile.ir.types import TupleType, Type, f32
from nncompile.ops.core.composition import Composed, composed_pullback
from nncompile.ops.loops.body import Body, binder, formal


class Outlined(Composed, Op, Native):
    """What `body` computes of its arguments, which the native kernel of that name computes, too.
    `options` are the attributes of the kernel."""

    body: Body
    kernel: str
    options: tuple[tuple[str, Any], ...] = ()
    mixes = True

    def infer(self, *arguments: Type) -> TupleType:
        formals = self.body.formals
        if len(arguments) != len(formals):
            raise ShapeError(f"{self.kernel} of {len(formals)} arguments got {len(arguments)}")
        if all(a == f.type for a, f in zip(arguments, formals, strict=True)):
            return TupleType(tuple(v.type for v in self.body.results))
        leaves = [apply(Input(f"{i}", t)) for i, t in enumerate(arguments)]
        return TupleType(tuple(v.type for v in self.composed(*leaves)))

    def composed(self, *arguments: Value) -> list[Value]:
        """The results as values of the graph that the op stands for."""
        return replace(self.body.results, dict(zip(self.body.formals, arguments, strict=True)))

    def at(self, sizes: Any) -> Self:
        return dataclasses.replace(self, body=self.body.at(sizes))

    def within(self, change: Callable[[Graph], Graph]) -> Self:
        body = self.body.changed(change)
        return self if body is self.body else dataclasses.replace(self, body=body)

    def pullback_by(self, backward: Backward, g: Any, y: Value) -> list[Value | None]:
        return composed_pullback(backward, self.composed, g, y)

    def native(self, *types: Any) -> Kernel | None:
        return Kernel(self.kernel, **dict(self.options))

    def numpy(self, *arrays: Any) -> tuple[Any, ...]:
        known: dict[Value, Any] = dict(zip(self.body.formals, arrays, strict=True))
        for v in self.body.graph.nodes:
            if v not in known:
                known[v] = computed(v.op, v.type, *(known[a] for a in v.args))
        return tuple(known[v] for v in self.body.results)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        x, y = (binder(name, f32["n", 3]) for name in "xy")
        body = closed((x, y), (x * y + 1.0, sqrt(x * x)))
        if cls is Outlined:
            yield Sample(cls(body, "Sample"), (f32["n", 3], f32["n", 3]))


class Elementwise(Outlined):
    """One elementwise `body` of each of several groups of arguments. The first `shared` arguments
    are those of all groups, the others as many for each; results are in the order of the groups,
    which have shapes of their own."""

    kernel: str = "Elementwise"
    shared: int = 0
    groups: int = 1

    @property
    def own(self) -> int:
        """The number of arguments of one group."""
        return len(self.body.formals) - self.shared

    def infer(self, *arguments: Type) -> TupleType:
        if len(arguments) != self.shared + self.own * self.groups:
            raise ShapeError(f"{self.groups} groups of {self.own} got {len(arguments)} arguments")
        leaves = [apply(Input(f"{i}", t)) for i, t in enumerate(arguments)]
        return TupleType(tuple(v.type for v in self.composed(*leaves)))

    def composed(self, *arguments: Value) -> list[Value]:
        shared = arguments[: self.shared]
        found: list[Value] = []
        for start in range(self.shared, len(arguments), self.own):
            found += super().composed(*shared, *arguments[start : start + self.own])
        return found

    def native(self, *types: Any) -> Kernel | None:
        counts = {"shared": self.shared, "own": self.own, "groups": self.groups}
        return Kernel(self.kernel, **counts, **dict(self.options))

    def numpy(self, *arrays: Any) -> tuple[Any, ...]:
        found: list[Any] = []
        for start in range(self.shared, len(arrays), self.own):
            found += super().numpy(*arrays[: self.shared], *arrays[start : start + self.own])
        return tuple(found)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        rate, w, g = binder("rate", f32[()]), binder("w", f32["n", 3]), binder("g", f32["n", 3])
        body = closed((rate, w, g), (w - rate * g, sqrt(g * g + 1.0)))
        types = (f32[()], f32["n", 3], f32["n", 3], f32[2], f32[2])
        yield Sample(cls(body, shared=1, groups=2), types)


def closed(arguments: Sequence[Value], results: Sequence[Value]) -> Body:
    """The body that computes `results` of `arguments`, which are all that they depend on."""
    formals = tuple(formal(i, v.type) for i, v in enumerate(arguments))
    new: dict[Value, Value] = dict(zip(arguments, formals, strict=True))
    for v in between(results, arguments):  # and not through all that the arguments need
        if v not in new:
            new[v] = rebuilt(v, [new[a] for a in v.args])
    return Body(formals, tuple(new[v] for v in results))


def outlined(
    kernel: str, arguments: Sequence[Value], results: Sequence[Value], **options: Any
) -> dict[Value, Value]:
    """What stands for `results` where that kernel computes them of `arguments`: see `Outlined`."""
    op = Outlined(closed(arguments, results), kernel, tuple(sorted(options.items())))
    return dict(zip(results, items(apply(op, *arguments)), strict=True))
