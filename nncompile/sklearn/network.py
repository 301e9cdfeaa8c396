"""The model of an estimator, and the recipe that trains it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from dsl import Dense, Dropout, Standardize, activations, mean, model, relu, tanh
from dsl import sigmoid as logistic
from nncompile.diagnostics.errors import ModelError, did_you_mean
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.optim.naming import optimizer_named
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe, training

Function = Callable[[Any], Any]
Predictions = Callable[[Value], Mapping[str, Value]]
Losses = Callable[[Value, Value], Value]

# Activations that other modules of the language have.
_ELSEWHERE: dict[str, Function] = {"relu": relu, "tanh": tanh, "logistic": logistic}
_ELSEWHERE["sigmoid"] = logistic
_ELSEWHERE["identity"] = activations.linear


def network(
    name: str,
    types: Mapping[str, Type],
    body: Sequence[Function],
    outputs: int,
    predictions: Predictions,
    losses: Losses,
) -> Model:
    """The model of inputs `x`, `target` and `weight` of these types: the functions of `body` one
    after the other, a dense layer `head` of so many outputs, what is predicted from that, and the
    loss, the mean of weight times the loss of each example.

    Raises `ModelError` where the body gives anything but features of each example.
    """

    @model(name=name, predict=())
    def net(
        x: Any = types["x"], target: Any = types["target"], weight: Any = types["weight"]
    ) -> dict[str, Any]:
        hidden = x
        for function in body:
            hidden = function(hidden)
        if not isinstance(hidden, Value) or hidden.rank != 2 or not hidden.dtype.is_float:
            got = hidden.type if isinstance(hidden, Value) else repr(hidden)
            raise ModelError(
                f"the architecture must give features of each example, {x.dtype}[batch, n], "
                f"got {got}",
                hint="flatten(x) makes one axis of several",
            )
        z = Dense(outputs, name="head")(hidden)
        return {**predictions(z), "loss": mean(losses(z, target) * weight)}

    built: Model = net
    return built


def hidden_layers(sizes: Any, activation: Any, dropout: float) -> list[Function]:
    """Dense layers of these sizes (a number, or several) with the activation, each with dropout
    behind it. Raises `ModelError` for an unknown activation."""
    if isinstance(activation, str):
        known = {**{n: getattr(activations, n) for n in activations.__all__}, **_ELSEWHERE}
        if activation not in known:
            raise ModelError(
                f"there is no activation {activation!r}", hint=did_you_mean(activation, known)
            )
        activation = known[activation]
    layers: list[Function] = []
    for size in sizes if isinstance(sizes, Sequence) else [sizes]:
        layers.append(Dense(size, activation))
        if dropout:
            layers.append(Dropout(dropout))
    return layers


def standardized(mean: Any, std: Any) -> Standardize:
    """A layer of these statistics."""
    return Standardize().restore({"mean": mean, "std": std})


def recipe_of(
    net: Model, optimizer: Any, rate: Any, weight_decay: float, batch_size: int, seed: int
) -> Recipe:
    """How the network is trained: by an optimizer, or the one of that name. Raises `ModelError` for
    an unknown name, and for one that has no weight decay where there is some."""
    if isinstance(optimizer, str):
        kind = optimizer_named(optimizer)
        options = {"lr": rate}
        if weight_decay or optimizer == "adamw":
            options["weight_decay"] = weight_decay
        optimizer = kind(**options)
    return training(net, optimizer=optimizer, batch_size=batch_size, seed=seed)
