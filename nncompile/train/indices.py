"""Inputs that are indices: labels, tokens. What they may hold is known from what they index."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nncompile.errors import FeedError
from nncompile.graph import Graph, Input, Op, Value
from nncompile.ops.basic import Cast, Expand
from nncompile.ops.index import Gather, ScatterAdd, TakeAlongAxis
from nncompile.ops.shape import Reshape, Transpose
from nncompile.types import Array

_INDEXED = (Gather, TakeAlongAxis, ScatterAdd)  # their second argument is places in the first
_MOVED: tuple[type[Op], ...] = (Cast, Expand, Reshape, Transpose)  # which keep the numbers


def index_sizes(graph: Graph) -> dict[str, int]:
    """Of each integer input whose numbers are used as places as they are, the least size of what
    they index, where it is known."""
    sizes: dict[str, int] = {}
    for v in graph.nodes:
        if not isinstance(v.op, _INDEXED):
            continue
        size, source = v.args[0].shape[v.op.axis], _source(v.args[1])
        if isinstance(size, int) and isinstance(source.op, Input):
            name = source.op.name
            sizes[name] = min(size, sizes.get(name, size))
    return sizes


def _source(v: Value) -> Value:
    while isinstance(v.op, _MOVED):
        v = v.args[0]
    return v


def check_indices(name: str, array: Array, sizes: Mapping[str, int]) -> None:
    """Raises `FeedError` where the array holds what is no place in what it indexes.

    Negative numbers are none either: in a label they mark what has no class, and onnxruntime would
    count them from the end.
    """
    size = sizes.get(name)
    if size is None or array.size == 0 or (array.min() >= 0 and array.max() < size):
        return
    wrong = (array < 0) | (array >= size)
    place = np.argwhere(wrong)[0]
    example = array[tuple(place)]
    raise FeedError(
        f"input {name!r} holds {example}, its numbers are places from 0 to {size - 1}",
        rows=[
            ("first at", f"{name}[{', '.join(map(str, place))}]"),
            ("in all", f"{wrong.sum():,} of {array.size:,}"),
        ],
        hint="labels and tokens are counted from 0; cross_entropy(…, ignore_index=-1) leaves "
        "examples out"
        if example < 0
        else "labels and tokens are counted from 0",
    )
