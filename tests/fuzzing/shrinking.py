"""Failing programs made smaller: results left out, values given as inputs, nodes passed over."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from nncompile.diagnostics.errors import CompileError
from nncompile.ir.dims import symbols
from nncompile.ir.graph import Graph, Input, toposort
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import rebuilt
from nncompile.ir.types import TupleType, Type
from tests.fuzzing.arithmetic import Computation
from tests.fuzzing.program import Program
from tests.op_types import Feeds


def smaller(program: Program, fails: Callable[[Program], bool], tries: int) -> Program:
    """The smallest program found in so many tries that still fails."""
    found = True
    while found:
        found = False
        for candidate in candidates(program):
            if _size(candidate) >= _size(program):
                continue
            if not tries:
                return program
            tries -= 1
            if fails(candidate):
                program, found = candidate, True
                break
    return program


def _size(program: Program) -> tuple[int, int, int, float]:
    nodes = toposort(program.outputs)
    operations = sum(not isinstance(v.op, Input) for v in nodes)
    largest = sum(float(np.abs(a).sum()) for feeds in program.feeds for a in feeds.values())
    return operations, len(program.outputs) + len(program.inputs), len(program.sizes), largest


def candidates(program: Program) -> Iterator[Program]:
    """Programs that are one step smaller, the smallest first."""
    if len(program.outputs) > 1:
        for y in program.outputs:
            yield _with(program, (y,))
    if len(program.sizes) > 1:
        for i in range(len(program.sizes)):
            yield dataclasses.replace(
                program,
                sizes=program.sizes[i : i + 1],
                feeds=program.feeds[i : i + 1],
                special=program.special and i == len(program.sizes) - 1,
            )
    nodes = [v for v in toposort(program.outputs) if not isinstance(v.op, Input)]
    for v in reversed(nodes):
        if isinstance(v.type, Type) and not any(v is y for y in program.outputs):
            yield from _cut(program, v)
        for x in v.args:
            if x.type == v.type:
                yield from _replaced(program, {v: x})
    for v in reversed(nodes):  # a result further down
        if isinstance(v.type, Type) and not any(v is y for y in program.outputs):
            yield _with(program, (v,))


def _with(program: Program, outputs: tuple[Value, ...]) -> Program:
    """The program with other results, and the leaves that these need."""
    needed = set(toposort(outputs))
    free = {d for v in needed for t in _types(v) for d in symbols(t.shape)}
    kept, have = [], set()
    for x in program.inputs:
        if x in needed:
            kept.append(x)
            have |= {d for d in x.shape if not isinstance(d, int)}
    for x in program.inputs:  # those that tell a size
        if x not in needed and not have.issuperset(x.shape) and free & symbols(x.shape):
            kept.append(x)
            have |= set(x.shape)
    return dataclasses.replace(program, outputs=outputs, inputs=tuple(kept))


def _types(v: Value) -> tuple[Type, ...]:
    return v.type.items if isinstance(v.type, TupleType) else (v.type,)


def _replaced(program: Program, new: dict[Value, Value]) -> Iterator[Program]:
    made = dict(new)
    try:
        for v in toposort(program.outputs):
            if v not in made:
                args = [made[a] for a in v.args]
                same = all(a is b for a, b in zip(args, v.args, strict=True))
                made[v] = v if same else rebuilt(v, args)
    except CompileError:
        return
    outputs = tuple(made[v] for v in program.outputs)
    found = {x for x in toposort(outputs) if isinstance(x.op, Input)}
    inputs = (*program.inputs, *(x for x in found if x not in set(program.inputs)))
    yield _with(dataclasses.replace(program, inputs=inputs), outputs)


def _cut(program: Program, v: Value) -> Iterator[Program]:
    """The program with a value as an input, whose data is what was computed."""
    name = f"c{sum(x.op.name.startswith('c') for x in program.inputs)}"  # type: ignore[attr-defined]
    leaf = apply(Input(name, v.type))
    new: list[Feeds] = []
    for sizes, feeds in zip(program.sizes, program.feeds, strict=True):
        array = Computation(Graph("cut", {"y": v}), sizes)(feeds)["y"]
        new.append(feeds | {name: np.array(array, v.dtype.numpy, order="C")})
    yield from _replaced(dataclasses.replace(program, feeds=tuple(new)), {v: leaf})
