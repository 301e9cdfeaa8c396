"""The reverse rule of `scan`: for any body, of any order.

The gradients of a scan are a scan against its direction, whose body is the gradient of the body.
What that body needs of the forward pass is not computed again: the forward loop stacks it (a pass
makes one loop of it and of the one that was there). Derivatives that do not depend on gradients
stand apart as factors (`scan_factors.py`), so that they can be computed for all iterations at once,
outside. The gradient at what the body takes from outside is a sum over time (`scan_sums.py`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from nncompile.ir.basic import Cast
from nncompile.ir.broadcasting import Expand, zeros_like
from nncompile.ir.graph import Item, toposort
from nncompile.ir.op import Backward, Op, Value
from nncompile.ir.transform import dependent, replace
from nncompile.ir.types import TupleType
from nncompile.ops.loops.body import Loop, applied, binder, opened
from nncompile.ops.loops.scan_factors import separated
from nncompile.ops.loops.scan_sums import Results, Sums
from nncompile.ops.shape.reshape import Reshape

# Of these the source is stacked rather than the result, which is as large or larger.
_VIEWS = (Cast, Expand, Reshape)


def scan_gradients(backward: Backward, g: Sequence[Value | None], y: Value) -> list[Value | None]:
    """The gradients at the arguments of the scan `y`, from those at its results (None for a result
    that was not used)."""
    forward = _Forward(y)
    count = len(forward.loop.carries)
    gradients = _Backward(backward, forward, g[:count], g[count:]).gradients()
    return [gradients.get(x) for x in forward.arguments]


class _Forward:
    """The scan with its body open; what that takes from outside is a binder, too, so that it can
    be differentiated at."""

    def __init__(self, y: Value) -> None:
        op: Any = y.op
        self.scan = type(op)
        count = op.carries + op.elements
        self.stem = y.digest.hex()
        formals = op.body.formals
        self.free = [self.binder(f"{i}", v) for i, v in enumerate(formals) if i >= count]
        self.outside = dict(zip(self.free, y.args[count:], strict=True))
        self.loop = opened(y, free=self.free)
        self.results = (*self.loop.following, *self.loop.results)

    @property
    def arguments(self) -> tuple[Value, ...]:
        """What stands for each argument of the scan."""
        return (*self.loop.binders, *self.free)

    def binder(self, name: str, like: Value) -> Value:
        return binder(f"{self.stem} {name}", like.type)

    def stacked(self, values: Sequence[Value]) -> list[Value]:
        """Values of the body, stacked by the loop itself."""
        if not values:
            return []
        indices: dict[Value, int] = {}
        for v in (*self.loop.results, *values):
            indices.setdefault(v, len(indices))
        loop = dataclasses.replace(self.loop, results=tuple(indices))
        _, stacks = applied(loop.with_values(self.outside), self.scan)
        return [stacks[indices[v]] for v in values]


class _Backward:
    """The loop from the end, given the gradients at the last carries and at the stacks.

    `carried` are binders of the gradients at carries, which it hands on, by index, and
    `row_gradients` of those at what one iteration stacked.
    """

    def __init__(
        self,
        backward: Backward,
        forward: _Forward,
        last: Sequence[Value | None],
        stacks: Sequence[Value | None],
    ) -> None:
        self.backward, self.forward, self.last = backward, forward, last
        loop = self.loop = forward.loop
        self.used = {i: gradient for i, gradient in enumerate(stacks) if gradient is not None}
        self.row_gradients = {
            i: forward.binder(f"gradient of result {i}", loop.results[i]) for i in self.used
        }
        self.carried = {
            i: forward.binder(f"gradient of carry {i}", loop.carries[i]) for i in self._needed()
        }
        self.cotangents = [*self.carried.values(), *self.row_gradients.values()]

    def _needed(self) -> list[int]:
        """The carries whose gradients are not zero: used results depend on them."""
        loop = self.loop
        indices = {x: i for i, x in enumerate(loop.carries) if x.dtype.is_float}
        needed = {i for i, gradient in enumerate(self.last) if gradient is not None}
        pending = [loop.following[i] for i in needed] + [loop.results[i] for i in self.used]
        while pending:
            dependencies = {indices[v] for v in toposort([pending.pop()]) if v in indices}
            pending += [loop.following[i] for i in dependencies - needed]
            needed |= dependencies
        return sorted(needed)

    def gradients(self) -> dict[Value, Value]:
        """The gradients at the arguments of the scan that have one."""
        forward, loop = self.forward, self.loop
        at = self._of_body()
        order = toposort((*at.values(), *forward.results))
        inner = dependent(order, (*loop.binders, *self.cotangents))
        sums = Sums(inner, loop.length)
        totals = {x: sums.of(at[x]) for x in forward.free if x in at}
        row_elements = [x for x in loop.elements if x in at]
        before = [at[x] if (x := loop.carries[i]) in at else zeros_like(x) for i in self.carried]
        body = [*before, *sums.carried, *(at[x] for x in row_elements), *sums.stacked]
        rows = self._rows(body)
        body = replace(body, {**forward.outside, **{v: row for v, (row, _) in rows.items()}})

        count = len(before)
        total_binders = [forward.binder(f"total {i}", v) for i, v in enumerate(sums.carried)]
        new = [total + v for total, v in zip(total_binders, body[count:], strict=False)]
        results = body[count + len(new) :]
        used = set(toposort([*body[:count], *new, *results]))
        sequences = {row: sequence for row, sequence in rows.values() if row in used}
        starts = [(self.last[i], loop.initial[i]) for i in self.carried]
        backward_loop = Loop(
            (*self.carried.values(), *total_binders),
            (
                *(zeros_like(x) if gradient is None else gradient for gradient, x in starts),
                *map(zeros_like, total_binders),
            ),
            (*body[:count], *new),
            tuple(sequences),
            tuple(sequences.values()),
            tuple(results),
            loop.length,
            not loop.reverse,
        )
        ends, stacks = applied(backward_loop, forward.scan)
        gradients = dict(zip((loop.carries[i] for i in self.carried), ends, strict=False))
        gradients |= zip(row_elements, stacks, strict=False)
        # A row that only comes in is a stack already.
        tops = [sequences.get(v, top) for v, top in zip(results, stacks, strict=True)]
        states = Results(
            tops[len(row_elements) :], ends[count:], lambda v: replace([v], forward.outside)[0]
        )
        return gradients | {x: total(states) for x, total in totals.items()}

    def _of_body(self) -> dict[Value, Value]:
        """The gradients of one iteration at its arguments, without those that are zero."""
        forward, loop = self.forward, self.loop
        wrt = [x for x in forward.arguments if x.dtype.is_float]
        seeds: dict[Value, Value] = {}
        weighed = [(loop.following[i], gradient) for i, gradient in self.carried.items()]
        weighed += [(loop.results[i], gradient) for i, gradient in self.row_gradients.items()]
        for v, gradient in weighed:
            seeds[v] = seeds[v] + gradient if v in seeds else gradient
        gradients = separated(self.backward(seeds, wrt), forward.results, self.cotangents)
        return {x: g for x, g in zip(wrt, gradients, strict=True) if g is not zeros_like(x)}

    def _rows(self, body: Sequence[Value]) -> dict[Value, tuple[Value, Value]]:
        """For each value that the body needs row by row, what stands for its row, and the
        sequence."""
        forward, loop = self.forward, self.loop
        rows = {x: (x, s) for x, s in zip(loop.elements, loop.sequences, strict=True)}
        rows |= {x: (x, self.used[i]) for i, x in self.row_gradients.items()}
        saved = self._saved(body)
        stacks = forward.stacked(saved)
        for i, (v, stack) in enumerate(zip(saved, stacks, strict=True)):
            rows[v] = forward.binder(f"saved {i}", v), stack
        return rows

    def _saved(self, body: Sequence[Value]) -> list[Value]:
        """The values of the forward pass that the body needs as they are. What the forward pass
        did not compute is made of them, but for loops in its body: what those stack for their own
        gradient is stacked, too."""
        loop = self.loop
        scan = self.forward.scan
        linear = dependent(toposort(body), self.cotangents)
        forward = set(toposort(self.forward.results))
        varying = dependent(toposort((*body, *forward)), loop.binders) - set(loop.elements)
        saved: dict[Value, None] = {}
        visited: set[Value] = set()
        pending = list(body)
        while pending:
            v = pending.pop()
            if v in visited:
                continue
            visited.add(v)
            is_saved = not v.args or _is_of(scan, v) or (v in forward and _is_stacked_whole(v))
            if is_saved and v in varying and v not in linear:
                saved[v] = None
            elif v in linear or v in varying:
                pending.extend(v.args)
        return sorted(saved, key=lambda v: v.digest)


def _is_of(op: type[Op], v: Value) -> bool:
    """Whether it is one of the results of such an op."""
    return isinstance(v.op, Item) and isinstance(v.args[0].op, op)


def _is_stacked_whole(v: Value) -> bool:
    return not isinstance(v.type, TupleType) and not isinstance(v.op, _VIEWS)
