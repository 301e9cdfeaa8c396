"""Tensors that an exporter merged because they began equal: scales and shifts of many layers, and
the statistics of batch normalizations that were never trained."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import onnx

from nncompile.frontends.onnx.naming import is_made_up, path_of, scope_of, slot_name
from nncompile.frontends.onnx.roles import Stored, Use, are_statistics, reached
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
        layers, uses = _apart(s, by)
        paths = [s.path]
        for k, layer in enumerate(layers[1:], 2):
            own = _all(uses, layer)
            role = "state" if are_statistics(own) else s.role
            copy = Stored(f"{s.name}@{k}", s.array, own, role, copy_of=s.name, users=layer)
            wanted = _wanted(s, layer[0], own)
            copy.path = unused_name(f"{prefix}.{wanted}" if prefix else wanted, used, "_")
            used.add(copy.path)
            for node, i in layer:
                node.input[i] = copy.name
            stored.append(copy)
            paths.append(copy.path)
        if len(paths) > 1:
            s.uses, s.takers = _all(uses, layers[0]), []
            s.role = "state" if are_statistics(s.uses) else s.role
            text = f"one vector of the file is {len(paths)} parameters: {', '.join(paths[1:])}"
            yield s.path, text


_Reached = Mapping[tuple[int, int], list[Use]]  # of each use, by the id of its node and its input


def _apart(s: Stored, by: Mapping[str, list[Use]]) -> tuple[list[list[Use]], _Reached]:
    """The nodes that take a uniform vector, layer by layer, and the operators that each of them
    brings it to. None where it is something else, or is a result or arranged."""
    flat = s.array.reshape(-1)
    takers = [*_directly(s), *_renamed(s)]
    is_uniform = s.array.ndim == 1 and flat.size > 1 and bool((flat == flat[0]).all())
    if s.role == "constant" or not is_uniform or len(takers) != len(s.takers):
        return [], {}
    uses = {(id(node), i): _uses((node, i), by) for node, i in takers}
    return (_layers(s, takers, uses) if all(uses.values()) else []), uses


def _layers(s: Stored, takers: Sequence[Use], uses: _Reached) -> list[list[Use]]:
    """The nodes that take a tensor, those of one layer together, but for its statistics: first
    those of the layer that the tensor is named after, if it has any. A layer that is called again,
    torch's older exporter calls by its name and a number."""
    layers: dict[object, list[Use]] = {}
    own = s.name.rpartition(".")[0]
    for node, i in takers:
        scope = scope_of(node) if node.op_type != "Identity" else ""
        if own and own in (scope, re.sub(r"_\d+$", "", scope)):
            scope = own
        key = scope or id(node), are_statistics(uses[id(node), i])
        layers.setdefault(key, []).append((node, i))
    return sorted(layers.values(), key=lambda layer: layer is not layers.get((own, False)))


def _all(uses: _Reached, layer: Sequence[Use]) -> list[Use]:
    return [use for node, i in layer for use in uses[id(node), i]]


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
