"""Random numbers of some rows of a batch: those that the same rows have in the whole batch.

The generator counts the elements that it draws. What a process draws for its rows begins at the
count of the first of them, so that any number of processes draw what one would.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import sympy as sp

from nncompile.ir.basic import cast, size_value
from nncompile.ir.dims import Dim, dim, product, symbols
from nncompile.ir.graph import Graph, Input, toposort
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import rebuilt, transformed
from nncompile.ir.types import Type, i64, u32
from nncompile.ops.loops.body import Body, formal
from nncompile.ops.random.generator import Hash
from nncompile.ops.shape.reshape import Reshape

FIRST_ROW = "first_row"


def with_first_row(graph: Graph, examples: Dim | None) -> Graph:
    """The graph with an input `first_row`, the number of its first row in a larger batch, where it
    draws random numbers for each row; otherwise the graph itself."""
    if examples is None:
        return graph
    first = apply(Input(FIRST_ROW, Type(i64), "input"))
    outputs = list(graph.outputs.values())
    counted = _counted(outputs, first, examples)
    if all(new is old for new, old in zip(counted, outputs, strict=True)):
        return graph
    named = dict(zip(graph.outputs, counted, strict=True))
    return replace(graph, outputs=named, inputs=(*graph.inputs, first))


def unnumbered(graph: Graph, examples: Dim | None) -> list[Value]:
    """Random numbers for each row of a batch that do not lie row by row, of which the numbers of
    some rows differ from those that they have in the whole batch."""
    if examples is None:
        return []
    return [v for v in _nodes(list(graph.outputs.values())) if _is_across(v, examples)]


def _counted(outputs: Sequence[Value], first: Value, examples: Dim) -> list[Value]:
    def make(v: Value, args: list[Value]) -> Value:
        if isinstance(v.op, Hash):
            size = _elements_of_row(v, examples)
            if size is not None:
                counter, key = args
                return v.op(counter + cast(first, u32) * size_value(size, u32), key)
        body: Any = getattr(v.op, "body", None)
        if isinstance(body, Body):
            inner = formal(len(body.formals), first.type)
            results = _counted(body.results, inner, examples)
            if any(new is not old for new, old in zip(results, body.results, strict=True)):
                whole = Body((*body.formals, inner), tuple(results))
                op: Any = v.op
                return apply(replace(op, body=whole), *args, first)
        return rebuilt(v, args)

    return transformed(outputs, make)


def _elements_of_row(bits: Value, examples: Dim) -> Dim | None:
    """How many of the bits each row has; None where they are not of rows."""
    (size,) = bits.shape if bits.rank == 1 else (None,)
    if size is None or not symbols([examples]) <= symbols([size]):
        return None
    each = sp.cancel(sp.sympify(size) / examples)
    is_whole = not symbols([examples]) & each.free_symbols and sp.denom(each) == 1
    return dim(each) if is_whole else None


def _is_across(v: Value, examples: Dim) -> bool:
    """Whether it arranges random bits so that a row's are not side by side."""
    if not isinstance(v.op, Reshape) or not isinstance(v.args[0].op, Hash):
        return False
    names = symbols([examples])
    size = product(v.shape)
    if not names <= symbols([size]):
        return False
    return not names <= symbols([v.shape[0]]) or _elements_of_row(v.args[0], examples) is None


def _nodes(outputs: Sequence[Value]) -> list[Value]:
    found = []
    for v in toposort(outputs):
        found.append(v)
        body: Any = getattr(v.op, "body", None)
        if isinstance(body, Body):
            found += _nodes(body.results)
    return found
