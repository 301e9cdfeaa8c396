"""Learning rates as formulas of the number of the step, counted from zero."""

from __future__ import annotations

import functools
import inspect
import itertools
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ParamSpec

import numpy as np

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.hints import suggests_names, suggests_options
from nncompile.diagnostics.locations import message_name
from nncompile.diagnostics.options import not_negative, real
from nncompile.elementwise import floor
from nncompile.elementwise.formula import Formula
from nncompile.ir.basic import Constant, as_value, cast
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f64, i64

P = ParamSpec("P")

TRAINING = "training."
"""What the paths of states begin with that belong to the training, not to the model."""


@suggests_options
@dataclass(frozen=True)
class Schedule:
    """A learning rate that depends on the step: `schedule(step)` for a value, an array or a
    number. In the graph it is computed in float64 from the leaf `step`: float32 knows a factor
    to 6e-8, which is 2% of its 300,000th power, and steps up to 2²⁴."""

    formula: Formula

    def __repr__(self) -> str:
        """By the function that made it."""
        return f"<schedule {self.formula.function.__qualname__.partition('.<locals>')[0]}>"

    def __reduce__(self) -> Any:
        call = vars(self).get("_call")  # a curve within a function is made again
        if call is not None:
            return call, ()
        function = self.formula.function
        if getattr(sys.modules.get(function.__module__), function.__qualname__, None) is self:
            return function.__qualname__  # as a global of its module
        return schedule, (function,)

    def __call__(self, step: Any) -> Any:
        return self.formula(cast(step, f64) if isinstance(step, Value) else step * 1.0)


def checked_rate(_: str, rate: Any) -> Any:
    """A learning rate as an option keeps it. Raises `ModelError` for a negative number, and for
    anything but a number, a schedule or a function of the step."""
    if not callable(rate):
        return not_negative("a learning rate", rate)
    check_rate(rate)
    return rate


LearningRate = Annotated[float | Schedule | Callable[[Value], Value], checked_rate]
"""A number, a schedule, or a function from the step (a value) to the rate (a value)."""


@suggests_names
def schedule(function: Callable[[Any], Any]) -> Schedule:
    """A schedule from a Python function of the step, which is traced as a formula is.

    >>> @schedule
    ... def inverse(step):
    ...     return 0.1 / (1 + step)
    >>> round(inverse(3), 6)
    0.025
    """
    made = Schedule(Formula(function))
    object.__setattr__(made, "__module__", function.__module__)  # where pickle looks for its name
    return made


def remembered(make: Callable[P, Schedule]) -> Callable[P, Schedule]:
    """A decorator of a function that makes schedules: they know their call, to be pickled."""

    @functools.wraps(make)
    @message_name()
    def wrapper(*args: P.args, **options: P.kwargs) -> Schedule:
        made = make(*args, **options)
        object.__setattr__(made, "_call", functools.partial(wrapper, *args, **options))
        return made

    return wrapper


@remembered
@suggests_names
def constant(lr: float) -> Schedule:
    """`lr` at every step."""
    rate = not_negative("a learning rate", lr)
    return schedule(lambda step: rate + 0 * step)


@remembered
@suggests_names
def step_decay(lr: float, step_size: int, gamma: float = 0.1) -> Schedule:
    """`lr`, multiplied by `gamma` after each `step_size` steps."""
    rate, factor = not_negative("a learning rate", lr), not_negative("gamma", gamma)
    check_count("step_size", step_size)
    return schedule(lambda step: rate * factor ** floor(step / step_size))


@remembered
@suggests_names
def exponential(lr: float, gamma: float, step_size: int = 1) -> Schedule:
    """lr · gamma^(step / step_size)."""
    rate, factor = not_negative("a learning rate", lr), not_negative("gamma", gamma)
    check_count("step_size", step_size)
    return schedule(lambda step: rate * factor ** (step / step_size))


