"""What one step changes: parameters down a gradient, by a rule, or towards their average."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, ClassVar, TypedDict

from nncompile.diagnostics.errors import ModelError, did_you_mean
from nncompile.diagnostics.locations import recording_locations
from nncompile.diagnostics.options import Count, CountFromZero, Fraction, Options, Positive, Real
from nncompile.elementwise import where
from nncompile.ir.basic import as_value, cast
from nncompile.ir.names import matches
from nncompile.ir.op import Value, described
from nncompile.optim import Optimizer, adam, adamw, rmsprop, sgd
from nncompile.program.model import RANDOM_STATE, Model, leaves_of
from nncompile.program.model_checks import check_same_type

Optimizers = Optimizer | Mapping[str, Optimizer]
DEFAULT_OPTIMIZER = sgd(0.1)


def patterns_of(name: str, params: Any) -> str | tuple[str, ...]:
    """The patterns of paths. Raises `ModelError` for something else."""
    if isinstance(params, str):
        return params
    if not isinstance(params, list | tuple) or not all(isinstance(p, str) for p in params):
        raise ModelError(
            f"{name} must be one or more patterns of paths, got {params!r}",
            hint=f'{name}="head.*", or {name}=["a.*", "b.*"]',
        )
    return tuple(params)


Patterns = Annotated[str | Sequence[str], patterns_of]


class Following(TypedDict, total=False):
    """The options of `minimize` that `maximize` and `training` take, too: for type checkers, as
    their own fields give the defaults and say what they may be."""

    params: str | Sequence[str]
    clip_norm: float | None
    clip_value: float | None
    clip_each_norm: float | None
    noise: float | None
    noise_decay: float
    max_norm: float | None


class minimize(Options, eq=False):
    """One step down the gradient of the output `loss`, of the parameters that `params` matches.

    `params` is a pattern of paths as of file names ("disc.*"), or several. Of these, the
    parameters that the loss depends on are trained. `optimizer` may be a dict from patterns to
    optimizers, of which the first that matches a parameter is used: groups of parameters with
    rates, weight decays and rules of their own, `{"*.bias": adamw(weight_decay=0), "*": adamw()}`.

    `clip_value` bounds each element of the gradients; then `clip_each_norm` scales each gradient
    so that its own Euclidean norm is at most that; then `clip_norm` scales all gradients of this
    update by one factor, so that their joint norm is at most that. Then `noise` is added: normal
    numbers of variance noise/(1 + step)^noise_decay (Neelakantan et al. 2015). After the update,
    `max_norm` holds the norm of the weights that enter each unit at most there (Srivastava et al.
    2014): of a parameter of two axes, each column; of one with more (the kernels of a
    convolution), each slice of the first axis.
    """

    loss: str = "loss"
    params: Patterns = "*"
    optimizer: Optimizers = DEFAULT_OPTIMIZER
    clip_norm: Positive | None = None
    clip_value: Positive | None = None
    clip_each_norm: Positive | None = None
    noise: Positive | None = None
    noise_decay: Real = 0.55
    max_norm: Positive | None = None

    maximize: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not isinstance(self.loss, str):
            raise ModelError(
                f"a loss must be the name of an output, got {self.loss!r}", hint='minimize("loss")'
            )
        super().__post_init__()
        several = self.optimizer
        for optimizer in several.values() if isinstance(several, Mapping) else (several,):
            if not isinstance(optimizer, Optimizer):
                raise ModelError(f"{name_of(optimizer)} is not an optimizer", hint=_hint(optimizer))

    def trained(self, model: Model, frozen: Sequence[str] = ()) -> dict[str, Value]:
        """The parameters that this update changes, by path: none that a pattern in `frozen`
        matches.

        Raises `ModelError` where the loss is not an output or not one real number, the pattern
        matches no parameter, or the loss depends on none that it matches.
        """
        loss = self.loss_of(model)
        floats = {p: leaf for p, leaf in model.parameters.items() if leaf.dtype.is_float}
        patterns = (self.params,) if isinstance(self.params, str) else self.params
        matched = {
            path: leaf
            for path, leaf in floats.items()
            if matches(path, patterns) and not matches(path, frozen)
        }
        if not matched and any(matches(path, patterns) for path in floats):
            raise ModelError(
                f"all parameters that {', '.join(map(repr, patterns))} matches are frozen",
                rows=[("frozen", pattern) for pattern in frozen],
                hint="train at least one of them, or leave out freeze",
            )
        if not floats:
            raise ModelError(
                f"model {model.name} has no parameter of floats: there is nothing to train"
            )
        if not matched:
            raise ModelError(
                f"no parameter of model {model.name} matches {', '.join(map(repr, patterns))}",
                rows=[("parameter", path, str(leaf.type)) for path, leaf in floats.items()],
                hint=did_you_mean(patterns[0], floats),
            )
        reached = leaves_of([loss])
        trained = {path: leaf for path, leaf in matched.items() if leaf in reached}
        if not trained:
            raise ModelError(
                f"{self.loss!r} does not depend on any parameter that "
                f"{', '.join(map(repr, patterns))} matches",
                rows=[("parameter", path, str(leaf.type)) for path, leaf in matched.items()],
            )
        return trained

    def check_groups(self, model: Model) -> None:
        """Raises `ModelError` for a pattern whose optimizer is never used: it matches no parameter,
        or it comes after a more general one, or after others that match all of its parameters and
        more. A last `"*"` may be left with none."""
        if isinstance(self.optimizer, Optimizer):
            return
        floats = {p: leaf for p, leaf in model.parameters.items() if leaf.dtype.is_float}
        before: dict[str, set[str]] = {}
        for pattern in self.optimizer:
            group = {path for path in floats if matches(path, pattern)}
            if not group:
                raise ModelError(
                    f"the optimizer of {pattern!r} matches no parameter of model {model.name}",
                    rows=[("parameter", path, str(leaf.type)) for path, leaf in floats.items()],
                    hint=_suggestion(pattern, floats),
                )
            first = {earlier: taken for earlier, taken in before.items() if taken & group}
            covered = set().union(*first.values())
            general = matches(pattern.replace("*", "any.path"), list(first))
            if group <= covered and (general or group < covered):
                *most, last = (repr(earlier) for earlier in first)
                come, match = ("come", "match") if most else ("comes", "matches")
                earlier = f"{', '.join(most)} and {last}" if most else last
                raise ModelError(
                    f"the optimizer of {pattern!r} is never used: {earlier}, which {come} first, "
                    f"{match} all of its parameters",
                    hint=f"the first pattern that matches counts: put {pattern!r} first",
                )
            before[pattern] = group

    def loss_of(self, model: Model) -> Value:
        """The value that is minimized."""
        if self.loss not in model.outputs:
            losses = [x for x, v in model.outputs.items() if v.rank == 0 and v.dtype.is_float]
            raise ModelError(
                f"model {model.name} has no output {self.loss!r} to minimize",
                rows=[("output", name, str(v.type)) for name, v in model.outputs.items()],
                hint=did_you_mean(self.loss, losses) or _returned(self.loss),
            )
        loss = model.outputs[self.loss]
        if loss.rank != 0 or not loss.dtype.is_float:
            with recording_locations(model.graph.locations):
                rows = [(self.loss, *described(loss))]
            raise ModelError(
                f"a loss must be a real scalar; {self.loss!r} is {loss.type}",
                rows=rows,
                hint=f"take its mean: {self.loss}.mean()"
                if loss.dtype.is_float
                else "counts have no gradient: compute a loss from real numbers, as "
                "cross_entropy does; x.astype(f32) converts",
            )
        return loss

    def optimizer_of(self, path: str) -> Optimizer:
        """The optimizer of that parameter. Raises `ModelError` where no pattern matches it."""
        if isinstance(self.optimizer, Optimizer):
            return self.optimizer
        for pattern, optimizer in self.optimizer.items():
            if matches(path, pattern):
                return optimizer
        raise ModelError(
            f"no optimizer for parameter {path}",
            rows=[("pattern", pattern) for pattern in self.optimizer],
            hint='end with a pattern for all others: "*"',
        )


class maximize(minimize, eq=False):
    """One step up the gradient of an output; all else is that of `minimize`."""

    loss: str = "reward"
    maximize: ClassVar[bool] = True


class assign(Options, eq=False):
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
        leaves = {
            path: leaf
            for path, leaf in (*model.parameters.items(), *model.states.items())
            if path not in RANDOM_STATE
        }
        if self.path not in leaves:
            raise ModelError(
                f"model {model.name} has no parameter or state {self.path!r} to assign",
                rows=[("known", path, str(leaf.type)) for path, leaf in leaves.items()],
                hint=did_you_mean(self.path, leaves),
            )
        target = leaves[self.path]
        x = self.value
        if callable(x) and not isinstance(x, Value):
            x = x({**model.inputs, **leaves, **model.outputs})
        value = as_value(x, target)
        check_same_type(f"value assigned to {self.path}", target.type, value.type)
        return value


class Average(ABC):
    """Keeps an average of the parameters that `params` matches: the state `PATH.NAME`.

    A second average of that name and of the same parameter is `PATH.NAME.2`, unless it is given
    another name. It sees the parameters after step `start` and after each `every` steps from there
    on; the first that it sees it takes over, and before, it is the parameter itself.
    """

    params: str | Sequence[str]
    start: int
    every: int
    name: str

    def averaged(self, model: Model) -> dict[str, Value]:
        """The parameters that are averaged, by path. Raises `ModelError` where there is none."""
        patterns = (self.params,) if isinstance(self.params, str) else self.params
        parameters = {
            path: leaf
            for path, leaf in model.parameters.items()
            if leaf.dtype.is_float and matches(path, patterns)
        }
        if not parameters:
            raise ModelError(
                f"no parameter of model {model.name} matches {', '.join(map(repr, patterns))}",
                rows=[("parameter", path, str(x.type)) for path, x in model.parameters.items()],
                hint=did_you_mean(patterns[0], model.parameters),
            )
        return parameters

    def following(self, average: Value, w: Value, step: Value) -> Value:
        """The average after step number `step`, which made `w`."""
        number = (step - self.start) // self.every  # that it saw before
        share = self._share(number, w)
        due = (step - self.start) % self.every
        share = where(step < self.start, 1.0, where(due == 0, share, 0.0))
        result: Value = (1 - share) * average + share * w
        return result

    @abstractmethod
    def _share(self, number: Value, w: Value) -> Value:
        """What `w` has in an average that saw `number` others."""


class ema(Average, Options, eq=False):
    """An exponential average of the weights, the states `PATH.ema`: a' = d·a + (1−d)·w', d the
    `decay` (Polyak averaging, as torch's get_ema_multi_avg_fn); see `Average`."""

    decay: Fraction = 0.999
    params: Patterns = "*"
    start: CountFromZero = 0
    every: Count = 1
    name: str = "ema"

    def _share(self, number: Value, w: Value) -> Value:
        return where(number < 1, as_value(1.0, w), 1 - self.decay)


class swa(Average, Options, eq=False):
    """The mean of the weights from step `start` on, the states `PATH.swa` (stochastic weight
    averaging, Izmailov et al. 2018); see `Average`."""

    start: CountFromZero = 0
    every: Count = 1
    params: Patterns = "*"
    name: str = "swa"

    def _share(self, number: Value, w: Value) -> Value:
        return 1 / (cast(number, w.dtype) + 1)


Update = minimize | assign | Average


def _returned(loss: str) -> str:
    return f'return one from the model: {{"{loss}": cross_entropy(logits, label), ...}}'


def _suggestion(pattern: str, paths: Iterable[str]) -> str | None:
    """A pattern like this one that would match: where only its end is given, an end of a path."""
    start, _, end = pattern.rpartition("*")
    ends = dict.fromkeys(path[-n:] for path in paths for n in range(1, len(path) + 1))
    if not end or start or any(c in end for c in "?["):
        return did_you_mean(pattern, paths)
    endings = [x for x in ends if x[0] == "." or f".{x}" in ends]
    return did_you_mean(pattern, [f"*{x}" for x in endings])


def name_of(x: Any) -> str:
    """`x` as a message shows it: the name of a function, the repr of anything else."""
    return x.__name__ if callable(x) and hasattr(x, "__name__") else repr(x)


def _hint(optimizer: Any) -> str:
    """A hint on the optimizer that was meant."""
    if isinstance(optimizer, int | float):
        return f"sgd({optimizer}) is gradient descent with that learning rate"
    makers = {maker.__name__: f"{maker.__name__}(1e-3)" for maker in (sgd, rmsprop, adam, adamw)}
    name = str(getattr(optimizer, "__name__", optimizer)).lower()
    return f"a function creates one: {makers.get(name, ', '.join(makers.values()))}"
