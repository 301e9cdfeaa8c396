"""Outputs of a model over several batches, put together as those of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import sympy as sp

from nncompile.dims import Dim, product, same, symbols
from nncompile.errors import ModelError
from nncompile.graph import Graph, Input, Item, Value
from nncompile.ops.shape import Reshape, Transpose
from nncompile.ops.slicing import Slice
from nncompile.types import Array, TupleType, is_real

_WHOLE = "predict(data, batch=...) with all examples in one batch needs no joining"


class _Mixed(Exception):
    """The rows of an example are not next to each other, or it is not known whether they are."""


def joined(
    graph: Graph, parts: Sequence[Mapping[str, Array]], examples: Dim | None
) -> dict[str, Array]:
    """The outputs of `graph` for all batches, of which `parts` are its outputs for each.

    They are joined along the axis that the batch, a size of `examples`, is the slowest part of:
    `[batch, ...]`, `[time, batch, ...]`, or `[3*batch*time]` where the numbers of an example are
    next to each other. Raises `ModelError` where there is no such axis, or where an output whose
    sizes do not depend on the batch differs from one batch to the next.
    """
    if len(parts) == 1:
        return dict(parts[0])
    found: dict[str, Array] = {}
    for name, value in graph.outputs.items():
        arrays = [part[name] for part in parts]
        if _depends(value, examples):
            found[name] = np.concatenate(arrays, _axis(graph, name, value, examples))
            continue
        for array in arrays[1:]:
            if not _same(arrays[0], array):
                raise ModelError(
                    f"output {name!r} is of each batch: it has no axis of the examples, "
                    f"and differs from one batch to the next",
                    rows=[(name, str(value.type))],
                    hint=f"{_WHOLE}; evaluate(...) gives a metric of all examples",
                    site=graph.trace.site(value),
                )
        found[name] = arrays[0]
    return found


def _same(a: Array, b: Array) -> bool:
    return np.array_equal(a, b, equal_nan=is_real(a.dtype))


def _axis(graph: Graph, name: str, value: Value, examples: Dim | None) -> int:
    try:
        return _places(value, examples)[value]
    except _Mixed as error:
        raise ModelError(
            f"output {name!r} of several batches cannot be put together: {error}",
            rows=[(name, str(value.type))],
            hint=f"{_WHOLE}; or let the output begin with {examples}",
            site=graph.trace.site(value),
        ) from None


def _places(value: Value, examples: Dim | None) -> dict[Value, int]:
    """Of the value, and of what it needs, the axis of which the batch is the slowest part."""
    places: dict[Value, int] = {}
    waiting = [value]
    while waiting:
        v = waiting[-1]
        if v in places or _begins(v, examples):
            places.setdefault(v, 0)
            waiting.pop()
            continue
        sources = [a for a in _sources(v) if _depends(a, examples)]
        missing = [a for a in sources if a not in places]
        if missing:
            waiting += missing
            continue
        places[v] = _place(v, [(a, places[a]) for a in sources], examples)
        waiting.pop()
    return places


def _sources(v: Value) -> list[Value]:
    """The tensors that the value is computed from: of a result of several, those of the op."""
    args = v.args[0].args if isinstance(v.op, Item) else v.args
    flat = []
    for a in args:
        flat += _sources(a) if isinstance(a.type, TupleType) else [a]
    return flat


def _place(v: Value, sources: Sequence[tuple[Value, int]], examples: Dim | None) -> int:
    """The axis of the value, from those of what it is computed of."""
    axes = _concerned(v, examples)
    if len(axes) != 1:
        raise _Mixed(f"{len(axes)} axes of {v.type} are of the batch")
    (axis,) = axes
    if isinstance(v.op, Transpose):
        (source,) = sources
        return v.op.axes.index(source[1])
    if isinstance(v.op, Reshape):
        (source,) = sources
        return _reshaped(v, axis, *source, examples)
    # All other ops keep the order along an axis that they keep, and do not work along.
    kept = all(same(a.shape[place], v.shape[axis]) is True for a, place in sources)
    if isinstance(v.op, Input) or not kept or _works_along(v, dict(sources)):
        raise _Mixed(f"axis {axis} of {v.type} is not known to be in the order of the batch")
    return axis


def _works_along(v: Value, places: Mapping[Value, int]) -> bool:
    """Whether the op takes the numbers along the axis of the batch in another order, or adds them
    up."""
    op = v.args[0].op if isinstance(v.op, Item) else v.op
    place = next((places[a] for a in _sources(v)[:1] if a in places), None)
    if place is None:  # a table, of which the others are places
        return False
    if isinstance(op, Slice):
        return (op.starts[place], op.steps[place]) != (0, 1)
    return place in (getattr(op, "axis", None), *getattr(op, "axes", ()))


def _reshaped(v: Value, axis: int, source: Value, place: int, examples: Dim | None) -> int:
    outside = same(product(v.shape[:axis]), product(source.shape[:place]))
    each = sp.cancel(sp.sympify(v.shape[axis]) / sp.sympify(examples))
    if outside is not True or symbols([examples or 0]) & each.free_symbols:
        raise _Mixed(
            f"{source.type} as {v.type} mixes the numbers of an example with those of others"
        )
    return axis


def _begins(v: Value, examples: Dim | None) -> bool:
    """Whether the value has a row for each example, and no other axis is of the batch."""
    return _concerned(v, examples) == [0] and same(v.shape[0], examples or 0) is True


def _concerned(v: Value, examples: Dim | None) -> list[int]:
    """The axes whose sizes depend on the batch."""
    names = symbols([examples or 0])
    return [i for i, size in enumerate(v.shape) if symbols([size]) & names]


def _depends(v: Value, examples: Dim | None) -> bool:
    return bool(_concerned(v, examples))


__all__ = ["joined"]
