"""Models and their weights as torch has them, and back."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompile.backends.optional import torch_backend
from nncompile.compiler.weights import weights_for
from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.hints import suggests_names
from nncompile.interop.correspondence import TensorPart, tensor_parts, torch_types, transposed_paths
from nncompile.ir.graph import Graph
from nncompile.ir.types import Array, f32
from nncompile.ops.random.generator import step_leaf
from nncompile.passes.stabilise import stabilise
from nncompile.program.model import Model
from nncompile.runtime import check_state


@suggests_names
def to_torch_module(
    model: Model, params: Mapping[str, Any] | str | os.PathLike[str] | None = None, seed: int = 0
) -> Any:
    """The model as a `torch.nn.Module` of plain Python, which holds the weights: `params` as
    `export` takes them, or drawn from `seed`.

    It takes the inputs that the predictions need, in order or by name, and returns a dict of the
    predictions. Parameters are `nn.Parameter`s under their own paths, states buffers; torch's
    autograd differentiates it, torch's optimizers train it, and it can be copied, pickled,
    compiled and exported. Inputs of another rank or size are refused.

    It comes in `eval()`, the graph of inference. After `train()` it is the
    graph of training: dropout is drawn from the buffers `seed` and `step`, each call makes one
    step more, and running statistics follow the batches (a state whose next value needs more inputs
    than the predictions stays). Layouts are those of the model; see
    `to_torch_state_dict` for torch's.

    Derivatives that were declared (`@formula(derivative=…)`, `custom_gradient`) are none of
    torch's: a `backward()` that meets one raises `BackendError`, which names the line. Raises
    `BackendError` where torch is missing or a module cannot have the name of a layer, `ModelError`
    as `export`.
    """
    if not isinstance(model, Model):
        raise ModelError(f"to_torch_module takes a model, got {type(model).__name__}")
    backend = torch_backend()
    predictions = stabilise(model.inference())
    trained = stabilise(_training(model))
    merged = Graph(model.name, predictions.outputs, tuple(trained.leaves.values()))
    weights = weights_for(model, merged, params, seed)
    return backend.to_eager(predictions, weights, trained, checked=backend.Check.SHAPES).eval()


@suggests_names
def to_torch_state_dict(
    params: Mapping[str, Any],
    model: Model,
    names: Mapping[str, str] | Any = None,
    like: Any = None,
) -> dict[str, Any]:
    """The parameters and states of a model (those of a trainer, say) as torch's tensors, laid out
    as torch's layers have them: weights of linear and recurrent layers transposed.

    Names are those of the model, or those of a torch module that is given as `like`: the module
    or its state dict. The weights of query, key and value are then joined where it has them so,
    and `module.load_state_dict` takes the result as it is.

    `names` says which layer of the module is which of the model, as `from_torch_state_dict` takes
    it: `like=module, names={"fc1": "stem", "fc2": "head"}`. Without it, names that are all equal
    are taken as such; otherwise the layers are taken in the order in which they are defined there
    and first used here. Where layers have equal shapes and a module defines them in another order
    than it uses them, that exchanges them, and no error tells: give `names`. (`names=module` is
    `like=module`.)

    Raises `ModelError` for what is missing, unexpected, or of another shape, and for `names`
    without a module.
    """
    names, like = _names_and_module(names, like)
    types = torch_types(model)
    arrays = {path: _array(x) for path, x in params.items() if path in types}
    check_state(arrays, types, "params", ModelError)
    if like is None:
        turned = transposed_paths(model)
        located = {path: TensorPart(path, 0, 1, path in turned) for path in types}
        shapes = {path: part.shape(types[path]) for path, part in located.items()}
    else:
        state = like.state_dict() if hasattr(like, "state_dict") else like
        shapes = {name: tuple(x.shape) for name, x in state.items()}
        located = tensor_parts(model, shapes, names)
    pieces_by_name: dict[str, dict[int, Array]] = {}
    for path, part in located.items():
        pieces_by_name.setdefault(part.name, {})[part.index] = part.from_parameter(arrays[path])
    joined = {
        name: np.concatenate([pieces[i] for i in sorted(pieces)])
        if len(pieces) > 1
        else pieces[0].reshape(shapes[name])
        for name, pieces in pieces_by_name.items()
    }
    tensors: dict[str, Any] = torch_backend().tensors(
        {name: joined[name] for name in shapes if name in joined}
    )
    return tensors


def _names_and_module(names: Any, like: Any) -> tuple[Any, Any]:
    """The names of layers and the module of `to_torch_state_dict`. Raises `ModelError` for
    two modules, and for names of layers without one."""
    if names is not None and not _is_mapping_of_names(names):
        if like is not None:
            raise ModelError(
                "names is a module, and so is like",
                hint='like=module, names={"its layer": "layer of the model"}',
            )
        return None, names
    if names and like is None:
        raise ModelError(
            "names matches layers of a torch module, but there is no module",
            hint="to_torch_state_dict(params, model, like=module, names={…})",
        )
    return names, like


@suggests_names
def from_torch_state_dict(
    state_dict: Mapping[str, Any], model: Model, names: Mapping[str, str] | None = None
) -> dict[str, Array]:
    """The parameters and states of the model by path, of the state dict of a torch module with the
    same layers: what `export`, `to_torch_module` and a trainer's `set_params` take.

    `names` says which of its layers is which of the model, `{"fc1": "stem", "fc2": "head"}`
    (tensors can be named one by one, too). Without it, names that are all equal are taken as such;
    otherwise the layers are taken in the order in which they are defined there and first used
    here: give `names` to a module that defines them in another order than it uses them, as layers
    of equal shapes would be exchanged and no error would tell.

    The transposes of linear and recurrent layers, the joined weights of attention, and the
    layers of torch's transformers are understood. Raises `ModelError` for what is missing,
    unexpected, or of another shape or element type.

    >>> from dsl import Dense, f32, model
    >>> @model
    ... def net(x=f32["batch", 3]):
    ...     return x >> Dense(2, name="head")
    >>> theirs = {"fc.weight": np.ones((2, 3), np.float32), "fc.bias": np.ones(2, np.float32)}
    >>> {path: x.shape for path, x in from_torch_state_dict(theirs, net).items()}
    {'head.weight': (3, 2), 'head.bias': (2,)}
    """
    arrays = {name: _array(x) for name, x in state_dict.items()}
    located = tensor_parts(model, {name: x.shape for name, x in arrays.items()}, names)
    types = torch_types(model)
    parameters = {
        path: np.array(part.to_parameter(arrays[part.name], types[path]), order="C")
        for path, part in located.items()
    }
    wide = [p for p, x in parameters.items() if types[p].dtype is f32 and x.dtype == np.float64]
    if wide:
        raise ModelError(
            f"the state dict is float64, but model {model.name} is float32",
            rows=[(located[p].name, f"float64, expected {types[p]}") for p in wide],
            hint="module.float().state_dict() is float32",
        )
    check_state(parameters, types, "the state dict", ModelError)
    return {path: parameters[path] for path in types}


def _is_mapping_of_names(names: Any) -> bool:
    return isinstance(names, Mapping) and all(isinstance(x, str) for x in names.values())


def _training(model: Model) -> Graph:
    """The predictions as training computes them, and the next value of the states they need."""
    chosen = {name: model.outputs[name] for name in model.predict}
    predictions = Graph(model.name, chosen, (), model.graph.locations)
    following = {f"{path}.next": value for path, value in model.updates.items()}
    inputs = model.inference().of_kind("input")
    reached = {
        name: value
        for name, value in following.items()
        if Graph("", {name: value}).of_kind("input").keys() <= inputs.keys()
    }
    graph = predictions.with_outputs({**chosen, **reached})
    if "step" in graph.leaves:
        graph = graph.with_outputs({**graph.outputs, "step.next": step_leaf() + 1})
    ordered = tuple(inputs.values())
    return Graph(model.name, graph.outputs, ordered, model.graph.locations, model.doc)


def _array(x: Any) -> Array:
    """An array of one, or of a tensor of torch, wherever it is."""
    if hasattr(x, "detach"):
        x = torch_backend().array_of(x)
    return np.asarray(x)
