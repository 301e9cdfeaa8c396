"""How a model is trained: a list of updates that every step makes, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from nncompile.errors import ModelError, did_you_mean, whole_number
from nncompile.graph import Value
from nncompile.model import RANDOM_STATE, Model, check_same_type, leaves_of
from nncompile.ops.basic import as_value
from nncompile.optim import Optimizer, adam, adamw, rmsprop, sgd
from nncompile.optim.schedules import real

Optimizers = Optimizer | Mapping[str, Optimizer]
DEFAULT_OPTIMIZER = sgd(0.1)


@dataclass(frozen=True, eq=False)
class Minimize:
    """One step down the gradient of the output `loss`, of the parameters that `params` matches.

    `params` is a pattern of paths as of file names ("disc.*"), or several. Of these, the
    parameters that the loss depends on are trained. `optimizer` may be a dict from patterns to
    optimizers, of which the first that matches a parameter is used.
    `clip_value` bounds each element of the gradients; then `clip_norm` scales all gradients of
    this update by one factor, so that their joint Euclidean norm is at most that.
    """

    loss: str
    params: str | tuple[str, ...] = "*"
    optimizer: Optimizers = DEFAULT_OPTIMIZER
    clip_norm: float | None = None
    clip_value: float | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.loss, str):
            raise ModelError(
                f"a loss is the name of an output, got {self.loss!r}", hint='minimize("loss")'
            )
        for label, bound in (("clip_norm", self.clip_norm), ("clip_value", self.clip_value)):
            if bound is not None and not real(label, bound) > 0:
                raise ModelError(f"{label} must be positive, got {bound}")
        several = isinstance(self.optimizer, Mapping)
        for optimizer in self.optimizer.values() if several else (self.optimizer,):  # type: ignore[union-attr]
            if not isinstance(optimizer, Optimizer):
                raise ModelError(f"{_named(optimizer)} is no optimizer", hint=_made(optimizer))

    def trained(self, model: Model) -> dict[str, Value]:
        """The parameters that this update changes, by path.

        Raises `ModelError` where the loss is no output or not one real number, the pattern
        matches no parameter, or the loss depends on none that it matches.
        """
        loss = self.loss_of(model)
        floats = {p: leaf for p, leaf in model.parameters.items() if leaf.dtype.is_float}
        patterns = (self.params,) if isinstance(self.params, str) else self.params
        matched = {
            path: leaf
            for path, leaf in floats.items()
            if any(fnmatchcase(path, pattern) for pattern in patterns)
        }
        if not matched:
            raise ModelError(
                f"no parameter of model {model.name} matches {', '.join(map(repr, patterns))}",
                rows=[("parameter", path, str(leaf.type)) for path, leaf in floats.items()],
                hint=did_you_mean(patterns[0], floats),
            )
        needed = leaves_of([loss])
        trained = {path: leaf for path, leaf in matched.items() if leaf in needed}
        if not trained:
            raise ModelError(
                f"{self.loss!r} does not depend on any parameter that "
                f"{', '.join(map(repr, patterns))} matches",
                rows=[("parameter", path, str(leaf.type)) for path, leaf in matched.items()],
            )
        return trained

    def loss_of(self, model: Model) -> Value:
        """The value that is minimized."""
        if self.loss not in model.outputs:
            raise ModelError(
                f"model {model.name} has no output {self.loss!r} to minimize",
                rows=[("output", name, str(v.type)) for name, v in model.outputs.items()],
                hint=did_you_mean(self.loss, model.outputs),
            )
        loss = model.outputs[self.loss]
        if loss.rank != 0 or not loss.dtype.is_float:
            raise ModelError(
                f"a loss is one real number; {self.loss!r} is {loss.type}",
                hint=f"take its mean: {self.loss}.mean()" if loss.dtype.is_float else None,
            )
        return loss

    def optimizer_of(self, path: str) -> Optimizer:
        """The optimizer of that parameter. Raises `ModelError` where no pattern matches it."""
        if isinstance(self.optimizer, Optimizer):
            return self.optimizer
        for pattern, optimizer in self.optimizer.items():
            if fnmatchcase(path, pattern):
                return optimizer
        raise ModelError(
            f"no optimizer for parameter {path}",
            rows=[("pattern", pattern) for pattern in self.optimizer],
            hint='end with a pattern for all others: "*"',
        )


@dataclass(frozen=True, eq=False)
class Assign:
    """The parameter or state `path` becomes `value`: a learning rule, not a gradient.

    `value` is an expression over the model's leaves and outputs, a number, or a function that
    gets all of them by name: `assign("weight", lambda v: v["weight"] + 0.1 * v["error"])`.
    """

    path: str
    value: Any

    def resolved(self, model: Model) -> Value:
        """The next value of the parameter or state.

        Raises `ModelError` for an unknown path, or a value of another type.
        """
        known = {
            path: leaf
            for path, leaf in (*model.parameters.items(), *model.states.items())
            if path not in RANDOM_STATE
        }
        if self.path not in known:
            raise ModelError(
                f"model {model.name} has no parameter or state {self.path!r} to assign",
                rows=[("known", path, str(leaf.type)) for path, leaf in known.items()],
                hint=did_you_mean(self.path, known),
            )
        target = known[self.path]
        x = self.value
        if callable(x) and not isinstance(x, Value):
            x = x({**model.inputs, **known, **model.outputs})
        value = as_value(x, target)
        check_same_type(f"value assigned to {self.path}", target.type, value.type)
        return value


Update = Minimize | Assign


def _named(x: Any) -> str:
    return x.__name__ if callable(x) and hasattr(x, "__name__") else repr(x)


def _made(optimizer: Any) -> str:
    """How what was given in place of an optimizer becomes one."""
    if isinstance(optimizer, int | float):
        return f"sgd({optimizer}) is gradient descent with that learning rate"
    makers = {maker.__name__: f"{maker.__name__}(1e-3)" for maker in (sgd, rmsprop, adam, adamw)}
    name = str(getattr(optimizer, "__name__", optimizer)).lower()
    return f"a function makes one: {makers.get(name, ', '.join(makers.values()))}"


def _patterns(params: str | Sequence[str]) -> str | tuple[str, ...]:
    """The patterns of paths. Raises `ModelError` for something else."""
    if isinstance(params, str):
        return params
    if not isinstance(params, list | tuple) or not all(isinstance(p, str) for p in params):
        raise ModelError(
            f"params are a pattern of paths, or several, got {params!r}",
            hint='params="head.*", or params=["a.*", "b.*"]',
        )
    return tuple(params)


@dataclass(frozen=True, eq=False)
class Recipe:
    """A model with the updates of one step and the defaults of its training.

    The updates are made in their order; each sees what the ones before it changed. Metrics and
    running statistics are those of the state at the start of the step. Declaring a recipe checks
    it: see `Minimize.trained` and `Assign.resolved` for what is raised.
    """

    model: Model
    updates: tuple[Update, ...]
    batch: int = 32
    epochs: int | None = None
    steps: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.model, Model):
            raise ModelError(
                f"a recipe trains a model, got {_named(self.model)}",
                hint="a model is a function under @model: def net(x=f32[...]): ...",
            )
        if not self.updates:
            raise ModelError(
                "a recipe needs an update", hint='minimize("loss") or assign("weight", value)'
            )
        for update in self.updates:
            if not isinstance(update, Update):
                raise ModelError(
                    f"{_named(update)} is no update",
                    hint='updates=[minimize("loss", optimizer=adam(1e-3))]',
                )
        whole_number("batch", self.batch, 1)
        for label, count in (("epochs", self.epochs), ("steps", self.steps)):
            if count is not None:
                whole_number(label, count, 1)
        whole_number("seed", self.seed)
        for update in self.updates:
            if isinstance(update, Minimize):
                for path in update.trained(self.model):
                    update.optimizer_of(path)
            else:
                update.resolved(self.model)


def minimize(
    loss: str = "loss",
    params: str | Sequence[str] = "*",
    optimizer: Optimizers | None = None,
    clip_norm: float | None = None,
    clip_value: float | None = None,
) -> Minimize:
    """An update that follows a gradient; see `Minimize`. The default optimizer is `sgd(0.1)`."""
    chosen = DEFAULT_OPTIMIZER if optimizer is None else optimizer
    return Minimize(loss, _patterns(params), chosen, clip_norm, clip_value)


def assign(path: str, value: Value | float | Callable[[Mapping[str, Value]], Any]) -> Assign:
    """An update by a rule of its own; see `Assign`."""
    return Assign(path, value)


def training(
    model: Model,
    minimize: str = "loss",
    optimizer: Optimizers | None = None,
    updates: Update | Sequence[Update] | None = None,
    params: str | Sequence[str] = "*",
    batch: int = 32,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    clip_norm: float | None = None,
    clip_value: float | None = None,
) -> Recipe:
    """How `model` is trained: by minimizing one output with one optimizer, or by a list of
    `updates`. Either way it says the batch size, the length (`epochs` or `steps`; whichever ends
    first where both are given) and the seed, which all can be overridden when training starts."""
    if updates is None:
        chosen = DEFAULT_OPTIMIZER if optimizer is None else optimizer
        updates = [Minimize(minimize, _patterns(params), chosen, clip_norm, clip_value)]
    elif optimizer is not None or clip_norm is not None or clip_value is not None:
        raise ModelError(
            "give either an optimizer or a list of updates",
            hint='each update has its own: minimize("loss", optimizer=adam(1e-3))',
        )
    several = tuple(updates) if isinstance(updates, list | tuple) else (updates,)
    return Recipe(model, several, batch, epochs, steps, seed)
