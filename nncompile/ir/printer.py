"""Graph → text: one line a node, with its type, the user's line and the layer it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp

from nncompile.ir.dims import grouped, product
from nncompile.ir.graph import Graph, Input, Item, graphs_within
from nncompile.ir.op import Op, Value
from nncompile.ir.types import DType, Type

# Longer expressions and types do not push the columns beside them further out.
WIDEST = (80, 32)

MOST = 4  # parameters and states that are listed in the header one by one

_KINDS = {"input": "inputs", "parameter": "parameters", "state": "state"}


def text(graph: Graph) -> str:
    """The whole graph: what it is given, one line a node, and its outputs.

        digits
          inputs      image : f32[batch, 64]
          parameters  head.weight : f32[64, 10]
                      head.bias : f32[10]

        %1 = gemm(image, head.weight, head.bias)  : f32[batch, 10]  digits.py:22  head
        %2 = softmax(%1)                          : f32[batch, 10]  digits.py:23

          logits         %1
          probabilities  %2

    Leaves are called by their names, results of an op with several `%3.0` and `%3.1`, and
    elementwise ops are printed as mathematics. The body of a loop stands indented below it, where
    `#0` is its argument number 0 (of a sequence, one row) and `%3:1` its node number 1. More than a
    few parameters or states are counted in the header, and listed no more.
    """
    names = _names(graph)
    sections = [[graph.name, *_indented(_header(graph))]]
    sections.append(_columns(list(_lines(graph, names))))
    sections.append(_indented([(name, names[v]) for name, v in graph.outputs.items()]))
    return "\n\n".join("\n".join(lines) for lines in sections if lines) + "\n"


def node_text(graph: Graph, v: Value) -> str:
    """One node as `text` prints it, `%3 = relu(%2)`; its name alone where it has no line."""
    names = _names(graph)
    return f"{names[v]} = {expression(v, names)}" if _has_line(v) else names[v]


def _header(graph: Graph) -> list[tuple[str, str]]:
    """The rows of the header. What there is much of is known by its use: it is counted."""
    rows: list[tuple[str, str]] = []
    for kind, title in _KINDS.items():
        leaves = graph.of_kind(kind)
        if kind != "input" and len(leaves) > MOST:
            elements = sum((product(v.shape) for v in leaves.values()), start=0)
            rows.append((title, f"{len(leaves)} tensors, {grouped(elements)} elements"))
            continue
        for name, v in leaves.items():
            rows.append((title, f"{name} : {v.type}"))
            title = ""
    return rows


def _is_inline(v: Value) -> bool:
    """Whether a node is written where it is used: leaves, numbers, and results of tuples."""
    return isinstance(v.op, Input | Item) or (not v.args and v.type.rank == 0)


def inline_text(v: Value) -> str:
    """How a number or a size is written where it is used; nothing for any other node."""
    if not _is_inline(v) or isinstance(v.op, Input | Item):
        return ""
    return ", ".join(_attribute(x) for x in list(v.op.attributes.values())[:1])


def _has_line(v: Value) -> bool:
    return not _is_inline(v)


def _lines(graph: Graph, names: Mapping[Value, str]) -> Iterator[tuple[str, ...]]:
    """A row for each node that has one, and below it those of the graphs within."""
    for v in graph.nodes:
        if not _has_line(v):
            continue
        yield _line(graph, v, names)
        for body in graphs_within(v.op):
            inner = _names(body, f"{names[v]}:")
            for first, *rest in _lines(dataclasses.replace(body, locations=graph.locations), inner):
                yield f"    {first}", *rest
            yield f"    gives {', '.join(inner[x] for x in body.outputs.values())}", "", "", ""


def _names(graph: Graph, stem: str = "%") -> dict[Value, str]:
    names: dict[Value, str] = {}
    number = 0
    for v in graph.nodes:
        if isinstance(v.op, Input):
            names[v] = v.op.name
        elif isinstance(v.op, Item):
            names[v] = f"{names[v.args[0]]}.{v.op.index}"
        elif _is_inline(v):
            names[v] = inline_text(v)
        else:
            number += 1
            names[v] = f"{stem}{number}"
    return names


def _line(graph: Graph, v: Value, names: Mapping[Value, str]) -> tuple[str, ...]:
    location = graph.locations.location(v)
    scope = location.scope if location else ""
    if graph.name.startswith(scope.partition("/")[0]):
        scope = scope.partition("/")[2]
    text = location.place if location else ""
    return (f"{names[v]} = {expression(v, names)}", f": {v.type}", text, scope)


def expression(v: Value, names: Mapping[Value, str]) -> str:
    """How the node is computed: `gemm(%1, stem.weight, transpose_a=True)`, or mathematics."""
    args = [names[a] for a in v.args]
    operands = [_operand(a, name) for a, name in zip(v.args, args, strict=True)]
    mathematics = v.op.expression(operands)
    if mathematics is not None:
        return mathematics
    return f"{v.op.label}({', '.join([*args, *_attributes(v.op, v.type)])})"


def _operand(v: Value, name: str) -> str:
    """The name as a part of an expression: what is a sum itself, `time - 1`, in parentheses."""
    is_inline = not isinstance(v.op, Input | Item) and _is_inline(v)
    compound = is_inline and any(
        isinstance(x, sp.Expr) and not x.is_Atom for x in list(v.op.attributes.values())[:1]
    )
    return f"({name})" if compound else name


def _attributes(op: Op, result: Any) -> list[str]:
    """The fields worth reading: not those at their default, nor what the result's type says, nor
    texts for people (`repr=False`)."""
    implied = [result.shape, result.dtype] if isinstance(result, Type) else []
    texts = []
    for field in dataclasses.fields(op):
        x = getattr(op, field.name)
        if not field.repr:
            continue
        if isinstance(x, np.ndarray):
            texts.append(_attribute(x))
        elif graphs_within(op) and field.name == "body":
            continue  # it stands below
        elif not any(x is s or (type(x) is type(s) and x == s) for s in (field.default, *implied)):
            texts.append(f"{field.name}={_attribute(x)}")
    return texts


def _attribute(x: Any) -> str:
    if isinstance(x, np.ndarray) and x.ndim:
        text = np.array2string(x, separator=", ", threshold=6, edgeitems=2, max_line_width=10**6)
        return " ".join(text.split())
    if isinstance(x, DType):
        return x.short
    if isinstance(x, tuple):
        return f"({', '.join(map(_attribute, x))}{',' if len(x) == 1 else ''})"
    if isinstance(x, str | Type | sp.Expr | np.ndarray):
        return str(x)
    return getattr(x, "__name__", None) or repr(x)


def _indented(rows: Sequence[tuple[str, str]]) -> list[str]:
    return ["  " + line for line in _columns(rows)]


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows with their cells aligned."""
    count = max(map(len, rows), default=0)
    widths = []
    for i in range(count):
        widest = WIDEST[min(i, len(WIDEST) - 1)]
        widths.append(max((len(row[i]) for row in rows if len(row[i]) <= widest), default=0))
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
