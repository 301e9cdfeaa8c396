"""Loops do as little as they can: what an iteration does not need from the one before it is done
for all of them at once, before or after the loop."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from weakref import WeakKeyDictionary

from nncompile.ir.broadcasting import Expand, broadcast_to
from nncompile.ir.graph import Graph, Item, items, toposort
from nncompile.ir.op import Op, Value, apply
from nncompile.ir.transform import dependent, rebuilt, replace, transformed
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.core.counting import Iota
from nncompile.ops.loops.body import Body, Loop, applied, binder, opened, stays
from nncompile.ops.loops.scan import Scan
from nncompile.passes.batching import Rows, batched, can_batch
from nncompile.passes.stabilise import stabilise


def merge(graph: Graph) -> Graph:
    """Merges loops over the same sequences: that of the model, and that which stacks values for its
    gradient."""
    scans = graph.of_class(Scan)
    if not scans:
        return graph
    if len({_outline(v) for v in scans}) < len(scans):
        graph = stabilise(graph)  # as the gradient is taken of it
        needed: dict[Body, tuple[int, ...]] = {}
        while (new := _merged(graph, needed)) is not None:
            graph = graph.mapped(functools.partial(replace, new=new))
    # Then, or bodies that were equal would be no more.
    return graph.mapped(functools.partial(_merged_within, graph))


def _merged_within(graph: Graph, outputs: Sequence[Value]) -> list[Value]:
    """The outputs with loops in the bodies of loops merged."""
    bodies = [v for v in graph.nodes if type(v.op).within is not Op.within]
    if all(v.op.within(merge) is v.op for v in bodies):
        return list(outputs)

    def make(v: Value, args: list[Value]) -> Value:
        new = rebuilt(v, args)
        op = new.op.within(merge)
        return new if op is new.op else apply(op, *new.args)

    return transformed(outputs, make)


def _outline(v: Value) -> object:
    """What loops that are merged have in common in whatever form."""
    op = v.op
    assert isinstance(op, Scan)
    return op.reverse, tuple([(a.dtype, a.rank) for a in v.args[: op.carries]])


def _merged(graph: Graph, needed: dict[Body, tuple[int, ...]]) -> dict[Value, Value] | None:
    """The results of one group of loops that are the same but for what they stack, by those of a
    loop that stacks it all; None where there is no such group. `needed` is what is known of bodies:
    which arguments the next carries need.

    The first loops come first: what is behind them is made anew, so it is opened only then.
    """
    similar: dict[object, list[Value]] = {}
    every = [v for v in graph.nodes if isinstance(v.op, Scan)]
    for v in every if len(every) > 1 else ():
        similar.setdefault(_carried(v, needed), []).append(v)
    for scans in similar.values():
        for group in _groups(scans) if len(scans) > 1 else ():
            if len(group) > 1:
                return _joined(group)
    return None


def _groups(scans: Sequence[Value]) -> Iterable[list[tuple[Value, Loop]]]:
    """Loops with the same carries, none of which needs another one; with their bodies open, in
    which the same names are the same things."""
    groups: dict[object, list[tuple[Value, Loop]]] = {}
    numbers: dict[Value, int] = {}
    for v in scans:
        loop = _in_common_names(v, numbers)
        key = (loop.reverse, loop.length, _ids(loop.initial), _ids(loop.following))
        group = groups.setdefault(key, [])
        known = {member for member, _ in group}
        if not known or known.isdisjoint(toposort(v.args)):
            group.append((v, loop))
    return groups.values()


def _carried(v: Value, needed: dict[Body, tuple[int, ...]]) -> object:
    """What loops have in common whose carries are the same, to be had without opening them."""
    op = v.op
    assert isinstance(op, Scan)
    if op.body not in needed:
        used = set(toposort(op.body.results[: op.carries]))
        needed[op.body] = tuple(i for i, x in enumerate(op.body.formals) if x in used)
    others = {id(v.args[i]) for i in needed[op.body] if i >= op.carries}
    return op.reverse, _ids(v.args[: op.carries]), frozenset(others)


def _ids(values: Iterable[Value]) -> tuple[int, ...]:
    return tuple(map(id, values))


def _in_common_names(v: Value, numbers: dict[Value, int]) -> Loop:
    """The loop, with binders that are the same in all loops for carries of one place, and for the
    rows of one sequence."""
    op = v.op
    assert isinstance(op, Scan)
    types = [formal.type for formal in op.body.formals]
    carries = [binder(f"carry {i}", t) for i, t in enumerate(types[: op.carries])]
    row_numbers = [numbers.setdefault(x, len(numbers)) for x in _sequences(v)]
    rows = [
        binder(f"row of {n}", t) for n, t in zip(row_numbers, types[op.carries :], strict=False)
    ]
    return opened(v, carries, rows)


def _sequences(v: Value) -> tuple[Value, ...]:
    op = v.op
    assert isinstance(op, Scan)
    return v.args[op.carries : op.carries + op.elements]


def _joined(group: Sequence[tuple[Value, Loop]]) -> dict[Value, Value]:
    first = group[0][1]
    rows: dict[Value, Value] = {}
    indices: dict[Value, int] = {}
    for _, loop in group:
        rows |= zip(loop.elements, loop.sequences, strict=True)
        for v in loop.results:
            indices.setdefault(v, len(indices))
    merged = dataclasses.replace(
        first,
        elements=tuple(rows),
        sequences=tuple(rows.values()),
        results=tuple(indices),
    )
    ends, stacks = applied(merged, Scan)
    replacements: dict[Value, Value] = {}
    for v, loop in group:
        new = (*ends, *(stacks[indices[x]] for x in loop.results))
        replacements |= zip(items(v), new, strict=True)
    return replacements


def loops(graph: Graph) -> Graph:
    """Moves out of loops what can be done for all iterations at once; drops what is not used."""
    used: dict[Value, set[int]] = {}
    for v in graph.of_class(Item) if graph.of_class(Scan) else ():
        if isinstance(v.op, Item) and isinstance(v.args[0].op, Scan):
            used.setdefault(v.args[0], set()).add(v.op.index)
    return graph.mapped(lambda outputs: _reduced(outputs, used)) if used else graph


def _reduced(outputs: Sequence[Value], used: Mapping[Value, set[int]]) -> list[Value]:
    reduced: dict[Value, dict[int, Value]] = {}

    def make(v: Value, args: list[Value]) -> Value:
        if isinstance(v.op, Item) and v.op.index in reduced.get(v.args[0], {}):
            return reduced[v.args[0]][v.op.index]
        new = rebuilt(v, args)
        if v in used:
            new = apply(new.op.within(loops), *new.args)
            reduced[v] = _reduced_results(new, used[v])
        return new

    return transformed(outputs, make)


_least: WeakKeyDictionary[Body, set[object]] = WeakKeyDictionary()
"""Of bodies, in which loops nothing was to be done. Loops are looked at in every round."""


def _reduced_results(v: Value, used: Collection[int]) -> dict[int, Value]:
    """The wanted results of a loop that does less, by number; none where it does no more than it
    has to."""
    op = v.op
    assert isinstance(op, Scan)
    numbers = {a: i for i, a in reversed(list(enumerate(v.args)))}
    # All that opening the loop would show of what is outside.
    around = [(numbers[a], a.digest if stays(a) else type(a.op)) for a in v.args]
    loop = (op.carries, op.elements, frozenset(used), tuple(around))
    if loop in _least.get(op.body, ()):
        return {}
    results = _ReducedLoop(v, used).results()
    if not results:
        _least.setdefault(op.body, set()).add(loop)
    return results


class _ReducedLoop:
    """A scan of which some results are `used`, and what its iterations have to do for them.

    `ahead` is what depends on rows alone and can be done for all at once before the loop; `later`
    what no carry depends on and can be done for all at once after it.
    """

    def __init__(self, value: Value, used: Collection[int]) -> None:
        loop = opened(value)
        self.value, self.used = value, sorted(used)
        self.count = len(loop.carries)
        # A carry that is handed on unchanged keeps its first value; a sequence that is passed twice
        # has one row.
        carries = zip(loop.carries, loop.initial, loop.following, strict=True)
        self.invariants = {c: start for c, start, following in carries if c is following}
        first_rows: dict[Value, Value] = {}
        for row, sequence in zip(loop.elements, loop.sequences, strict=True):
            if first_rows.setdefault(sequence, row) is not row:
                self.invariants[row] = first_rows[sequence]
        self.sequences = {row: sequence for sequence, row in first_rows.items()}
        self.loop = loop = loop.with_values(self.invariants) if self.invariants else loop
        self.live = self._live()
        self.following = [loop.following[i] for i in self.live]
        self.tops = {i: loop.results[i - self.count] for i in self.used if i >= self.count}
        values = (*self.following, *self.tops.values())
        order = self.order = toposort(values)
        self.carried = dependent(order, [loop.carries[i] for i in self.live])
        self.varying = dependent(order, loop.binders)
        self.cycle = set(toposort(self.following))
        self.ahead = self._batchable(lambda v: v not in self.carried)
        self.later = self._batchable(lambda v: v in self.carried and v not in self.cycle)
        self.stacks = dict(self.sequences)  # what is there for all iterations, by the row

    def _live(self) -> list[int]:
        """The carries that a wanted result depends on."""
        loop, indices = self.loop, {c: i for i, c in enumerate(self.loop.carries)}
        live = {i for i in self.used if i < self.count and loop.carries[i] not in self.invariants}
        pending = [loop.following[i] for i in live]
        pending += [loop.results[i - self.count] for i in self.used if i >= self.count]
        seen: set[Value] = set()
        while pending:
            v = pending.pop()
            if v not in seen:
                seen.add(v)
                pending += v.args
                if v in indices and indices[v] not in live:
                    live.add(indices[v])
                    pending.append(loop.following[indices[v]])
        return sorted(live)

    def _batchable(self, is_of: Callable[[Value], bool]) -> set[Value]:
        """The values of the kind that can be computed for all iterations at once, each from such
        values, from rows, and from values of another kind, which are stacked."""
        batchable: set[Value] = set()
        for v in self.order:
            if v not in self.varying or not v.args or not is_of(v) or not can_batch(v):
                continue
            # Several results of one op cannot be stacked as one, so they stay with the op.
            if isinstance(v.op, Item) and v.args[0] not in batchable:
                continue
            inner = [a for a in v.args if a in self.varying and a not in self.sequences]
            if v in self.carried or all(a in batchable for a in inner):
                batchable.add(v)
        return batchable

    def results(self) -> dict[int, Value]:
        """The wanted results, by number; none where the loop does no more than it has to."""
        stacked = self._stacked()
        count = len(self.following)
        new = {
            v: binder(f"{self.value.digest.hex()} ahead {i}", v.type)
            for i, v in enumerate(self._hoisted([*self.following, *stacked]))
        }
        body = replace([*self.following, *stacked], new)
        used = set(toposort(body))
        rows = [x for x in (*self.sequences, *new.values()) if x in used]
        if not new and not self.invariants and self._is_least(rows, stacked):
            return {}
        self.stacks |= {row: self._stack(v) for v, row in new.items()}
        loop = self.loop
        ends, tops = (
            applied(
                Loop(
                    tuple(loop.carries[i] for i in self.live),
                    tuple(loop.initial[i] for i in self.live),
                    tuple(body[:count]),
                    tuple(rows),
                    tuple(self.stacks[x] for x in rows),
                    tuple(body[count:]),
                    loop.length,
                    loop.reverse,
                ),
                Scan,
            )
            if body
            else ((), ())
        )
        self.stacks |= zip(stacked, tops, strict=True)
        last = dict(zip(self.live, ends, strict=True))
        results = {
            i: last[i] if i in last else loop.initial[i] for i in self.used if i < self.count
        }
        return results | {i: self._stack(v) for i, v in self.tops.items()}

    def _is_least(self, rows: Sequence[Value], stacked: Sequence[Value]) -> bool:
        """Whether carries, rows and stacks are those that the loop has."""
        sequences = self.loop.sequences
        # Without a row that is used, one has to be there to say how often the loop runs.
        same_rows = len(rows) == len(sequences) or (
            not rows and len(sequences) == 1 and isinstance(sequences[0].op, Iota)
        )
        same_stacks = len(stacked) == len(self.loop.results) and all(
            v in set(stacked) for v in self.tops.values()
        )
        return same_rows and same_stacks and len(self.live) == self.count

    def _stacked(self) -> list[Value]:
        """What the loop has to stack for the wanted results."""
        stacked: dict[Value, None] = {}
        deferred: list[tuple[Value, list[Value]]] = []
        for v in self.tops.values():
            sources = self._needed(v)
            if v not in self.later or self._has_product(v):
                stacked |= dict.fromkeys(sources)
            else:
                deferred.append((v, sources))
        for v, sources in deferred:
            # To stack more would take more than it saves.
            if any(x not in stacked for x in sources):
                self.later -= {v}
                stacked[v] = None
        return list(stacked)

    def _computed_after(self, v: Value) -> list[Value]:
        """The value and what it is computed from after the loop, without what is there before
        it."""
        visited: dict[Value, None] = {}
        pending = [v]
        while pending:
            x = pending.pop()
            if x in visited or x not in self.varying or x in self.ahead or x in self.sequences:
                continue
            visited[x] = None
            if x in self.later:
                pending.extend(x.args)
        return list(visited)

    def _needed(self, v: Value) -> list[Value]:
        return [x for x in self._computed_after(v) if x not in self.later]

    def _has_product(self, v: Value) -> bool:
        within = [x for x in self._computed_after(v) if x in self.later]
        return any(isinstance(x.op, MatMul | Gemm) for x in within)

    def _hoisted(self, values: Sequence[Value]) -> list[Value]:
        """What the values need of what is computed ahead. Repetition is left to the loop: its
        source is smaller."""
        sources: dict[Value, None] = {}
        visited: set[Value] = set()
        pending = list(values)
        while pending:
            v = pending.pop()
            if v in visited or v not in self.varying:
                continue
            visited.add(v)
            if v in self.ahead and not isinstance(v.op, Expand):
                sources[v] = None
            else:
                pending.extend(v.args)
        return sorted(sources, key=lambda v: v.digest)

    def _stack(self, value: Value) -> Value:
        """A value of the body for all iterations, from what is there for all of them."""
        length = self.loop.length
        if value not in self.varying:
            return broadcast_to(value, (length, *value.shape))
        pending = [value]
        while pending:
            v = pending[-1]
            missing = [a for a in v.args if a in self.varying and a not in self.stacks]
            if v in self.stacks or not missing:
                pending.pop()
            else:
                pending.extend(missing)
                continue
            if v not in self.stacks:
                args = [Rows(a, self.stacks.get(a, a), a in self.varying) for a in v.args]
                self.stacks[v] = batched(v, args, length)
        return self.stacks[value]
