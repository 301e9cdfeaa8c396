"""Modules of TorchScript: the source of a graph, defined on a module that holds its weights."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import torch

from nncompile.backends.torchscript.lowering import Lowered, lower
from nncompile.errors import BackendError
from nncompile.graph import Graph, Value
from nncompile.types import Array


def source(graph: Graph) -> str:
    """The graph as the source of a TorchScript `forward`.

    Its arguments are the graph's inputs in order, its result a dict of the outputs by name;
    parameters and states are attributes of the module under their paths.
    """
    return lower(graph).source


def to_script(graph: Graph, parameters: Mapping[str, Array]) -> torch.jit.ScriptModule:
    """The graph as a scripted module with `parameters`, and states such as running statistics,
    under their own dotted names.

    `forward` takes the inputs in order and returns the outputs by name. Raises `BackendError` for
    weights that are missing or of another type, a state that is not given (the seed of random
    ops), and names that a module cannot have.
    """
    lowered = lower(graph)
    # A class of its own: torch shares the methods of modules of one class and equal attributes.
    root = type(_class_name(graph), (torch.nn.Module,), {})()
    for name, leaf in graph.leaves.items():
        if leaf.op.kind != "input":  # type: ignore[attr-defined]
            _hold(root, name, _weight(name, leaf, parameters), leaf.op.kind == "parameter")  # type: ignore[attr-defined]
    for name, array in lowered.constants.items():
        _hold(root, name, array, False)
    return _defined(root, lowered)


def to_bytes(graph: Graph, parameters: Mapping[str, Array]) -> bytes:
    """The file of `to_script`, for `torch.jit.load` in Python or C++."""
    buffer = io.BytesIO()
    torch.jit.save(to_script(graph, parameters), buffer)
    return buffer.getvalue()


def _defined(root: torch.nn.Module, lowered: Lowered) -> torch.jit.ScriptModule:
    module = torch.jit.script(root)
    try:
        module.define(lowered.source)
    except RuntimeError as error:
        raise BackendError(f"torch does not accept the generated source: {error}") from error
    return module


def _class_name(graph: Graph) -> str:
    plain = graph.name.isascii() and graph.name.isidentifier()
    return graph.name if plain else "Model"


def _weight(name: str, leaf: Value, parameters: Mapping[str, Array]) -> Array:
    kind = leaf.op.kind  # type: ignore[attr-defined]
    if name not in parameters:
        hint = (
            "the inference pass takes random ops out of a graph"
            if kind == "state"
            else f"the module needs {', '.join(sorted(parameters)) or 'parameters'} and {name}"
        )
        raise BackendError(
            f"no value for {kind} {name!r}", rows=[("expected", str(leaf.type))], hint=hint
        )
    array = np.asarray(parameters[name])
    if array.dtype != leaf.dtype.numpy or array.shape != leaf.shape:
        raise BackendError(
            f"{kind} {name!r} has another type than the model's",
            rows=[("expected", str(leaf.type)), ("got", f"{array.dtype}{list(array.shape)}")],
        )
    return array


def _hold(root: torch.nn.Module, path: str, array: Array, trained: bool) -> None:
    """Puts the array into the module under its dotted path."""
    *parents, last = path.split(".")
    tensor = torch.from_numpy(np.array(array, order="C"))
    module = root
    try:
        for part in parents:
            if part not in module._modules:
                module.add_module(part, torch.nn.Module())
            module = module._modules[part]
        if trained and tensor.is_floating_point():
            module.register_parameter(last, torch.nn.Parameter(tensor))
        else:
            module.register_buffer(last, tensor)
    except KeyError as error:
        raise BackendError(
            f"a module cannot hold {path!r}: {error.args[0]}", hint="give the layer another name"
        ) from None
