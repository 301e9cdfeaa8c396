"""Nodes that nobody needs, and those that compute the same."""

from __future__ import annotations

import math

from nncompile.frontends.onnx.simplify.folding import RANDOM
from nncompile.frontends.onnx.simplify.work import Work

_FEW = 64  # numbers of a constant


def dead(work: Work) -> None:
    """Removes nodes and constants whose results nobody takes."""
    for item in reversed(work.live()):
        if not any(work.uses(name) for name in item.outputs):
            work.remove(item)
    for name in [n for n in work.tensors if not work.uses(n) and n not in work.overridable]:
        del work.tensors[name]


def common(work: Work) -> None:
    """Makes one node of those that compute the same, and one of equal constants of few numbers."""
    _constants(work)
    first: dict[tuple[object, ...], list[str]] = {}
    for item in work.live():
        if item.op in RANDOM or item.captured:
            continue
        attributes = sorted(a.SerializeToString(deterministic=True) for a in item.proto.attribute)
        key = item.op, *attributes, *item.inputs, "", len(item.proto.output)
        outputs = list(item.proto.output)
        if first.setdefault(key, outputs) is outputs:
            continue
        for name, other in zip(outputs, first[key], strict=True):
            if name and other and work.uses(name):
                work.replace(name, other)


def _constants(work: Work) -> None:
    """Weights stay, so that each has its own name."""
    first: dict[tuple[object, ...], str] = {}
    for name in list(work.tensors):
        if not work.is_constant(name) or name in work.results:
            continue
        tensor = work.tensors[name]
        array = work.constant(name) if math.prod(tensor.dims) <= _FEW else None
        if array is None or (array.dtype.kind == "f" and array.size > 1) or not work.uses(name):
            continue
        key = tensor.data_type, array.shape, array.tobytes()
        if first.setdefault(key, name) != name:
            work.replace(name, first[key])
