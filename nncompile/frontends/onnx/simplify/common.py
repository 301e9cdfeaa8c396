"""Nodes that nobody needs, and those that compute the same."""

from __future__ import annotations

import math

import numpy as np

from nncompile.frontends.onnx.simplify.folding import RANDOM
from nncompile.frontends.onnx.simplify.work import Item, Work

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
    first: dict[tuple[object, ...], list[Item]] = {}
    for item in work.live():
        if item.op in RANDOM or item.captured:
            continue
        attributes = sorted(a.SerializeToString(deterministic=True) for a in item.proto.attribute)
        inputs = (_kind(work, name) for name in item.inputs)
        key = item.op, *attributes, *inputs, "", len(item.proto.output)
        alike = first.setdefault(key, [])
        same = next((other for other in alike if _take_the_same(work, item, other)), None)
        if same is None:
            alike.append(item)
            continue
        for name, other in zip(item.proto.output, same.proto.output, strict=True):
            if name and other and work.uses(name):
                work.replace(name, other)


def _kind(work: Work, name: str) -> object:
    """What is the same of inputs that are the same: for constants, type and shape."""
    if not work.is_constant(name):
        return name
    tensor = work.tensors[name]
    return tensor.data_type, *tensor.dims


def _take_the_same(work: Work, item: Item, other: Item) -> bool:
    return all(a == b or _equal(work, a, b) for a, b in zip(item.inputs, other.inputs, strict=True))


def _equal(work: Work, a: str, b: str) -> bool:
    """Whether two constants, of one type and shape, are of the same bits."""
    x, y = work.constant(a), work.constant(b)
    if x is None or y is None:
        return False
    bits = f"V{x.dtype.itemsize}"  # so that -0 is not 0, and NaN is NaN
    return bool((np.atleast_1d(x).view(bits) == np.atleast_1d(y).view(bits)).all())


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
