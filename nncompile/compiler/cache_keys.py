"""What tells compilations apart: the graph, how it is compiled, and with which versions of what."""

from __future__ import annotations

import functools
import hashlib
import json
import platform
from collections.abc import Collection, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import sympy as sp

from nncompile.diagnostics.locations import LocationTable
from nncompile.diagnostics.version import VERSION
from nncompile.ir.graph import Graph, graphs_within
from nncompile.ir.op import Op
from nncompile.runtime.session import RUNTIME_VERSION

# The rooms between a graph and its file: what stands above them is in the graph itself.
_ROOMS = (
    *("diagnostics", "ir", "elementwise", "ops", "passes", "optim", "autodiff", "program"),
    *("backends", "runtime", "compiler"),
)
_PACKAGE = Path(__file__).parent.parent
_OURS = frozenset({"nncompile", "dsl"})


def key_of(graph: Graph, options: Mapping[str, Any]) -> str | None:
    """The key under which what is compiled of a graph is kept; `options` are what else it depends
    on, as JSON has it. None where that is not known: with ops of a user's own, whose lowering may
    be any."""
    if not _is_known():
        return None
    state = hashlib.blake2b(digest_size=32)
    state.update(json.dumps([*_surroundings(), options], sort_keys=True, default=str).encode())
    classes: set[type] = set()
    _add_graph(state, graph, graph.locations, classes)
    return state.hexdigest() if all(map(_is_ours, classes)) else None


def _add_graph(state: Any, graph: Graph, locations: LocationTable, classes: set[type]) -> None:
    """Adds nodes and names of a graph, and where the nodes were written, which its file says."""
    places: dict[Any, int] = {}
    for v in (*graph.nodes, *graph.inputs):
        if v in places:
            continue
        places[v] = len(places)
        classes.add(type(v.op))
        location = locations.location(v)
        source = location and (location.place, location.scope, location.backward)
        arguments = [places[a] for a in v.args]
        state.update(v.op.digest + repr((arguments, source)).encode())
        for inner in graphs_within(v.op):
            _add_graph(state, inner, locations, classes)
    outputs = [(name, places[v]) for name, v in graph.outputs.items()]
    inputs = [places[v] for v in graph.inputs]
    state.update(repr((graph.name, graph.doc, outputs, inputs)).encode())


def _is_ours(thing: Any) -> bool:
    return str(thing.__module__).partition(".")[0] in _OURS


def _is_known() -> bool:
    """Whether our ops are lowered as our files say, and not by what took the place of that."""
    ours: Collection[type[Op]] = [op for op in Op.registry.values() if _is_ours(op)]
    return all(_is_ours(op.onnx) for op in ours)


@functools.cache
def _surroundings() -> list[str]:
    """The versions of all that takes part: of this package, the content of its files."""
    return [
        VERSION,
        _fingerprint(),
        platform.python_version(),
        platform.machine(),
        f"onnx {_version_of('onnx')}",
        f"onnxruntime {RUNTIME_VERSION}",
        f"numpy {np.__version__}",
        f"sympy {sp.__version__}",
    ]


def _version_of(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # without what an installation says of itself
        return "unknown"


def _fingerprint() -> str:
    """A digest of the source files, where there are any: two trees of one version may differ."""
    state = hashlib.blake2b(digest_size=16)
    for room in _ROOMS:
        for file in sorted((_PACKAGE / room).rglob("*.py")):
            state.update(str(file.relative_to(_PACKAGE)).encode() + b"\0" + file.read_bytes())
    return state.hexdigest()
