"""`@model`: a function of inputs becomes a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload
from weakref import WeakKeyDictionary

from dsl.building import Builder, building
from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.hints import not_callable_error, suggests_names
from nncompile.diagnostics.locations import LocationTable, recording_locations, scope
from nncompile.ir.gc_pause import collection_paused
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import Value
from nncompile.ir.types import MayBeNaN, Type
from nncompile.program.model import RANDOM_STATE, Applications, Model, applications

Function = Callable[..., Any]


@overload
def model(function: Function) -> Model: ...
@overload
def model(
    *, predict: Sequence[str] | str = (), name: str | None = None
) -> Callable[[Function], Model]: ...
@suggests_names
def model(
    function: Function | None = None,
    *,
    predict: Sequence[str] | str = (),
    name: str | None = None,
) -> Any:
    """Makes a model of a function: its inputs are default arguments of tensor types, it returns
    its outputs as a dict, or one value, which is then called `output`.

    `predict` names the outputs of the inference model; by default, those that do without the label
    (`Model.predicted` says it exactly). The function runs once, here. A model that is called within
    it lends it its parameters, under their own names, and draws other random numbers in each call.

    Raises `ModelError` for an argument without a type, a result that is not a value, two layers or
    applied models with one name, and an output with the name of an input.

    >>> from dsl import Dense, f32
    >>> @model
    ... def line(x=f32["batch", 1]):
    ...     return x >> Dense(1)
    >>> line.parameters
    {'dense.weight': <input : f32[1, 1]>, 'dense.bias': <input : f32[1]>}
    """
    if function is None:
        return lambda f: model_of(f, predict, name)
    return model_of(function, predict, name)


def model_of(function: Function, predict: Sequence[str] | str, name: str | None) -> Model:
    """The model of the function; see `model`."""
    if not inspect.isfunction(function):
        raise ModelError(
            f"@model decorates a function, got {function!r}",
            hint='@model, or @model(predict="probabilities", name="net"), above a def',
        )
    title = name or function.__name__
    predict = (predict,) if isinstance(predict, str) else predict
    if not isinstance(predict, Sequence):
        raise ModelError(f"predict must name outputs, got {predict!r}", hint='predict=("y",)')
    inputs = _inputs(function, title)
    with (
        collection_paused(),
        recording_locations(LocationTable()) as locations,
        scope(title),
        building() as builder,
        applications() as applied,
    ):
        leaves = {n: _leaf(n, type_) for n, type_ in inputs.items()}
        outputs = _outputs(title, _result(function, leaves))
    initial, owners = _owned(title, builder, applied)
    for path in initial:
        if path in RANDOM_STATE:
            raise ModelError(
                f"model {title} cannot have a parameter called {path!r}: the training step uses "
                "that name",
                hint="give it another name",
            )
        if path in inputs:
            raise ModelError(
                f"the input {path!r} of model {title} has the name of a parameter or state",
                hint="give one of them another name",
            )
    doc = inspect.cleandoc(function.__doc__ or "")
    result = Model(
        name=title,
        graph=Graph(title, outputs, (*leaves.values(), *builder.leaves.values()), locations, doc),
        initial=initial,
        updates={**applied.updates, **builder.updates},
        vocabularies={
            name: codes
            for collected in (*(m.vocabularies for m in applied.models), builder.vocabularies)
            for name, codes in collected.items()
        },
        predict=tuple(predict),
        doc=doc,
        layers={k: v for inner in applied.models for k, v in inner.layers.items()} | builder.layers,
        adapters={k: v for inner in applied.models for k, v in inner.adapters.items()}
        | builder.adapters,
        frozen=tuple(dict.fromkeys(x for inner in applied.models for x in inner.frozen)),
    )
    _owners[result] = {**owners, **dict.fromkeys(builder.leaves, builder)}
    return result


def _result(function: Function, leaves: Mapping[str, Value]) -> Any:
    try:
        return function(**leaves)
    except TypeError as error:
        specific = not_callable_error(error)
        if specific is None:
            raise
        raise specific from None


def _leaf(name: str, declared: Type | MayBeNaN) -> Value:
    if isinstance(declared, MayBeNaN):
        return Input(name, declared.type, may_be_nan=True)()
    return Input(name, declared)()


def _inputs(function: Function, title: str) -> dict[str, Type | MayBeNaN]:
    """The declared inputs: every argument has a tensor type as its default."""
    types: dict[str, Type | MayBeNaN] = {}
    for name, p in inspect.signature(function).parameters.items():
        if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD, p.POSITIONAL_ONLY):
            raise ModelError(f"model {title} takes its inputs by name, not as {p}")
        if not isinstance(p.default, Type | MayBeNaN):
            problem = "has no type" if p.default is p.empty else f"is {p.default!r}, not a type"
            raise ModelError(
                f"the input {name!r} of model {title} {problem}",
                hint=f'declare it as a default argument: {name}=f32["batch", 3]',
            )
        if name in RANDOM_STATE:
            raise ModelError(
                f"model {title} cannot have an input called {name!r}: the training step uses "
                "that name",
                hint="give it another name",
            )
        types[name] = p.default
    return types


def _outputs(title: str, result: Any) -> dict[str, Value]:
    if isinstance(result, Value):
        result = {"output": result}
    if not isinstance(result, Mapping):
        kind = "nothing" if result is None else type(result).__name__
        raise ModelError(
            f"model {title} returns {kind}",
            hint='return its outputs by name: {"prediction": y, "loss": loss}',
        )
    for name, value in result.items():
        if not isinstance(name, str) or not name:
            raise ModelError(f"model {title}: {name!r} is not a valid name for an output")
        if not isinstance(value, Value) or not isinstance(value.type, Type):
            kind = value.type if isinstance(value, Value) else f"{type(value).__name__}"
            raise ModelError(
                f"output {name!r} of model {title} is {kind}, not a value",
                hint="an output is computed from the inputs; const(x) turns a number into a value",
            )
    return dict(result)


# Whose each parameter of a model is: the builder of the model that declared it. One that was
# applied in two others is the same parameter in both.
_owners: WeakKeyDictionary[Model, dict[str, Builder]] = WeakKeyDictionary()


def _owned(
    title: str, builder: Builder, applied: Applications
) -> tuple[dict[str, Value], dict[str, Any]]:
    """Initial values and owners of the parameters: the model's own and those of the models that
    were applied in it. Raises `ModelError` where two of them call different things the same."""
    initial, owners = dict(builder.initial), dict.fromkeys(builder.initial, builder)
    names: dict[str, str] = dict.fromkeys(builder.initial, title)
    for inner in applied.models:
        for path, value in inner.initial.items():
            owner: Any = _owner(inner, path)
            if owners.setdefault(path, owner) is not owner:
                raise ModelError(
                    f"{path} is a parameter of both {names[path]} and {inner.name}",
                    hint='name the layers, so that the paths differ: Dense(8, name="generator")',
                )
            names.setdefault(path, inner.name)
            initial.setdefault(path, value)
    return initial, owners


def _owner(model: Model, path: str) -> Any:
    """Whose a parameter is: that of the builder that declared it, or of the model that this one was
    first made of."""
    while True:
        builder = _owners.get(model, {}).get(path)
        if builder is not None:
            return builder
        if model.origin is None or path not in model.origin.initial:
            return model
        model = model.origin
