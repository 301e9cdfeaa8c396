"""Element types that stand in for others: floats of 16 bits are computed with in float32, and a
reference computes all floats in float64.

An op takes floats of 16 bits as they are where it only moves them (`Op.moves`). Every other one is
given them as float32, and its results are rounded once, to the types that were inferred: so it is
in numpy, in ONNX and in TorchScript, and an op needs to know nothing of it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompile.ir.graph import Graph
from nncompile.ir.op import Op, Value, apply
from nncompile.ir.transform import transformed
from nncompile.ir.types import (
    AnyType,
    DType,
    TupleType,
    Type,
    bf16,
    f16,
    f32,
    f64,
    is_real,
)

Change = Mapping[DType, DType]
SINGLE: Change = {f16: f32, bf16: f32}
DOUBLE: Change = {f16: f64, bf16: f64, f32: f64}


def in_types(op: Op, change: Change, formulas: bool = True) -> Op:
    """The op with other element types in its fields, and in those of the graphs within it; in what
    formulas convert to, too, unless that is a rounding which is to stay."""
    op = op.within(lambda graph: graph_in_types(graph, change, formulas))
    op = op.converting_to(change) if formulas else op
    changed: dict[str, Any] = {}
    for name, x in op.attributes.items():
        if isinstance(x, DType) and x in change:
            changed[name] = change[x]
        elif isinstance(x, Type) and x.dtype in change:
            changed[name] = type_in(x, change)
        elif isinstance(x, np.ndarray) and is_real(x.dtype):
            target = next((t.numpy for d, t in change.items() if d.numpy == x.dtype), x.dtype)
            if target != x.dtype:
                # A number is what its decimal text says, as it is in a formula.
                exact = x.ndim == 0 and target == np.float64
                changed[name] = np.asarray(float(str(x))) if exact else x.astype(target)
    return dataclasses.replace(op, **changed) if changed else op


def graph_in_types(graph: Graph, change: Change, formulas: bool = True) -> Graph:
    """The graph with other element types, in its leaves, too."""

    def make(v: Value, args: list[Value]) -> Value:
        return apply(in_types(v.op, change, formulas), *args)

    new = transformed((*graph.inputs, *graph.outputs.values()), make)
    count = len(graph.inputs)
    outputs = dict(zip(graph.outputs, new[count:], strict=True))
    return Graph(graph.name, outputs, tuple(new[:count]), graph.locations)


def type_in(type_: Any, change: Change) -> Any:
    """The type, or those of several results, with another element type."""
    if isinstance(type_, TupleType):
        return TupleType(tuple(type_in(t, change) for t in type_.items))
    return Type(change.get(type_.dtype, type_.dtype), type_.shape)


@dataclasses.dataclass(frozen=True)
class Widened:
    """An op in float32, with the types of its arguments and of its result."""

    op: Op
    types: tuple[Any, ...]
    type: AnyType


def widened(value: Value) -> Widened | None:
    """How a node is computed whose floats are of 16 bits; None for all others."""
    if value.op.moves or not (_is_half(value.type) or any(_is_half(a.type) for a in value.args)):
        return None
    types = tuple(type_in(a.type, SINGLE) for a in value.args)
    return Widened(in_types(value.op, SINGLE, formulas=False), types, type_in(value.type, SINGLE))


def _is_half(type_: AnyType) -> bool:
    if isinstance(type_, Type):
        return type_.dtype.is_half
    return any(t.dtype.is_half for t in type_.items)


def computed(op: Op, type_: AnyType, *arrays: Any) -> Any:
    """What `op.numpy` makes of arrays, where the result is of that type: an array, or a tuple of
    several."""
    halves = [_half(x) for x in arrays]
    if op.moves or not (any(halves) or _is_half(type_)):
        return _arrays(op.numpy(*arrays))
    wide = in_types(op, SINGLE, formulas=False)
    single = (x.astype(np.float32) if half else x for x, half in zip(arrays, halves, strict=True))
    results = _arrays(wide.numpy(*single))
    if isinstance(results, tuple):
        assert isinstance(type_, TupleType)
        return tuple(map(_rounded, results, type_.items))
    return _rounded(results, type_)


def _half(x: Any) -> bool:
    return isinstance(x, np.ndarray) and any(x.dtype == d.numpy for d in SINGLE)


def _rounded(x: np.ndarray, type_: Any) -> np.ndarray:
    is_single = type_.dtype.is_half and x.dtype == np.float32
    with np.errstate(over="ignore"):
        return x.astype(type_.dtype.numpy) if is_single else x


def _arrays(result: Any) -> Any:
    """numpy gives scalars for what has no axes; here everything is an array."""
    if isinstance(result, tuple | list):
        return tuple(np.asarray(x) for x in result)
    return np.asarray(result)
