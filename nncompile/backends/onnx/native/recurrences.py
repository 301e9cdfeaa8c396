"""Loops over time that are LSTMs or GRUs, and the loops of their gradients, as calls of native
kernels.

A loop is recognized by what it computes: where its body is made of nothing but products, sums, tanh
and σ, and the numbers that it gives for random ones are those of the kernel in float64, both are
the same function. So it does not matter how a cell is written, nor what passes have made of it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import sympy as sp

from nncompile.backends.onnx.native import cells
from nncompile.diagnostics.errors import FeedError
from nncompile.elementwise.map import Map, body_of
from nncompile.elementwise.sympy_functions import gate, placeholder, sigmoid, tanh, where
from nncompile.ir.basic import Constant
from nncompile.ir.broadcasting import Expand
from nncompile.ir.dims import same, same_shape, substitute, symbols
from nncompile.ir.graph import Graph, Input, Item, items, toposort
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import rebuilt, replace, transformed
from nncompile.ir.types import boolean, f32
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.loops.outlined import outlined
from nncompile.ops.loops.scan import Scan
from nncompile.ops.shape.joining import Concat, Split
from nncompile.ops.shape.reshape import Reshape, Transpose

# What bodies and factors may be made of: functions that agree where random numbers do.
_OPS = (Map, MatMul, Gemm, Concat, Split, Item, Constant, Expand, Reshape, Transpose)
_FORMULAS = (sp.Add, sp.Mul, sp.Number, sp.Symbol, tanh, sigmoid, gate, where)
_NEAR = 1e-9  # how near to each other results in float64 are
_MOST = 80  # nodes that factors are made of
_MOST_NUMBERS = 2**22  # that a loop is tried with

Arrays = Mapping[str, np.ndarray[Any, Any]]


def recurrent_calls(graph: Graph) -> Graph:
    """The graph with calls of the kernels in place of the loops that are recognized."""
    used: dict[Value, set[int]] = {}
    for v in graph.nodes:
        if isinstance(v.op, Item) and isinstance(v.args[0].op, Scan):
            used.setdefault(v.args[0], set()).add(v.op.index)
    if not used:
        return graph
    return graph.mapped(lambda outputs: _Recognition(used).run(outputs))


@dataclass(frozen=True, eq=False)
class _Forward:
    """A call of the kernel of a sequence: its weight, its kind, what each of its results is, and
    which numbers those are for random ones."""

    kind: cells.Kind
    weight: Value
    present: Value | None
    reverse: bool
    roles: Mapping[Value, str]
    feeds: Arrays  # the random numbers
    values: Arrays  # and what the cell makes of them


class _Parts(NamedTuple):
    """The arguments of a loop, and what it is."""

    carries: tuple[Value, ...]
    rows: tuple[Value, ...]
    free: tuple[Value, ...]
    results: tuple[Value, ...]  # of its body
    reverse: bool


def _parts(scan: Value) -> _Parts:
    op, args = scan.op, scan.args
    assert isinstance(op, Scan)
    count = op.carries + op.elements
    rows = args[op.carries : count]
    return _Parts(args[: op.carries], rows, args[count:], op.body.results, op.reverse)


class _Recognition:
    def __init__(self, used: Mapping[Value, set[int]]) -> None:
        self.used = used
        self.results: dict[Value, dict[int, Value]] = {}
        self.forward: list[_Forward] = []
        self.sizes: dict[sp.Symbol, int] = {}

    def run(self, outputs: Sequence[Value]) -> list[Value]:
        def make(v: Value, args: list[Value]) -> Value:
            if isinstance(v.op, Item) and v.op.index in self.results.get(v.args[0], {}):
                return self.results[v.args[0]][v.op.index]
            new = rebuilt(v, args)
            if v in self.used and isinstance(new.op, Scan):
                results = items(new)
                wanted = {i: results[i] for i in sorted(self.used[v])}
                loop = _parts(new)
                known = None
                if _is_plain(loop.results):
                    known = self._sequence(loop, wanted) or self._gradient(loop, wanted)
                if known:
                    self.results[v] = {i: known[x] for i, x in wanted.items()}
            return new

        return transformed(outputs, make)

    def _sequence(self, loop: _Parts, wanted: Mapping[int, Value]) -> dict[Value, Value] | None:
        """What stands for the wanted results of a loop that is a sequence of cells."""
        for kind in cells.KINDS:
            for arguments in _sequence_arguments(loop, kind):
                found = self._matched(loop, wanted, kind, arguments)
                if found:
                    return found
        return None

    def _matched(
        self,
        loop: _Parts,
        wanted: Mapping[int, Value],
        kind: cells.Kind,
        arguments: Mapping[str, Value],
    ) -> dict[Value, Value] | None:
        feeds = _random(arguments, self.sizes)
        if feeds is None:
            return None
        values = kind.sequence(feeds, loop.reverse)
        roles = _roles(list(wanted.values()), arguments, feeds, values)
        if roles is None:
            return None
        new = outlined(
            kind.name,
            tuple(arguments.values()),
            tuple(roles),
            reverse=int(loop.reverse),
            takes=" ".join(arguments),
            gives=" ".join(roles.values()),
        )
        self.forward.append(
            _Forward(
                kind,
                arguments["weight"],
                arguments.get("present"),
                loop.reverse,
                {new[x]: role for x, role in roles.items()},
                feeds,
                values,
            )
        )
        return new

    def _gradient(self, loop: _Parts, wanted: Mapping[int, Value]) -> dict[Value, Value] | None:
        """What stands for the wanted results of a loop that is the gradient of such a sequence."""
        free = set(loop.free)
        for forward in self.forward:
            if forward.reverse == loop.reverse or forward.weight not in free:
                continue
            for arguments in _gradient_arguments(loop, forward):
                feeds = _random(arguments, self.sizes)
                if feeds is None:
                    return None
                known = {**forward.feeds, **forward.values}
                feeds |= {name: x for name, x in known.items() if name in arguments}
                values = forward.kind.gradient(feeds, forward.reverse)
                roles = _roles(list(wanted.values()), arguments, feeds, values)
                if roles is not None:
                    return outlined(
                        f"{forward.kind.name}Gradient",
                        tuple(arguments.values()),
                        tuple(roles),
                        reverse=int(forward.reverse),
                        takes=" ".join(arguments),
                        gives=" ".join(roles.values()),
                    )
        return None


def _is_plain(values: Sequence[Value]) -> bool:
    """Whether they are made of ops alone that are the same functions where random numbers agree."""
    return all(isinstance(v.op, (*_OPS, Input)) and _is_smooth(v) for v in toposort(values))


def _is_smooth(v: Value) -> bool:
    if not isinstance(v.op, Map):
        return True
    return all(
        x.exp.is_Integer if isinstance(x, sp.Pow) else isinstance(x, _FORMULAS)
        for x in sp.preorder_traversal(body_of(v))
    )


def _is_float(v: Value, *shape: Any) -> bool:
    return v.dtype is f32 and same_shape(v.shape, shape) is True


def _sequence_arguments(loop: _Parts, kind: cells.Kind) -> Iterator[dict[str, Value]]:
    """What a kernel would be given for a loop, in each way that its types allow."""
    carries, rows, free = loop.carries, loop.rows, loop.free
    if len(carries) != len(kind.states) or carries[0].rank != 2:
        return
    batch, hidden = carries[0].shape
    if not isinstance(hidden, int):
        return
    wide = hidden * kind.gates
    present = [x for x in rows if x.dtype is boolean]
    known = _rows_of([x for x in rows if x.dtype is not boolean], kind.gates)
    weights = [x for x in free if _is_float(x, hidden, wide)]
    biases = [x for x in free if _is_float(x, wide)]
    fits = known is not None and known.rank == 3 and same(known.shape[2], wide) is True
    if not fits or len(present) > 1 or len(weights) != 1 or len(weights) + len(biases) != len(free):
        return
    assert known is not None
    inputs = {"rows": known}
    term = _added(known)
    if term is not None:
        inputs = {"rows": term[0], "bias": term[1]}
    inputs["weight"] = weights[0]
    if biases:
        inputs["inner_bias"] = biases[0]
    if present:
        if same_shape(present[0].shape, (known.shape[0], batch, 1)) is not True:
            return
        inputs["present"] = present[0]
    for order in itertools.permutations(kind.states):
        states = dict(zip(order, carries, strict=True))
        if all(_is_float(x, batch, hidden) for x in states.values()):
            yield inputs | {f"{name}0": states[name] for name in kind.states}


def _rows_of(rows: Sequence[Value], gates: int) -> Value | None:
    """The one sequence that the rows are, or whose parts they are."""
    if len(rows) == 1:
        return rows[0]
    if len(rows) != gates or not all(isinstance(x.op, Item) for x in rows):
        return None
    sources = {x.args[0] for x in rows}
    source = next(iter(sources))
    if len(sources) != 1 or not isinstance(source.op, Split) or source.op.axis != 2:
        return None
    return source.args[0]


def _added(v: Value) -> tuple[Value, Value] | None:
    """The terms of rows + bias."""
    if not isinstance(v.op, Map) or len(v.args) != 2:
        return None
    if body_of(v) != placeholder(0) + placeholder(1):
        return None
    for rows, bias in (v.args, v.args[::-1]):
        if rows.type == v.type and _is_float(bias, v.shape[-1]):
            return rows, bias
    return None


def _gradient_arguments(loop: _Parts, forward: _Forward) -> Iterator[dict[str, Value]]:
    kind, carries, rows = forward.kind, loop.carries, loop.rows
    if len(carries) != len(kind.states):
        return
    known: dict[str, Value] = {}
    outer: list[Value] = []
    for x in rows:
        stacks = _stacks(x, forward)
        if stacks is None:
            outer.append(x)
        else:
            known |= stacks
    by_role = {role: v for v, role in forward.roles.items()}
    if len(outer) > 1 or not set(kind.needed) <= by_role.keys():
        return
    # What the factors are made of is an argument, whether the kernel needs it or not.
    arguments = {"weight": forward.weight, **{role: by_role[role] for role in kind.needed}, **known}
    if forward.present is not None:
        arguments["present"] = forward.present
    like = carries[0].type
    if outer:
        if not _is_float(outer[0], rows[0].shape[0], *like.shape):
            return
        arguments["d_after"] = outer[0]
    for order in itertools.permutations(kind.states):
        states = dict(zip(order, carries, strict=True))
        yield arguments | {f"d_{name}": states[name] for name in kind.states}


def _stacks(v: Value, forward: _Forward) -> dict[str, Value] | None:
    """The results of the forward pass, by role, that a sequence is made of; None where it is made
    of something else."""
    found: dict[str, Value] = {}
    visited: set[Value] = set()
    pending = [v]
    while pending:
        x = pending.pop()
        if x in visited:
            continue
        visited.add(x)
        if x in forward.roles:
            found[forward.roles[x]] = x
        elif x is forward.present:
            found["present"] = x
        elif len(visited) > _MOST or not isinstance(x.op, _OPS) or not _is_smooth(x):
            return None
        else:
            pending.extend(x.args)
    return found if found else None


def _roles(
    wanted: Sequence[Value], arguments: Mapping[str, Value], feeds: Arrays, values: Arrays
) -> dict[Value, str] | None:
    """Which of the `values` each wanted result is, for the numbers that are fed; None where one of
    them is none of these, or needs other arguments."""
    by_value = {v: name for name, v in reversed([*arguments.items()])}
    leaves = {v: apply(Input(name, v.type)) for v, name in by_value.items()}
    results, known = replace(wanted, leaves), set(leaves.values())
    if any(isinstance(v.op, Input) and v not in known for v in toposort(results)):
        return None
    graph = Graph("loop", {f"{i}": v for i, v in enumerate(results)}, tuple(leaves.values()))
    try:
        arrays = evaluate(graph, {name: feeds[name] for name in by_value.values()}, np.float64)
    except FeedError:  # sizes of inner values that those of the arguments do not tell
        return None
    roles: dict[Value, str] = {}
    for v, array in zip(wanted, arrays.values(), strict=True):
        alike = (
            name
            for name, x in values.items()
            if name not in roles.values() and x.shape == array.shape and _is_near(array, x)
        )
        role = next(alike, None)
        if role is None:
            return None
        roles[v] = role
    return roles


def _is_near(x: np.ndarray[Any, Any], y: np.ndarray[Any, Any]) -> bool:
    return bool(np.allclose(x, y, rtol=_NEAR, atol=_NEAR))


def _random(
    arguments: Mapping[str, Value], sizes: dict[sp.Symbol, int]
) -> dict[str, np.ndarray[Any, Any]] | None:
    """Random numbers for each argument, the same ones for arguments that are the same; None where
    these were too many. Names of dimensions have the same size in all of them."""
    generator = np.random.default_rng(0)
    names = sorted(symbols(size for v in arguments.values() for size in v.shape), key=str)
    for name in names:
        sizes.setdefault(name, 2 + len(sizes))
    shapes = [tuple(int(substitute(n, sizes)) for n in v.shape) for v in arguments.values()]
    if sum(map(math.prod, shapes)) > _MOST_NUMBERS:
        return None
    by_value: dict[Value, np.ndarray[Any, Any]] = {}
    for (name, v), shape in zip(arguments.items(), shapes, strict=True):
        if v not in by_value and v.dtype is boolean:
            by_value[v] = generator.random(shape) < 0.6
        elif v not in by_value:
            scale = shape[0] ** -0.5 if name == "weight" else 1.0
            by_value[v] = generator.standard_normal(shape) * scale
    return {name: by_value[v] for name, v in arguments.items()}
