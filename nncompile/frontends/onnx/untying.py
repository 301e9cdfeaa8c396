"""Tensors that an exporter merged because they began equal: scales and shifts of many layers."""

from __future__ import annotations

from collections.abc import Iterator

from nncompile.frontends.onnx.naming import path_of, scope_of, slot_name
from nncompile.frontends.onnx.roles import Stored
from nncompile.ir.names import unused_name


def untied(stored: list[Stored], prefix: str, used: set[str]) -> Iterator[tuple[str, str]]:
    """Makes a parameter for each layer that takes one uniform vector of the file, and says of which
    tensors there are several now. The nodes of the file take the new ones."""
    used = used | {s.path for s in stored}
    for s in list(stored):
        flat = s.array.reshape(-1)
        if s.role == "constant" or s.array.ndim != 1 or flat.size < 2 or (flat != flat[0]).any():
            continue
        direct = [(n, i) for n, i in s.uses if i < len(n.input) and n.input[i] == s.name]
        if len(direct) != len(s.uses) or len({id(n) for n, _ in direct}) < 2:
            continue
        paths = [s.path]
        for k, (node, i) in enumerate(direct[1:], 2):
            copy = Stored(f"{s.name}@{k}", s.array, [(node, i)], s.role, copy_of=s.name)
            scope = scope_of(node)
            wanted = f"{scope}.{slot_name(node, i)}" if scope else path_of(s.name, [])
            copy.path = unused_name(f"{prefix}.{wanted}" if prefix else wanted, used)
            used.add(copy.path)
            node.input[i] = copy.name
            stored.append(copy)
            paths.append(copy.path)
        s.uses = direct[:1]
        yield s.path, f"one vector of the file is {len(paths)} parameters: {', '.join(paths[1:])}"
