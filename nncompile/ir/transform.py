"""Graphs from graphs: one walk that makes each node anew, and what follows from it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import sympy as sp

from nncompile.diagnostics.locations import Location, current_locations, located
from nncompile.ir.data_sizes import made_size
from nncompile.ir.dims import Dim
from nncompile.ir.graph import toposort
from nncompile.ir.op import Value

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
) -> list[Value]:
    """The outputs with `make(node, new arguments)` in place of each node that they need, arguments
    first, at its location (or that which `location` gives). What is in `known` is not made but
    stands for its key."""
    table = current_locations()
    site = location or table.location
    new: dict[Value, Value] = dict(known or {})
    for v in toposort(outputs):
        if v not in new:
            with located(site(v)):
                new[v] = make(v, [new[a] for a in v.args])
            if location is not None and new[v] is v:  # which was not made, and so not recorded
                table.record(v, location(v))
    return [new[v] for v in outputs]


def replace(
    outputs: Sequence[Value],
    new: Mapping[Value, Value],
    sizes: Mapping[sp.Symbol, Dim] | None = None,
    location: Callable[[Value], Location | None] | None = None,
) -> list[Value]:
    """The outputs with the values of `new` in place of its keys, and `sizes` in place of names
    of dimensions; everything that depends on them is made anew, at its old location (or that which
    `location` gives). A size that depends on data is another one for other data."""
    if not sizes and location is None and (results := _replaced(outputs, new)) is not None:
        return results
    sizes = dict(sizes or {})

    def make(v: Value, args: list[Value]) -> Value:
        op = v.op.at(sizes) if sizes else v.op
        if op is v.op and all(a is b for a, b in zip(args, v.args, strict=True)):
            return v
        renamed = {s: made_size(op.label, *args) for s in op.makes}
        sizes.update(renamed)
        return (op.at(renamed) if renamed else op).rebuild(*args)

    return transformed(outputs, make, new, location)


def _replaced(outputs: Sequence[Value], new: Mapping[Value, Value]) -> list[Value] | None:
    """The same of values alone: what depends on none of them is not even looked at. None where
    sizes get other names, too."""
    table = current_locations()
    final = dict(new)
    changed = {old for old, value in new.items() if value is not old}
    for v in toposort(outputs):
        if v not in final and not changed.isdisjoint(v.args):
            if v.op.makes:
                return None
            with located(table.location(v)):
                final[v] = v.op.rebuild(*[final.get(a, a) for a in v.args])
            changed.add(v)
    return [final.get(v, v) for v in outputs]


def dependent(order: Iterable[Value], on: Collection[Value]) -> set[Value]:
    """The nodes of `order`, arguments first, that depend on any of `on`, and these."""
    dependents = set(on)
    for v in order:
        if any(a in dependents for a in v.args):
            dependents.add(v)
    return dependents
