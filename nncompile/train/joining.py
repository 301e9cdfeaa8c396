"""Outputs of a model over several batches, put together as those of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nncompile.diagnostics.errors import ModelError, Row
from nncompile.diagnostics.locations import call_label, recording_locations
from nncompile.ir.dims import Dim, same
from nncompile.ir.graph import Graph, Input, Item
from nncompile.ir.op import Value, described
from nncompile.ir.types import Array, is_real, max_norm
from nncompile.ops.shape.reshape import Reshape
from nncompile.program.rows import (
    Mixed,
    Rowwise,
    axes_of_batch,
    is_of_batch,
    reshaped,
    rows_of,
    sources_of,
)

_ROUNDING = 1e-3  # relative; larger differences do not come from another order of sums
_FEW = 1e-2  # of integers and truth values, those that rounding may decide
_WHOLE = "predict(data, batch_size=...) with all examples in one batch needs no joining"


Probe = Callable[[], tuple[Mapping[str, Array], Sequence[Mapping[str, Array]]]]
"""Computes outputs of some examples, at once and in several parts."""


def joined(
    graph: Graph,
    parts: Sequence[Mapping[str, Array]],
    examples: Dim | None,
    probe: Probe | None = None,
) -> dict[str, Array]:
    """The outputs of `graph` for all batches; `parts` are its outputs for each.

    They are joined along the axis that the batch, a size of `examples`, is the slowest part of:
    `[batch, ...]`, `[time, batch, ...]`, or `[3*batch*time]` where the numbers of an example are
    next to each other. Raises `ModelError` where there is no such axis, where an example influences
    the rows of others (a softmax or a running sum over the batch), or where an output whose sizes
    do not depend on the batch differs from one batch to the next.

    Ops say whether they work row by row (`Op.rowwise`). Where one does not, `probe` shows it.
    """
    if len(parts) == 1:
        return dict(parts[0])
    results: dict[str, Array] = {}
    probed: tuple[Mapping[str, Array], Sequence[Mapping[str, Array]]] | None = None
    for name, value in graph.outputs.items():
        arrays = [part[name] for part in parts]
        if is_of_batch(value, examples):
            axis = _axis(graph, name, value, examples)
            rowwise = Rowwise(examples)
            if not rowwise(value) and probe is not None:
                probed = probed or probe()
                together = np.concatenate([part[name] for part in probed[1]], axis)
                if not _near(probed[0][name], together):
                    raise _dependent(graph, name, value, rowwise.first)
            results[name] = np.concatenate(arrays, axis)
            continue
        for array in arrays[1:]:
            if not _same(arrays[0], array):
                raise ModelError(
                    f"output {name!r} belongs to a whole batch: it has no example axis, "
                    f"and differs from one batch to the next",
                    rows=[(name, str(value.type))],
                    hint=f"{_WHOLE}; evaluate(...) gives a metric of all examples",
                    location=graph.locations.location(value),
                )
        results[name] = arrays[0]
    return results


def _near(a: Array, b: Array) -> bool:
    """Whether the arrays are the same but for rounding, which may change a few choices that
    depend on it, such as an argmax."""
    if a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.mean(a != b) <= _FEW) if a.size else True
    return bool(np.allclose(a, b, _ROUNDING, _ROUNDING * max_norm(a), equal_nan=True))


def _dependent(graph: Graph, name: str, value: Value, first: Value | None) -> ModelError:
    location = graph.locations.location(first) if first is not None else None
    cause = ""
    rows: list[Row] = [(name, str(value.type))]
    if first is not None and not isinstance(first.op, Input):
        source = first.args[0] if isinstance(first.op, Item) else first
        cause = f" by {call_label(location, source.op.label)}"
        with recording_locations(graph.locations):
            rows.append((source.op.label, *described(first)))
    return ModelError(
        f"output {name!r} of several batches cannot be joined: each example influences "
        f"the others in its batch{cause}",
        rows=rows,
        hint=_WHOLE,
        location=location or graph.locations.location(value),
    )


def _same(a: Array, b: Array) -> bool:
    return np.array_equal(a, b, equal_nan=is_real(a.dtype))


def _axis(graph: Graph, name: str, value: Value, examples: Dim | None) -> int:
    try:
        return _batch_axes(value, examples)[value]
    except Mixed as error:
        raise ModelError(
            f"output {name!r} of several batches cannot be joined: {error}",
            rows=[(name, str(value.type))],
            hint=f"{_WHOLE}; or put {examples} first in the output",
            location=graph.locations.location(value),
        ) from None


def _batch_axes(value: Value, examples: Dim | None) -> dict[Value, int]:
    """The axis along which the batch varies slowest, of the value and of what it needs."""
    axes: dict[Value, int] = {}
    waiting = [value]
    while waiting:
        v = waiting[-1]
        if v in axes or _begins(v, examples):
            axes.setdefault(v, 0)
            waiting.pop()
            continue
        sources = [a for a in sources_of(v) if is_of_batch(a, examples)]
        missing = [a for a in sources if a not in axes]
        if missing:
            waiting += missing
            continue
        axes[v] = _batch_axis(v, [(a, axes[a]) for a in sources], examples)
        waiting.pop()
    return axes


def _batch_axis(v: Value, sources: Sequence[tuple[Value, int]], examples: Dim | None) -> int:
    """The axis of the value, from those of what it is computed of."""
    axes = axes_of_batch(v, examples)
    if len(axes) != 1:
        raise Mixed(f"{len(axes)} axes of {v.type} are of the batch")
    (axis,) = axes
    if isinstance(v.op, Reshape):
        (source,) = sources
        return reshaped(v, axis, *source, examples)
    row_axis = rows_of(v, dict(sources))
    if row_axis != axis:
        raise Mixed(f"axis {axis} of {v.type} is not known to be in the order of the batch")
    return axis


def _begins(v: Value, examples: Dim | None) -> bool:
    """Whether the value has a row for each example, and no other axis is of the batch."""
    return axes_of_batch(v, examples) == [0] and same(v.shape[0], examples or 0) is True


__all__ = ["joined"]
