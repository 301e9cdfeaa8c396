"""Sequences and optionals: what is in them is known while importing."""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile.frontends.onnx.checking import axis_in
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.frontends.onnx.tensors import Tensor
from nncompile.ops import getitem
from nncompile.ops.shape.joining import concatenate, stack
from nncompile.ops.shape.reshape import squeeze

_MOST_PARTS = 4096  # tensors of a sequence


@imports("SequenceEmpty", "SequenceConstruct", raw=True)
def _construct(n: Node, *items: Tensor) -> Any:
    return list(items)


@imports("SequenceAt", "SequenceErase", "SequenceInsert", raw=True)
def _changed(n: Node, sequence: list[Any], *rest: Any) -> Any:
    inserts = n.op == "SequenceInsert"
    places = len(sequence) + inserts
    i = int(n.number(2 if inserts else 1, places - 1))
    if not -len(sequence) <= i < places:
        raise Refused(f"there is no place {i} in a sequence of {len(sequence)}")
    i = i + len(sequence) if i < 0 else i
    if n.op == "SequenceAt":
        return sequence[i]
    if n.op == "SequenceErase":
        return sequence[:i] + sequence[i + 1 :]
    return [*sequence[:i], rest[0], *sequence[i:]]


@imports("SequenceLength", raw=True)
def _length(n: Node, sequence: list[Any]) -> Any:
    return Tensor.of_numbers(np.asarray(len(sequence), np.int64))


@imports("ConcatFromSequence", raw=True)
def _concatenated(n: Node, sequence: list[Any]) -> Any:
    values = [item.value for item in sequence]
    return (stack if n["new_axis"] else concatenate)(values, n["axis"])


@imports("SplitToSequence", raw=True)
def _split(n: Node, x: Tensor, split: Tensor | None = None) -> Any:
    value, axis = x.value, n["axis"]
    size = value.shape[axis]
    if not isinstance(size, int):
        raise Refused("how many parts there are depends on a size")
    if split is None:
        sizes = [1] * min(size, _MOST_PARTS + 1)
    elif split.type.rank == 0:
        each = int(n.number(1))
        if each < 1 or size // each > _MOST_PARTS:
            raise Refused(f"parts of {each} elements, of {size:,}")
        sizes = [each] * (size // each) + ([size % each] if size % each else [])
    else:
        sizes = n.ints(1) or []
    if len(sizes) > _MOST_PARTS:
        raise Refused(f"{len(sizes):,} parts")
    parts, start = [], 0
    for part in sizes:
        keys: list[Any] = [slice(None)] * value.rank
        keys[axis_in(value, axis)] = slice(start, start + part)
        y = getitem(value, tuple(keys))
        parts.append(Tensor.of(squeeze(y, axis) if split is None and not n["keepdims"] else y))
        start += part
    return parts


@imports("SequenceMap", raw=True)
def _mapped(n: Node, sequence: list[Any], *others: Any) -> Any:
    importer, environment = n.context
    body = n["body"]
    rows = []
    for i, item in enumerate(sequence):
        others_now = [x[i] if isinstance(x, list) else x for x in others]
        fed = {f.name: x for f, x in zip(body.input, (item, *others_now), strict=True)}
        rows.append(importer.graph(body, environment, fed, opsets=n.opsets))
    return tuple(list(column) for column in zip(*rows, strict=True))


@imports("Optional", raw=True)
def _optional(n: Node, x: Any = None) -> Any:
    return (x,)


@imports("OptionalHasElement", raw=True)
def _has_element(n: Node, x: Any = None) -> Any:
    return Tensor.of_numbers(np.asarray(x is not None))


@imports("OptionalGetElement", raw=True)
def _element(n: Node, x: Any) -> Any:
    if x is None:
        raise Refused("an optional of nothing")
    return x
