"""Learning rates as formulas of the number of the step, counted from zero."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from nncompile.elementwise import cos, floor, minimum, where
from nncompile.errors import ModelError
from nncompile.formula import Formula
from nncompile.graph import Value
from nncompile.ops.basic import Constant, as_value, cast
from nncompile.types import DType, f32

PI = 3.141592653589793


@dataclass(frozen=True)
class Schedule:
    """A learning rate that depends on the step: `schedule(step)` for a value, an array or a
    number. In the graph it is computed in float32 from the leaf `step`."""

    formula: Formula

    def __call__(self, step: Any) -> Any:
        return self.formula(cast(step, f32) if isinstance(step, Value) else step * 1.0)


LearningRate = float | Schedule | Callable[[Value], Value]


def schedule(function: Callable[[Any], Any]) -> Schedule:
    """A schedule from a Python function of the step, which is traced as a formula is.

    >>> @schedule
    ... def inverse(step):
    ...     return 0.1 / (1 + step)
    >>> round(inverse(3), 6)
    0.025
    """
    return Schedule(Formula(function))


def constant(rate: float) -> Schedule:
    """`rate` at every step."""
    _check_rate(rate)
    return schedule(lambda step: rate + 0 * step)


def step_decay(rate: float, every: int, factor: float = 0.1) -> Schedule:
    """`rate`, multiplied by `factor` after each `every` steps."""
    _check_rate(rate)
    _check_count("every", every)
    return schedule(lambda step: rate * factor ** floor(step / every))


def exponential(rate: float, decay: float, every: int = 1) -> Schedule:
    """rate · decay^(step / every)."""
    _check_rate(rate)
    _check_count("every", every)
    return schedule(lambda step: rate * decay ** (step / every))


def cosine(peak: float, *, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Up to `peak` in a straight line over `warmup` steps, then down to `final` at step `steps`
    along half a cosine, and `final` from there on (Loshchilov & Hutter 2017)."""
    _check_rate(peak)
    _check_count("steps", steps)
    if not 0 <= warmup < steps:
        raise ModelError(f"warmup must be from 0 to steps − 1 = {steps - 1}, got {warmup}")

    def rate(step: Any) -> Any:
        progress = minimum((step - warmup) / (steps - warmup), 1.0)
        falling = final + (peak - final) * (1 + cos(PI * progress)) / 2
        return where(step < warmup, peak * (step + 1) / warmup, falling) if warmup else falling

    return schedule(rate)


def resolve(rate: LearningRate, step: Value, dtype: DType) -> Value | float:
    """The learning rate at `step`: a number where it is always the same, a value of `dtype`
    without axes where it is not."""
    if isinstance(rate, int | float):
        return float(rate)
    value = as_value(rate(step))
    if value.rank != 0:
        raise ModelError(f"a learning rate is one number, the schedule gives {value.type}")
    if isinstance(value.op, Constant):
        return float(value.op.value)
    return cast(value, dtype)


def _check_rate(rate: float) -> None:
    if not rate >= 0:
        raise ModelError(f"a learning rate must not be negative, got {rate}")


def _check_count(name: str, count: int) -> None:
    if count < 1:
        raise ModelError(f"{name} must be at least 1, got {count}")
