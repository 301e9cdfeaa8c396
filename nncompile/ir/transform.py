"""Graphs from graphs: one walk that makes each node anew, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import sympy as sp

from nncompile.diagnostics.locations import Location, current_locations, located
from nncompile.ir.data_sizes import made_size
from nncompile.ir.dims import Dim
from nncompile.ir.graph import between, toposort
from nncompile.ir.op import Value, remade

Make = Callable[[Value, list[Value]], Value]


def rebuilt(value: Value, args: Sequence[Value]) -> Value:
    """The op of `value` on other arguments, in canonical form; `value` itself on its own."""
    same = all(new is old for new, old in zip(args, value.args, strict=True))
    return value if same else value.op.rebuild(*args)


def transformed(
    outputs: Sequence[Value],
    make: Make = rebuilt,
    known: Mapping[Value, Value] | None = None,
    location: Callable[[Value], Location | None] | None = None,
    order: Sequence[Value] | None = None,
) -> list[Value]:
    """The outputs with `make(node, new arguments)` in place of each node that they need, arguments
    first, at its location (or that which `location` gives). What is in `known` is not made but
    stands for its key. `order` is that of `toposort`, where it is known."""
    table = current_locations()
    new: dict[Value, Value] = dict(known or {})
    order = toposort(outputs) if order is None else order
    if location is None:
        with table.following() as site:
            for v in order:
                if v not in new:
                    site.node = v
                    new[v] = make(v, [new[a] for a in v.args])
        return [new[v] for v in outputs]
    for v in order:
        if v not in new:
            with located(location(v)):
                new[v] = make(v, [new[a] for a in v.args])
            if new[v] is v:  # which was not made, and so not recorded
                table.record(v, location(v))
    return [new[v] for v in outputs]


def replace(
    outputs: Sequence[Value],
    new: Mapping[Value, Value],
    sizes: Mapping[sp.Symbol, Dim] | None = None,
    location: Callable[[Value], Location | None] | None = None,
    order: Sequence[Value] | None = None,
) -> list[Value]:
    """The outputs with the values of `new` in place of its keys, and `sizes` in place of names
    of dimensions; everything that depends on them is made anew, at its old location (or that which
    `location` gives). A size that depends on data is another one for other data. `order` is that of
    `toposort`, where it is known."""
    if not sizes and location is None:
        if all(old is value for old, value in new.items()):
            return list(outputs)
        results = _replaced(outputs, new, order)
        if results is not None:
            return results
    sizes = dict(sizes or {})

    def make(v: Value, args: list[Value]) -> Value:
        op = v.op.at(sizes) if sizes else v.op
        if op is v.op and all(a is b for a, b in zip(args, v.args, strict=True)):
            return v
        renamed = {s: made_size(op.label, *args) for s in op.makes}
        sizes.update(renamed)
        return (op.at(renamed) if renamed else op).rebuild(*args)

    return transformed(outputs, make, new, location, order)


def _replaced(
    outputs: Sequence[Value],
    new: Mapping[Value, Value],
    order: Sequence[Value] | None,
    at: Location | None = None,
) -> list[Value] | None:
    """The same of values alone: what depends on none of them is not even looked at. None where
    sizes get other names, too. New nodes are `at` one location, where it is given."""
    final = dict(new)
    changed = {old for old, value in new.items() if value is not old}
    unchanged, known = changed.isdisjoint, final.get
    with current_locations().following() as site:
        for v in toposort(outputs) if order is None else order:
            if unchanged(v.args) or v in final:
                continue
            if v.op.makes:
                return None
            site.node = v
            final[v] = _on(v, tuple([known(a, a) for a in v.args]), at)
            changed.add(v)
    return [final.get(v, v) for v in outputs]


def _on(v: Value, args: tuple[Value, ...], at: Location | None) -> Value:
    """The op of `v` on other arguments, which mostly have the types of its own."""
    for new, old in zip(args, v.args, strict=True):
        if new.type is not old.type and new.type != old.type:
            break
    else:
        same = remade(v, args, at)
        if same is not None:
            return same
    if at is None:
        return v.op.rebuild(*args)
    with located(at):
        return v.op.rebuild(*args)


@dataclass(frozen=True)
class Computation:
    """What `outputs` are of `arguments`, to be done to others of the same types, too: which nodes
    that makes anew is looked for once."""

    outputs: Sequence[Value]
    arguments: Sequence[Value]

    @cached_property
    def _changing(self) -> list[Value]:
        """The nodes that are others for other arguments, after these."""
        taken = set(self.arguments)
        nodes = between(self.outputs, taken)
        depends = dependent(nodes, taken)
        return [v for v in nodes if v in depends and v not in taken]

    @property
    def is_fixed(self) -> bool:
        """Whether it is the same for all arguments."""
        return not self._changing and {*self.arguments}.isdisjoint(self.outputs)

    def on(self, *arguments: Value, at: Location | None = None) -> list[Value]:
        """The outputs of these arguments: new nodes are `at` that location, or else where those of
        the first ones are."""
        given = dict(zip(self.arguments, arguments, strict=True))
        results = _replaced(self.outputs, given, self._changing, at)
        return replace(self.outputs, given) if results is None else results


def dependent(order: Iterable[Value], on: Collection[Value]) -> set[Value]:
    """The nodes of `order`, arguments first, that depend on any of `on`, and these."""
    dependents = set(on)
    for v in order:
        if not dependents.isdisjoint(v.args):
            dependents.add(v)
    return dependents
