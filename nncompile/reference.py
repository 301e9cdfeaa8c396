"""What a graph means, in numpy: the check of every backend, and how constants are folded."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp

from nncompile.dims import Dim, solve, symbols
from nncompile.errors import CompileError, FeedError, ShapeError
from nncompile.graph import Graph, Input, Op, Value, apply, toposort
from nncompile.types import Array, DType, TupleType, Type, check_unmasked, dtype_of, f32, f64

Change = Callable[[Value, Any], Any]
"""What the nodes after a value get, from the value and its array (a tuple of several)."""


def evaluate(
    outputs: Any,
    feeds: Mapping[str, Any],
    precision: Any = None,
    change: Change | None = None,
) -> Any:
    """The arrays of `outputs` (a graph, a value, or a list or dict of values) where the leaves are
    `feeds`, by name; in the same structure (a dict for a graph).

    `precision=np.float64` computes in double what is declared f32; what `change` makes of the
    array of each value, leaves included, takes its place. Raises `FeedError` for a leaf that is
    missing or has another element type or shape.
    """
    if isinstance(outputs, Graph):
        values = [*outputs.outputs.values(), *_given(outputs, feeds)]
        arrays = evaluate(values, feeds, precision, change)
        return dict(zip(outputs.outputs, arrays, strict=False))
    if isinstance(outputs, Value):
        return evaluate([outputs], feeds, precision, change)[0]
    if isinstance(outputs, Mapping):
        arrays = evaluate(list(outputs.values()), feeds, precision, change)
        return dict(zip(outputs, arrays, strict=True))
    double = precision is not None and dtype_of(np.dtype(precision)) is f64
    return _evaluate(list(outputs), feeds, double, change)


def _given(graph: Graph, feeds: Mapping[str, Any]) -> list[Value]:
    """The declared leaves that are fed: they determine sizes even where no output needs them."""
    return [v for v in graph.inputs if v.op.name in feeds]  # type: ignore[attr-defined]


def _evaluate(
    outputs: Sequence[Value],
    feeds: Mapping[str, Any],
    double: bool,
    change: Change | None = None,
) -> list[Any]:
    order = toposort(outputs)
    leaves = [v for v in order if isinstance(v.op, Input)]
    found = {v: _fed(v, feeds, double) for v in leaves}
    sizes = _sizes(leaves, found)
    results: dict[Value, Any] = {v: change(v, x) if change else x for v, x in found.items()}
    for v in order:
        if v not in results:
            op = v.op.at(sizes) if sizes else v.op
            op = _doubled(op) if double else op
            try:
                with np.errstate(all="ignore"):  # infinities and NaN are values, as in backends
                    result = _arrays(op.numpy(*(results[a] for a in v.args)), v)
                    results[v] = change(v, result) if change else result
            except TypeError:
                _check_known(v, sizes)
                raise
    return [results[v] for v in outputs]


def _check_known(v: Value, sizes: Mapping[sp.Symbol, Dim]) -> None:
    types = v.type.items if isinstance(v.type, TupleType) else (v.type,)
    unknown = symbols(d for t in types for d in t.shape) - sizes.keys()
    if unknown:
        names = ", ".join(sorted(map(str, unknown)))
        raise FeedError(
            f"the size {names} of {v.op.label}, {v.type}, cannot be told from the data",
            hint="evaluate a Graph whose `inputs` has a leaf of that size, and feed it",
        )


def _arrays(result: Any, v: Value) -> Any:
    """numpy gives scalars for what has no axes; here everything is an array."""
    if isinstance(result, tuple | list):
        return tuple(np.asarray(x) for x in result)
    return np.asarray(result)


def _fed(leaf: Value, feeds: Mapping[str, Any], double: bool) -> Array:
    name, type_ = leaf.op.name, leaf.type  # type: ignore[attr-defined]
    if name not in feeds:
        raise FeedError(f"no data for {leaf.op.kind} {name!r}", rows=[("expected", str(type_))])  # type: ignore[attr-defined]
    array = np.asarray(feeds[name])
    check_unmasked(feeds[name], f"{leaf.op.kind} {name!r}", FeedError)  # type: ignore[attr-defined]
    is_double = double and type_.dtype is f32 and array.dtype == np.float64
    if array.dtype != type_.dtype.numpy and not is_double:
        raise FeedError(
            f"{leaf.op.kind} {name!r} has another element type",  # type: ignore[attr-defined]
            rows=[("expected", str(type_)), ("got", f"{array.dtype}{list(array.shape)}")],
            hint=f"convert it with {name}.astype(np.{type_.dtype.name})",
        )
    if array.ndim != type_.rank:
        raise FeedError(
            f"{leaf.op.kind} {name!r} has rank {array.ndim}, not {type_.rank}",  # type: ignore[attr-defined]
            rows=[("expected", str(type_)), ("got", f"{array.dtype}{list(array.shape)}")],
        )
    return array.astype(np.float64) if double and type_.dtype is f32 else array


def _sizes(leaves: Sequence[Value], found: Mapping[Value, Array]) -> dict[sp.Symbol, Dim]:
    try:
        return dict(solve([v.shape for v in leaves], [found[v].shape for v in leaves]))
    except ShapeError as error:
        rows = [(v.op.name, str(v.type), f"got {list(found[v].shape)}") for v in leaves]  # type: ignore[attr-defined]
        raise FeedError(f"the data do not fit: {error.message}", rows=rows) from None


def _doubled(op: Op) -> Op:
    """The op with f64 in place of f32 in its fields."""
    op = op.within(_doubled_within)
    changed: dict[str, Any] = {}
    for name, x in op.attributes.items():
        if isinstance(x, DType) and x is f32:
            changed[name] = f64
        elif isinstance(x, Type) and x.dtype is f32:
            changed[name] = Type(f64, x.shape)
        elif isinstance(x, np.ndarray) and x.dtype == np.float32:
            # A number is what its decimal text says, as it is in a formula.
            changed[name] = np.asarray(float(str(x))) if x.ndim == 0 else x.astype(np.float64)
    return dataclasses.replace(op, **changed) if changed else op  # type: ignore[type-var]


def _doubled_within(graph: Graph) -> Graph:
    made: dict[Value, Value] = {}
    for v in toposort((*graph.inputs, *graph.outputs.values())):
        made[v] = apply(_doubled(v.op), *(made[a] for a in v.args))
    outputs = {name: made[v] for name, v in graph.outputs.items()}
    return Graph(graph.name, outputs, tuple(made[v] for v in graph.inputs), graph.trace)


def constant_value(value: Value) -> Array | None:
    """The array of a value that depends on no leaf and no symbolic size; None where it does."""
    order = toposort([value])
    if any(isinstance(v.op, Input) for v in order):
        return None
    try:
        return np.asarray(_evaluate([value], {}, False)[0])
    except (CompileError, TypeError):
        return None
