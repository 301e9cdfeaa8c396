"""Ops that are lowered as what they are composed of."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.graph import Input, toposort
from nncompile.ir.op import Backward, Value, apply
from nncompile.ir.transform import replace


class Composed:
    """A base of ops that are lowered as what `composed` makes of their arguments."""

    def composed(self, *arguments: Any) -> Sequence[Value]:
        """The results as values of the arguments."""
        raise NotImplementedError

    def onnx(self, o: OnnxEmitter, *names: str) -> tuple[str, ...]:
        """The names of the results, each node lowered by its own op."""
        return composed_onnx(o, self.composed, *names)

    def torch(self, t: TorchEmitter, *names: str) -> tuple[str, ...]:
        """The same in TorchScript."""
        return composed_torch(t, self.composed, *names)


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


def composed_pullback(
    backward: Backward,
    function: Callable[..., Sequence[Value]],
    g: Sequence[Value | None],
    y: Value,
) -> list[Value | None]:
    """The gradients at the arguments of `y` from those at its results, by their expression."""
    name = f"composed {y.digest.hex()}"
    leaves = [apply(Input(f"{name}.{i}", a.type)) for i, a in enumerate(y.args)]
    seeds: dict[Value, Value] = {}
    for result, cotangent in zip(function(*leaves), g, strict=True):
        if cotangent is not None:
            seeds[result] = seeds[result] + cotangent if result in seeds else cotangent
    real = [leaf for leaf in leaves if leaf.dtype.is_float]
    gradients = replace(backward(seeds, real), dict(zip(leaves, y.args, strict=True)))
    found = dict(zip(real, gradients, strict=True))
    return [found.get(leaf) for leaf in leaves]


def _key(function: Callable[..., Sequence[Value]], types: Sequence[Any]) -> Any:
    """What tells compositions apart: the code, what it is closed over, and the types."""
    code: Any = function
    contents = [cell.cell_contents for cell in code.__closure__ or ()]
    cells = tuple((type(x), x) for x in contents)
    key = code.__code__, getattr(code, "__self__", None), code.__defaults__, cells, tuple(types)
    try:
        hash(key)
    except TypeError:
        return object()  # which is no other one
    return key


def _composed(
    emitter: Any, method: str, function: Callable[..., Sequence[Value]], names: Sequence[str]
) -> tuple[str, ...]:
    types, type_ = emitter.types, emitter.type
    known, key = emitter.compositions, _key(function, types)
    if key not in known:
        with recording_locations(LocationTable()):
            leaves = [apply(Input(f"{i}", t)) for i, t in enumerate(types)]
            results = function(*leaves)
        known[key] = leaves, results, toposort(results)
    leaves, results, order = known[key]
    lowered: dict[Value, Any] = dict(zip(leaves, names, strict=True))
    for v in order:
        if v not in lowered:
            emitter.types, emitter.type = tuple(a.type for a in v.args), v.type
            lowered[v] = getattr(v.op, method)(emitter, *(lowered[a] for a in v.args))
    emitter.types, emitter.type = types, type_
    return tuple(lowered[v] for v in results)
