"""Tensors that an exporter merged because they began equal: scales and shifts of many layers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import onnx

from nncompile.frontends.onnx.naming import is_made_up, path_of, scope_of, slot_name
from nncompile.frontends.onnx.roles import Stored, Use, reached
from nncompile.ir.names import unused_name


def untied(
    stored: list[Stored], by: Mapping[str, list[Use]], prefix: str, used: set[str]
) -> Iterator[tuple[str, str]]:
    """Makes a parameter for each layer that takes one uniform vector of the file, and says of which
    tensors there are several now. The nodes of the file take the new ones. What a node takes by way
    of an `Identity` has the name of that one's result: torch's older exporter writes the tensors so
    that it merged."""
    used = used | {s.path for s in stored}
    for s in list(stored):
        flat = s.array.reshape(-1)
        if s.role == "constant" or s.array.ndim != 1 or flat.size < 2 or (flat != flat[0]).any():
            continue
        takers = [*_directly(s), *_renamed(s)]
        if len(takers) != len(s.takers) or len({id(n) for n, _ in takers}) < 2:
            continue
        uses = [_uses(taker, by) for taker in takers]
        if not all(uses):  # of an identity that is a result, or is not taken
            continue
        paths = [s.path]
        for k, taker in enumerate(takers[1:], 1):
            node, i = taker
            copy = Stored(f"{s.name}@{k + 1}", s.array, uses[k], s.role)
            copy.copy_of, copy.user = s.name, taker
            wanted = _wanted(s, taker, uses[k])
            copy.path = unused_name(f"{prefix}.{wanted}" if prefix else wanted, used, "_")
            used.add(copy.path)
            node.input[i] = copy.name
            stored.append(copy)
            paths.append(copy.path)
        s.uses, s.takers = uses[0], []
        yield s.path, f"one vector of the file is {len(paths)} parameters: {', '.join(paths[1:])}"


def _directly(s: Stored) -> list[Use]:
    """The operators that take a tensor as it is."""
    final = {(id(n), i) for n, i in s.uses}
    return [(n, i) for n, i in s.takers if (id(n), i) in final and _takes(n, i, s.name)]


def _renamed(s: Stored) -> list[Use]:
    return [(n, i) for n, i in s.takers if n.op_type == "Identity" and _takes(n, i, s.name)]


def _takes(node: onnx.NodeProto, i: int, name: str) -> bool:
    return i < len(node.input) and node.input[i] == name


def _uses(taker: Use, by: Mapping[str, list[Use]]) -> list[Use]:
    node, _ = taker
    return reached(node.output[0], by) if node.op_type == "Identity" else [taker]


def _wanted(s: Stored, taker: Use, uses: Sequence[Use]) -> str:
    node, i = taker
    if node.op_type == "Identity" and not is_made_up(node.output[0]):
        return path_of(node.output[0], uses)
    node, i = uses[0]
    scope = scope_of(node)
    return f"{scope}.{slot_name(node, i)}" if scope else path_of(s.name, [])
