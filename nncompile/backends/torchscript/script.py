"""Modules of TorchScript: the source of a graph, defined on a module that holds its weights."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from nncompile.backends.torchscript.arrays import tensor_of

# Where a method is defined, torch looks up the names of functions that it calls.
from nncompile.backends.torchscript.functions import (
    convolution_weight_gradient,  # noqa: F401
    convolution_weight_gradient_of_few,  # noqa: F401
)
from nncompile.backends.torchscript.lowering import Check, attribute_text, lower
from nncompile.backends.torchscript.naming import loadable
from nncompile.backends.torchscript.writing import Names
from nncompile.diagnostics.errors import BackendError
from nncompile.ir.graph import Graph, input_of
from nncompile.ir.op import Value
from nncompile.ir.types import Array

FIRST_WITHOUT = (3, 14)
"""The first Python that TorchScript does not support."""


class _Root(torch.nn.Module):
    """What holds the weights until it is scripted."""

    def __init__(self) -> None:  # short: torch parses it again for every module that is scripted
        super().__init__()


def _root(name: str) -> torch.nn.Module:
    """A module of a class of its own: torch shares the methods of modules of one class and equal
    attributes."""
    root: torch.nn.Module = type(name, (_Root,), {})()
    return root


def source(graph: Graph) -> str:
    """The graph as the source of a TorchScript `forward`.

    Its arguments are the graph's inputs in order, its result a dict of the outputs by name;
    parameters and states are attributes of the module under their paths.
    """
    return lower(graph).source


def to_script(
    graph: Graph,
    parameters: Mapping[str, Array],
    checked: Check = Check.NOTHING,
    places: Mapping[str, str] | None = None,
) -> torch.jit.ScriptModule:
    """The graph as a scripted module with `parameters`, and states such as running statistics,
    under their own dotted names, or at their `places`.

    `forward` takes the inputs in order and returns the outputs by name; it refuses inputs that are
    not as `checked` says. Raises `BackendError` for weights that are missing or of another type, a
    state that is not given (the seed of random ops), and names that a module cannot have.
    """
    places = places or {}
    lowered = lower(graph, checked=checked, places=places)
    arrays = {places.get(p, p): x for p, x in weights_of(graph.leaves, parameters).items()}
    about = described(graph, places=places)
    return scripted(graph.name, [lowered.source], arrays, lowered.constants, about)


def to_bytes(graph: Graph, parameters: Mapping[str, Array]) -> bytes:
    """The file of `to_script`, for `torch.jit.load` in Python or C++. It refuses inputs of another
    type than they have. Names that files cannot have get a `_`. Raises `BackendError` as that
    does."""
    places = loadable(name for name, x in graph.leaves.items() if input_of(x).kind != "input")
    return saved(to_script(graph, parameters, Check.INPUTS, places))


def saved(module: torch.jit.ScriptModule) -> bytes:
    """The file of a module. Raises `BackendError` where torch cannot load what it saves."""
    content, failure = _round_trip(module)
    if failure is None:
        return content
    tensors = (*module.named_parameters(), *module.named_buffers())
    layers = {path.rpartition(".")[0] or path: path for path, _ in tensors}
    bad = [repr(layer) for layer, path in layers.items() if not _can_be_loaded(path)]
    if not bad:
        raise BackendError(f"torch cannot load what it saves: {failure}") from failure
    raise BackendError(
        f"torch cannot load a file with a layer named {', '.join(bad)}",
        hint="choose another name: ASCII letters, and no word reserved by Python or torch",
    ) from failure


def _round_trip(module: torch.jit.ScriptModule) -> tuple[bytes, Exception | None]:
    """The file of a module, and why torch cannot load it; None where it can."""
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    content = buffer.getvalue()
    try:
        loaded = torch.jit.load(io.BytesIO(content))
    except (RuntimeError, AttributeError) as error:
        return content, error
    if any("torch" in path.split(".") for path in loaded.state_dict()):
        # It is loaded, and the attribute hides the functions that its code calls.
        return content, ValueError(
            "the name 'torch' hides the module torch from the code in the file"
        )
    return content, None


def _can_be_loaded(path: str) -> bool:
    """Whether torch can load a module that has this tensor alone."""
    root = _root("Layer")
    hold(root, path, np.zeros(1, np.float32), False)
    module = torch.jit.script(root)
    module.define(f"def forward(self) -> Tensor:\n    return {attribute_text(path)}\n")
    return _round_trip(module)[1] is None


def scripted(
    name: str,
    sources: Sequence[str],
    arrays: Mapping[str, tuple[Array, bool]],
    constants: Mapping[str, Array],
    about: Mapping[str, Any],
) -> torch.jit.ScriptModule:
    """A scripted module with methods of these sources. It holds arrays by path, each with whether
    it is trained; what it is stands as JSON in its attribute `nncompile`."""
    check_python()
    root = _root(_class_name(name))
    root.nncompile = json.dumps(about)
    for path, (array, trained) in arrays.items():
        hold(root, path, array, trained)
    for path, array in constants.items():
        hold(root, path, array, False)
    module = torch.jit.script(root)
    try:
        module.define("\n".join(sources) + "\n")
    except RuntimeError as error:
        raise BackendError(f"torch does not accept the generated source: {error}") from error
    return module


def check_python() -> None:
    """Raises `BackendError` on a Python that TorchScript does not support."""
    if sys.version_info >= FIRST_WITHOUT:
        raise BackendError(
            f"torch has no TorchScript for Python {sys.version_info[0]}.{sys.version_info[1]}",
            hint="--to pt2 is its successor: a file for torch.export.load; or use Python 3.13",
        )


def described(
    graph: Graph, kind: str = "model", places: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """What a file says of itself: its kind, and the element types and sizes of what goes in and
    comes out, a size being a number or arithmetic of names; and the `places` of paths that have
    another name in the file."""
    about: dict[str, Any] = {
        "kind": kind,
        "name": graph.name,
        "inputs": types_of(graph.of_kind("input")),
        "outputs": types_of(graph.outputs),
    }
    return {**about, "places": dict(places)} if places else about


def types_of(values: Mapping[str, Value]) -> dict[str, Any]:
    """The element types and sizes of values by name, for JSON."""
    return {
        name: [v.dtype.name, [size if isinstance(size, int) else str(size) for size in v.shape]]
        for name, v in values.items()
    }


def _class_name(name: str) -> str:
    """The name of the model, where it is a free identifier in the code of the file."""
    return name if Names().claim(name) == name else "Model"


def weights_of(
    leaves: Mapping[str, Value], parameters: Mapping[str, Array]
) -> dict[str, tuple[Array, bool]]:
    """The array of each leaf but the inputs, and whether it is trained. Raises `BackendError`
    for one that is missing or of another type."""
    return {
        name: (_weight(name, leaf, parameters), input_of(leaf).kind == "parameter")
        for name, leaf in leaves.items()
        if input_of(leaf).kind != "input"
    }


def _weight(name: str, leaf: Value, parameters: Mapping[str, Array]) -> Array:
    kind = input_of(leaf).kind
    if name not in parameters:
        hint = (
            "the inference pass removes random ops from a graph"
            if kind == "state"
            else f"the module needs {', '.join(sorted(parameters)) or 'parameters'} and {name}"
        )
        raise BackendError(
            f"no value for {kind} {name!r}", rows=[("expected", str(leaf.type))], hint=hint
        )
    array = np.asarray(parameters[name])
    if array.dtype != leaf.dtype.numpy or array.shape != leaf.shape:
        raise BackendError(
            f"{kind} {name!r} has the wrong type",
            rows=[("expected", str(leaf.type)), ("got", f"{array.dtype}{list(array.shape)}")],
        )
    return array


def hold(root: torch.nn.Module, path: str, array: Array, trained: bool) -> None:
    """Puts the array into the module under its dotted path."""
    *parents, last = path.split(".")
    tensor = tensor_of(array)
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


def tensors(arrays: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """Tensors of their own that hold the arrays."""
    return {name: tensor_of(x) for name, x in arrays.items()}
