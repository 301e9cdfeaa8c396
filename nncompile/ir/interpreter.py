"""What a graph means, in numpy: the check of every backend, and how constants are folded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import CompileError, FeedError, ShapeError
from nncompile.diagnostics.hints import suggests_names
from nncompile.ir.dims import Dim, solve, symbols
from nncompile.ir.graph import Graph, Input, input_of, toposort
from nncompile.ir.op import Value
from nncompile.ir.precision import DOUBLE, computed, in_types
from nncompile.ir.types import (
    Array,
    TupleType,
    check_unmasked,
    component_types,
    dtype_of,
    f64,
    numpy_name,
)

Change = Callable[[Value, Any], Any]
"""What the nodes after a value get, from the value and its array (a tuple of several)."""


@suggests_names
def evaluate(
    outputs: Any,
    feeds: Mapping[str, Any],
    precision: Any = None,
    change: Change | None = None,
) -> Any:
    """The arrays of `outputs` (a graph, a value, or a list or dict of values) where the leaves are
    `feeds`, by name; in the same structure (a dict for a graph).

    Floats of 16 bits are computed with in f32, and each node's results are rounded.
    `precision=np.float64` computes in double what is declared f32, f16 or bf16, and rounds nothing;
    what `change` makes of the array of each value, leaves included, takes its place. Raises
    `FeedError` for a leaf that is missing or has another element type or shape.
    """
    if isinstance(outputs, Graph):
        values = [*outputs.outputs.values(), *_fed_leaves(outputs, feeds)]
        arrays = evaluate(values, feeds, precision, change)
        return dict(zip(outputs.outputs, arrays, strict=False))
    if isinstance(outputs, Value):
        return evaluate([outputs], feeds, precision, change)[0]
    if isinstance(outputs, Mapping):
        arrays = evaluate(list(outputs.values()), feeds, precision, change)
        return dict(zip(outputs, arrays, strict=True))
    double = precision is not None and dtype_of(np.dtype(precision)) is f64
    return _evaluate(list(outputs), feeds, double, change)


def _fed_leaves(graph: Graph, feeds: Mapping[str, Any]) -> list[Value]:
    """The declared leaves that are fed: they determine sizes even where no output needs them."""
    return [v for v in graph.inputs if input_of(v).name in feeds]


def _evaluate(
    outputs: Sequence[Value],
    feeds: Mapping[str, Any],
    double: bool,
    change: Change | None = None,
) -> list[Any]:
    order = toposort(outputs)
    leaves = [v for v in order if isinstance(v.op, Input)]
    fed = {v: _fed(v, feeds, double) for v in leaves}
    sizes = _sizes(leaves, fed)
    if change:  # which may draw random numbers: leaves come first
        order = [*leaves, *(v for v in order if v not in fed)]
    users = Counter(a for v in order for a in v.args)
    users.update(outputs)  # which nothing gives up
    results: dict[Value, Any] = {}
    for v in order:
        if v in fed:
            array = fed.pop(v)
            result = array.astype(np.float64) if double and v.dtype in DOUBLE else array
        else:
            result = _computed(v, results, sizes, double)
            if v.op.makes:
                sizes |= _sizes_made(v, result)
        results[v] = change(v, result) if change else result
        del result
        for a in v.args:  # what no later node takes is given up
            users[a] -= 1
            if not users[a]:
                del results[a]
    return [results[v] for v in outputs]


def _computed(
    v: Value, results: Mapping[Value, Any], sizes: Mapping[sp.Symbol, Dim], double: bool
) -> Any:
    """The result of one node. Raises `FeedError` for a size that the data do not determine."""
    op = v.op.at(sizes) if sizes else v.op
    op = in_types(op, DOUBLE) if double else op
    try:
        with np.errstate(all="ignore"):  # infinities and NaN are values, as in backends
            return computed(op, v.type, *(results[a] for a in v.args))
    except TypeError:
        _check_known(v, sizes)
        raise


def _sizes_made(v: Value, result: Any) -> dict[sp.Symbol, Dim]:
    """The sizes that a node has determined."""
    results = result if isinstance(v.type, TupleType) else (result,)
    types = component_types(v.type)
    return {
        size: array.shape[t.shape.index(size)]
        for size in v.op.makes
        for t, array in zip(types, results, strict=True)
        if size in t.shape
    }


def _check_known(v: Value, sizes: Mapping[sp.Symbol, Dim]) -> None:
    unknown = symbols(d for t in component_types(v.type) for d in t.shape) - sizes.keys()
    if unknown:
        names = ", ".join(sorted(map(str, unknown)))
        raise FeedError(
            f"the size {names} of {v.op.label}, {v.type}, cannot be determined from the data",
            hint="evaluate a Graph whose `inputs` include a leaf of that size, and feed it",
        )


def _fed(leaf: Value, feeds: Mapping[str, Any], double: bool) -> Array:
    name, kind, type_ = input_of(leaf).name, input_of(leaf).kind, leaf.type
    if name not in feeds:
        raise FeedError(f"no data for {kind} {name!r}", rows=[("expected", str(type_))])
    array = np.asarray(feeds[name])
    check_unmasked(feeds[name], f"{kind} {name!r}", FeedError)
    is_double = double and type_.dtype in DOUBLE and array.dtype == np.float64
    if array.dtype != type_.dtype.numpy and not is_double:
        raise FeedError(
            f"{kind} {name!r} has the wrong element type",
            rows=[("expected", str(type_)), ("got", f"{array.dtype}{list(array.shape)}")],
            hint=f"convert it with {name}.astype({numpy_name(type_.dtype.numpy)})",
        )
    if array.ndim != type_.rank:
        raise FeedError(
            f"{kind} {name!r} has rank {array.ndim}, not {type_.rank}",
            rows=[("expected", str(type_)), ("got", f"{array.dtype}{list(array.shape)}")],
        )
    return array


def _sizes(leaves: Sequence[Value], arrays: Mapping[Value, Array]) -> dict[sp.Symbol, Dim]:
    try:
        return dict(solve([v.shape for v in leaves], [arrays[v].shape for v in leaves]))
    except ShapeError as error:
        rows = [(input_of(v).name, str(v.type), f"got {list(arrays[v].shape)}") for v in leaves]
        raise FeedError(f"the data do not fit: {error.problem}", rows=rows) from None


def constant_value(value: Value) -> Array | None:
    """The array of a value that depends on no leaf and no symbolic size; None where it does."""
    order = toposort([value])
    if any(isinstance(v.op, Input) for v in order):
        return None
    try:
        return np.asarray(_evaluate([value], {}, False)[0])
    except (CompileError, TypeError):
        return None
