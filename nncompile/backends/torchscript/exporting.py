"""Graphs as `.pt2` files, the format of torch.export."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator, Mapping
from types import MethodType
from typing import Any

import sympy as sp
import torch
from torch.export import Dim

from nncompile.backends.torchscript.eager import EagerModule, function_of, to_eager
from nncompile.backends.torchscript.naming import loadable
from nncompile.backends.torchscript.script import described
from nncompile.diagnostics.errors import BackendError
from nncompile.diagnostics.locations import Location
from nncompile.ir.dims import Dim as Size
from nncompile.ir.dims import substitute, symbols
from nncompile.ir.graph import Graph, input_of
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type
from nncompile.ops.loops.scan import Scan

METADATA = "nncompile.json"
"""The extra file in a `.pt2` file that says what it is."""

# Sizes to trace with, a cycle for the names, different ones where that is possible: of a small
# image pooling leaves one element, which torch takes for a number that never changes; large
# sizes are beyond the tables of positions.
_SIZES = ((24, 40, 36, 28), (8, 12, 16, 10), (5, 3, 7, 4, 6), (64, 96), (2,))


def to_exported(graph: Graph, parameters: Mapping[str, Array]) -> torch.export.ExportedProgram:
    """The graph as an exported program, which takes its inputs by name and returns its outputs by
    name.

    Symbolic sizes stay so: equal names are one `torch.export.Dim`, `4*h` is arithmetic of one.
    Where torch needs more than a name tells (a smallest size, a divisor), it finds the range by
    itself. Raises `BackendError` where no sizes are found that the model can be traced with, and
    where torch would fix a size.
    """
    inputs = graph.of_kind("input")
    if not inputs:
        raise BackendError(f"{graph.name} has no inputs, and torch.export needs one")
    places = _places(graph)
    module = to_eager(graph, parameters, scans=True, places=places)
    module.requires_grad_(False)  # or torch's scan would be traced with its gradients
    # Torch compiles a scan before it runs it, for seconds: sizes are tried with plain loops.
    tried = module
    if "scan(" in module.source["eval"]:
        tried = to_eager(graph, parameters, places=places).requires_grad_(False)
    # torch.export reads the names of the inputs off the function.
    module.forward = MethodType(function_of(module.source["eval"]), module)  # type: ignore[method-assign]  # of this module only
    failure: Exception | None = None
    refused: Exception | None = None
    ways = (_named(inputs), _inferred(inputs))
    for dynamic, examples in zip(ways, itertools.tee(_examples(tried, inputs)), strict=True):
        for example in examples if dynamic is not None else ():
            if isinstance(example, Exception):
                refused = example
                continue
            try:
                return torch.export.export(module, example, dynamic_shapes=dynamic)
            except (ValueError, RuntimeError) as error:
                failure = error
    failure = failure or refused
    reason = " ".join(str(failure).split())[:600]
    raise BackendError(
        f"torch.export cannot export {graph.name}: {reason}",
        rows=[(name, str(leaf.type)) for name, leaf in inputs.items()],
        hint="declare these sizes as numbers, or export to torchscript",
        location=_location_of_loop(graph),
    ) from failure


def exported_to_bytes(graph: Graph, parameters: Mapping[str, Array]) -> bytes:
    """The file of `to_exported`, for `torch.export.load`."""
    buffer = io.BytesIO()
    extra = {METADATA: json.dumps(described(graph, places=_places(graph)))}
    torch.export.save(to_exported(graph, parameters), buffer, extra_files=extra)
    return buffer.getvalue()


def _places(graph: Graph) -> dict[str, str]:
    """Where weights are held that a file cannot have under their own path."""
    weights = (name for name, leaf in graph.leaves.items() if input_of(leaf).kind != "input")
    return loadable(weights, exported=True)


def _location_of_loop(graph: Graph) -> Location | None:
    """The line of the first loop, which is what torch.export can do least with."""
    return next((graph.locations.location(v) for v in graph.nodes if isinstance(v.op, Scan)), None)


def _examples(
    module: EagerModule, inputs: Mapping[str, Value]
) -> Iterator[tuple[torch.Tensor, ...] | Exception]:
    """Inputs that the model accepts: zeros, of several sizes; or the error of those that it does
    not. Each is tried when it is asked for: the first is mostly enough."""
    names = sorted(symbols(size for leaf in inputs.values() for size in leaf.shape), key=str)
    for sizes in _SIZES if names else _SIZES[:1]:
        chosen = dict(zip(names, itertools.cycle(sizes), strict=False))
        try:
            example = tuple(_zeros(leaf.type, chosen) for leaf in inputs.values())
            module(*example)
        except (RuntimeError, ValueError, IndexError) as error:
            yield error
        else:
            yield example


def _zeros(type_: Type, sizes: Mapping[sp.Symbol, Size]) -> torch.Tensor:
    shape = [substitute(size, sizes) for size in type_.shape]
    if not all(isinstance(size, int) and size >= 0 for size in shape):
        raise ValueError(f"the sizes of {type_} are not whole numbers")
    return torch.zeros(shape, dtype=getattr(torch, type_.dtype.name))


def _inferred(inputs: Mapping[str, Value]) -> tuple[tuple[Any, ...], ...]:
    """The sizes as ones of which torch finds out what they can be."""
    return tuple(
        tuple(Dim.STATIC if isinstance(size, int) else Dim.DYNAMIC for size in leaf.shape)
        for leaf in inputs.values()
    )


def _named(inputs: Mapping[str, Value]) -> tuple[tuple[Any, ...], ...] | None:
    """The sizes as torch's, where all of them are a name or linear in one."""
    names = symbols(size for leaf in inputs.values() for size in leaf.shape)
    dims = {name: Dim(str(name)) for name in names if str(name).isidentifier()}

    def each(leaf: Value) -> Iterator[Any]:
        for size in leaf.shape:
            if isinstance(size, int):
                yield Dim.STATIC
                continue
            (name, *others) = size.free_symbols
            factor, rest = size.coeff(name), size.subs(name, 0)
            linear = size.is_polynomial(name) and sp.expand(factor * name + rest - size) == 0
            if others or name not in dims or not linear or not factor.is_Integer:
                raise KeyError(str(size))
            yield dims[name] if size == name else int(factor) * dims[name] + int(rest)

    try:
        return tuple(tuple(each(leaf)) for leaf in inputs.values())
    except KeyError:
        return None