class Stateful(ABC):
    """A learning rate that depends on a state of its own, beside the step.

    `initial` gives the first value of each of its states, by path; `monitors` names the outputs
    of the model that `following` needs to compute their values after the step.
    """

    @property
    def declared(self) -> float | None:
        """The number that the rate is while nobody sets another one; None where there is none."""
        return None

    @property
    @abstractmethod
    def initial(self) -> dict[str, Value]:
        """The first value of each state, by path."""

    @property
    @abstractmethod
    def monitors(self) -> tuple[str, ...]:
        """The outputs of the model that `following` needs."""

    @abstractmethod
    def following(self, outputs: Mapping[str, Value], step: Value) -> dict[str, Value]:
        """The next value of each state that the step changes, by path."""

    @abstractmethod
    def __call__(self, step: Value) -> Value:
        """The learning rate at `step`, from the leaves of the state."""

    def of_loss(self, loss: str, maximized: bool, alone: bool) -> Stateful:
        """The rate as it is in the update that minimizes (or maximizes) that output; whether it
        is the only one that the recipe minimizes. The rate itself, unless a subclass takes
        something from there."""
        return self


def resolve(rate: LearningRate, step: Value, dtype: DType) -> Value | float:
    """The learning rate at `step`: a number where it is always the same, a scalar of
    `dtype` where it is not."""
    if isinstance(rate, int | float):
        return float(rate)
    result = rate(step)
    if callable(result) or not isinstance(result, Value | int | float | np.generic | np.ndarray):
        raise ModelError(
            f"a learning rate must be one number at each step, {name_of(rate)} gives "
            f"{name_of(result)}",
            hint="0.1 stays as it is, cosine(0.1, steps=1000) falls",
        )
    value = as_value(result)
    if value.rank != 0:
        raise ModelError(f"a learning rate must be one number, the schedule gives {value.type}")
    if isinstance(value.op, Constant):
        return float(value.op.value)
    return cast(value, dtype)


def declared_rate(rate: LearningRate) -> float | None:
    """The number that a rate is at all steps, or until another one is set; None where it falls."""
    if isinstance(rate, Stateful):
        return rate.declared
    number = resolve(rate, Input("step", i64[()], "state")(), f64)
    return number if isinstance(number, float) else None


def check_rate(rate: Callable[..., Any]) -> None:
    """Raises `ModelError` for a schedule that takes anything but a step: a function that
    makes a schedule or an optimizer, an initializer of weights."""
    if isinstance(rate, Schedule | Stateful):
        return
    try:
        inspect.signature(rate).bind(0)
    except TypeError:
        fits = False
    except ValueError:  # of a function that is not Python's
        fits = True
    else:
        fits = not isinstance(rate, type)
    if not fits:
        raise ModelError(
            "a learning rate must be a number, a schedule or a function of the step, got "
            f"{name_of(rate)}",
            hint="0.1 alone stays as it is, and so does constant_rate(0.1); constant(...) and the "
            "like start weights; cosine(0.1, steps=1000) falls",
        )


def name_of(x: Any) -> str:
    """What a function is called, or the one that made it; the text of something else."""
    return str(getattr(x, "__qualname__", repr(x))).partition(".<locals>")[0]


def check_count(name: str, count: Any) -> None:
    """Raises `ModelError` where `count` is less than 1."""
    if real(name, count) < 1:
        raise ModelError(f"{name} must be at least 1, got {count}")


def curve_of(name: str, rate: float | Schedule) -> Schedule:
    """The schedule, or that of a number. Raises `ModelError` for something else."""
    if isinstance(rate, Schedule):
        return rate
    if callable(rate):
        raise ModelError(
            f"{name} must be a number or a schedule, got {rate!r}",
            hint="@schedule turns a function of the step into one",
        )
    return constant(rate)


def milestones_of(name: str, steps: Any) -> tuple[float, ...]:
    """Growing numbers of steps. Raises `ModelError` for something else."""
    if not isinstance(steps, list | tuple):
        raise ModelError(f"{name} must be a list of steps, got {steps!r}")
    ends = tuple(not_negative(name, step) for step in steps)
    if any(b <= a for a, b in itertools.pairwise(ends)):
        raise ModelError(f"{name} must increase, got {list(steps)}")
    return ends
