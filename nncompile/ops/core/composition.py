"""Ops that are lowered as what they are composed of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.graph import Input, toposort
from nncompile.ir.op import Value, apply


def composed_onnx(
    o: OnnxEmitter, function: Callable[..., Sequence[Value]], *names: str
) -> tuple[str, ...]:
    """The names of the results that `function` makes of values of the types of the node that is
    being lowered: each node of the expression is lowered by its own op, so that what the
    gradient computes from the same arguments is shared."""
    return _composed(o, "onnx", function, names)


def composed_torch(
    t: TorchEmitter, function: Callable[..., Sequence[Value]], *names: str
) -> tuple[str, ...]:
    """The same in TorchScript."""
    return _composed(t, "torch", function, names)


def _composed(
    emitter: Any, method: str, function: Callable[..., Sequence[Value]], names: Sequence[str]
) -> tuple[str, ...]:
    types, type_ = emitter.types, emitter.type
    with recording_locations(LocationTable()):
        leaves = [apply(Input(f"{i}", t)) for i, t in enumerate(types)]
        results = function(*leaves)
    lowered: dict[Value, Any] = dict(zip(leaves, names, strict=True))
    for v in toposort(results):
        if v not in lowered:
            emitter.types, emitter.type = tuple(a.type for a in v.args), v.type
            lowered[v] = getattr(v.op, method)(emitter, *(lowered[a] for a in v.args))
    emitter.types, emitter.type = types, type_
    return tuple(lowered[v] for v in results)
