"""Outputs of a model over several batches, put together as those of one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import sympy as sp

from nncompile.dims import Dim, product, same, symbols
from nncompile.errors import ModelError
from nncompile.graph import Graph, Input, Item, Value, toposort
from nncompile.map import Map
from nncompile.ops.basic import Expand
from nncompile.ops.shape import Reshape, Transpose
from nncompile.types import Array, TupleType, is_real

_ROUNDING = 1e-3  # relative; what differs more is no rounding of another order of sums
_FEW = 1e-2  # of integers and truth values, those that rounding may decide
_WHOLE = "predict(data, batch=...) with all examples in one batch needs no joining"


class _Mixed(Exception):
    """The rows of an example are not next to each other, or it is not known whether they are."""


Probe = Callable[[], tuple[Mapping[str, Array], Sequence[Mapping[str, Array]]]]
"""Computes outputs of some examples, at once and in several parts."""


def joined(
    graph: Graph,
    parts: Sequence[Mapping[str, Array]],
    examples: Dim | None,
    probe: Probe | None = None,
) -> dict[str, Array]:
    """The outputs of `graph` for all batches, of which `parts` are its outputs for each.

    They are joined along the axis that the batch, a size of `examples`, is the slowest part of:
    `[batch, ...]`, `[time, batch, ...]`, or `[3*batch*time]` where the numbers of an example are
    next to each other. Raises `ModelError` where there is no such axis, where an example has a part
    in the rows of others (a softmax or a running sum over the batch), or where an output whose
    sizes do not depend on the batch differs from one batch to the next.

    Ops say whether rows are apart (`Op.rowwise`). Where one does not, it is seen by `probe`.
    """
    if len(parts) == 1:
        return dict(parts[0])
    found: dict[str, Array] = {}
    probed: tuple[Mapping[str, Array], Sequence[Mapping[str, Array]]] | None = None
    for name, value in graph.outputs.items():
        arrays = [part[name] for part in parts]
        if _depends(value, examples):
            axis = _axis(graph, name, value, examples)
            rowwise = _Rowwise(examples)
            if not rowwise(value) and probe is not None:
                probed = probed or probe()
                together = np.concatenate([part[name] for part in probed[1]], axis)
                if not _near(probed[0][name], together):
                    raise _dependent(graph, name, value, rowwise.first)
            found[name] = np.concatenate(arrays, axis)
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


def _near(a: Array, b: Array) -> bool:
    """Whether the arrays are the same but for rounding, which may change a few of what is chosen
    by it, as the places of the greatest."""
    if a.shape != b.shape:
        return False
    if a.dtype.kind != "f":
        return bool(np.mean(a != b) <= _FEW) if a.size else True
    with np.errstate(invalid="ignore"):
        scale = float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0))
    return bool(np.allclose(a, b, _ROUNDING, _ROUNDING * scale, equal_nan=True))


def _dependent(graph: Graph, name: str, value: Value, first: Value | None) -> ModelError:
    site = graph.trace.site(first) if first is not None else None
    by = ""
    if first is not None and not isinstance(first.op, Input):
        by = f" by {(first.args[0] if isinstance(first.op, Item) else first).op.label}"
    return ModelError(
        f"output {name!r} of several batches cannot be put together: each example has a part in "
        f"the others of its batch{by}",
        rows=[(name, str(value.type))],
        hint=f"{_WHOLE}, and is of all of them",
        site=site or graph.trace.site(value),
    )


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
    found = _rows_of(v, dict(sources))
    if found != axis:
        raise _Mixed(f"axis {axis} of {v.type} is not known to be in the order of the batch")
    return axis


def _rows_of(v: Value, places: Mapping[Value, int]) -> int | None:
    """The axis along which the op computes row by row; see `Op.rowwise`."""
    source = v.args[0] if isinstance(v.op, Item) else v
    if any(isinstance(a.type, TupleType) for a in source.args):
        return None
    return source.op.rowwise([places.get(a) for a in source.args], *(a.type for a in source.args))


class _Rowwise:
    """Which values have rows that no other example of the batch has a part in."""

    def __init__(self, examples: Dim | None) -> None:
        self.examples = examples
        self.places: dict[Value, int] = {}
        self.alike: set[Value] = set()  # which are the same for all batches
        self.first: Value | None = None  # at which it is not so, or not known

    def __call__(self, value: Value) -> bool:
        """Whether it is known of the value, with its rows along an axis."""
        for v in toposort([value]):
            known = v in self.places or v in self.alike or self._enter(v)
            if not known and (self.first is None or not self.first.args):
                self.first = v  # an op rather than a size beside it
        return value in self.places

    def _enter(self, v: Value) -> bool:
        if isinstance(v.type, TupleType):
            return True  # its items are looked at
        sources = _sources(v)
        symbols_ = symbols([self.examples or 0])
        if isinstance(v.op, Input) or not sources:
            return self._leaf(v, symbols_)
        if all(a in self.alike for a in sources):
            if not _depends(v, self.examples) and not symbols_ & _op_symbols(v):
                self.alike.add(v)
                return True
            axes = _concerned(v, self.examples)
            if (
                isinstance(v.op, Expand)
                and len(axes) == 1
                and not _depends(sources[0], self.examples)
            ):
                self.places[v] = axes[0]
                return True
            return False
        if any(a not in self.places and a not in self.alike for a in sources):
            return True  # what it is made of is told
        known = {a: self.places[a] for a in sources if a in self.places}
        if isinstance(v.op, Reshape):
            axes = _concerned(v, self.examples)
            try:
                axis = _reshaped(v, axes[0], *next(iter(known.items())), self.examples)
            except (_Mixed, IndexError):
                return False
            if len(axes) == 1:
                self.places[v] = axis
            return len(axes) == 1
        found = _rows_of(v, known)
        if found is not None:
            self.places[v] = found
        return found is not None

    def _leaf(self, v: Value, names: set[sp.Symbol]) -> bool:
        axes = _concerned(v, self.examples)
        if isinstance(v.op, Input) and axes:
            if len(axes) == 1:
                self.places[v] = axes[0]
            return len(axes) == 1
        if names & _op_symbols(v):  # how many examples there are, and which of them it is
            return False
        self.alike.add(v)
        return True


def _op_symbols(v: Value) -> set[sp.Symbol]:
    if isinstance(v.op, Input | Map):
        return set()
    sizes = (d for x in v.op.attributes.values() for d in (x if isinstance(x, tuple) else (x,)))
    return symbols(d for d in sizes if isinstance(d, sp.Expr))


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
