"""Learning rates that rise, fall and begin again: curves over the steps, and their composition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.options import not_negative, positive, real
from nncompile.elementwise import clip, cos, floor, log, maximum, minimum, sqrt, where
from nncompile.optim.schedules import (
    Schedule,
    check_count,
    curve_of,
    milestones_of,
    remembered,
    schedule,
)


@remembered
@suggests_names
def multi_step(lr: float, milestones: Sequence[int], gamma: float = 0.1) -> Schedule:
    """`lr`, multiplied by `gamma` at each of the steps `milestones`."""
    rate, factor = not_negative("a learning rate", lr), not_negative("gamma", gamma)
    ends = milestones_of("milestones", milestones)

    def curve(step: Any) -> Any:
        value = rate + 0 * step
        for end in ends:
            value = where(step >= end, value * factor, value)
        return value

    return schedule(curve)


@remembered
@suggests_names
def cosine(lr: float, *, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Up to `lr` in a straight line over `warmup` steps, then down to `final` at step `steps`
    along half a cosine, and `final` from there on (Loshchilov & Hutter 2017). torch's
    CosineAnnealingLR rises again from there, and is back at its peak at 2·T_max."""
    peak, final = not_negative("a learning rate", lr), not_negative("final", final)
    check_count("steps", steps)
    if not 0 <= real("warmup", warmup) < steps:
        raise ModelError(f"warmup must be from 0 to steps − 1 = {steps - 1}, got {warmup}")

    def rate(step: Any) -> Any:
        progress = minimum((step - warmup) / (steps - warmup), 1.0)
        falling = final + (peak - final) * (1 + cos(math.pi * progress)) / 2
        return where(step < warmup, peak * (step + 1) / warmup, falling) if warmup else falling

    return schedule(rate)


@remembered
@suggests_names
def warm_restarts(lr: float, *, period: int, growth: int = 1, final: float = 0.0) -> Schedule:
    """Half a cosine from `lr` to `final` over `period` steps, again and again, each time
    `growth` times as long (Loshchilov & Hutter 2017, torch's CosineAnnealingWarmRestarts)."""
    peak, final = not_negative("a learning rate", lr), not_negative("final", final)
    check_count("period", period)
    check_count("growth", growth)
    if growth != int(growth):
        raise ModelError(f"growth must be a whole number, got {growth}")

    def cycle(step: Any) -> tuple[Any, Any]:
        """The step within its cycle, and the length of that."""
        if growth == 1:
            return step - period * floor(step / period), period

        def length(number: Any) -> Any:  # in units of the first, a whole number
            return floor(growth**number + 0.5)

        def start(number: Any) -> Any:
            return period * ((length(number) - 1) / (growth - 1))

        number = floor(log(step / period * (growth - 1) + 1) / math.log(growth))
        # A logarithm that should be whole may be a little less.
        number = where(step >= start(number + 1), number + 1, number)
        return step - start(number), period * length(number)

    def curve(step: Any) -> Any:
        now, length = cycle(step)
        return final + (peak - final) * (1 + cos(math.pi * now / length)) / 2

    return schedule(curve)


@remembered
@suggests_names
def one_cycle(
    max_lr: float,
    *,
    total_steps: int,
    pct_start: float = 0.3,
    anneal_strategy: Literal["cos", "linear"] = "cos",
    div_factor: float = 25.0,
    final_div_factor: float = 1e4,
    three_phase: bool = False,
) -> Schedule:
    """Up from max_lr/div_factor to `max_lr` over the part `pct_start` of the steps, then down to
    max_lr/div_factor/final_div_factor, each along half a cosine, or in straight lines (Smith &
    Topin 2019).

    In three phases, it goes down to where it began as fast as it went up, and on from there. As
    torch's OneCycleLR; the momentum is not cycled. Past the last step, where torch's raises an
    error, the rate stays.
    """
    peak, steps, rise = not_negative("a learning rate", max_lr), total_steps, pct_start
    check_count("total_steps", steps)
    if not 0 < real("pct_start", rise) < 1:
        raise ModelError(f"pct_start must be between 0 and 1, got {rise}")
    if anneal_strategy not in ("cos", "linear"):
        raise ModelError(f"anneal_strategy must be 'cos' or 'linear', got {anneal_strategy!r}")
    low = peak / positive("div_factor", div_factor)
    lowest, top = low / positive("final_div_factor", final_div_factor), float(rise * steps) - 1
    phases = [(top, low, peak), (steps - 1, peak, lowest)]
    if three_phase:
        phases = [(top, low, peak), (2 * top, peak, low), (steps - 1, low, lowest)]
    begins = (0.0, *(end for end, _, _ in phases))
    if any(end <= begin for begin, end in itertools.pairwise(begins)):
        raise ModelError(
            f"one_cycle: {steps} steps are too few for a rise over {rise} of them",
            hint="each phase needs more than one step",
        )

    def curve(step: Any) -> Any:
        value = lowest + 0 * step
        for begin, (end, a, b) in reversed(list(zip(begins, phases, strict=False))):
            share = clip((step - begin) / (end - begin), 0.0, 1.0)
            progress = share if anneal_strategy == "linear" else (1 - cos(math.pi * share)) / 2
            value = where(step <= end, a + (b - a) * progress, value)
        return value

    return schedule(curve)


@remembered
@suggests_names
def warmup(lr: float | Schedule, *, steps: int, start: float = 0.01) -> Schedule:
    """Up to the first rate of `lr`, a number or a schedule, from `start` times that, in a
    straight line over `steps` steps; then `lr`, counted from there (Goyal et al. 2017; torch's
    LinearLR, then the schedule, in a SequentialLR)."""
    start = not_negative("start", start)
    check_count("steps", steps)
    after = curve_of("lr", lr)
    return schedule(
        lambda step: where(
            step < steps,
            after(0 * step) * (start + (1 - start) * step / steps),
            after(maximum(step - steps, 0.0)),
        )
    )


@remembered
@suggests_names
def piecewise(rates: Sequence[float | Schedule], milestones: Sequence[int]) -> Schedule:
    """The first rate until step `milestones[0]`, then the next one, and so on: numbers, or
    schedules of the steps since their own begin (torch's SequentialLR)."""
    ends = milestones_of("milestones", milestones)
    if len(rates) != len(ends) + 1:
        raise ModelError(
            f"{len(rates)} learning rates need {len(rates) - 1} milestones between them, "
            f"got {len(ends)}"
        )
    curves = [curve_of(f"rates[{i}]", rate) for i, rate in enumerate(rates)]

    def curve(step: Any) -> Any:
        value = curves[0](step)
        for begin, following in zip(ends, curves[1:], strict=True):
            value = where(step >= begin, following(maximum(step - begin, 0.0)), value)
        return value

    return schedule(curve)


@remembered
@suggests_names
def linear_decay(lr: float, *, steps: int, final: float = 0.0) -> Schedule:
    """From `lr` to `final` in a straight line over `steps` steps, and `final` from there on."""
    return polynomial(lr, steps=steps, final=final)


@remembered
@suggests_names
def polynomial(lr: float, *, steps: int, power: float = 1.0, final: float = 0.0) -> Schedule:
    """final + (lr − final)·(1 − step/steps)^power, and `final` from step `steps` on."""
    rate, final = not_negative("a learning rate", lr), not_negative("final", final)
    power = not_negative("power", power)
    check_count("steps", steps)
    return schedule(lambda step: final + (rate - final) * (1 - minimum(step / steps, 1.0)) ** power)


@remembered
@suggests_names
def inverse_sqrt(lr: float, *, warmup: int) -> Schedule:
    """Up to `lr` in a straight line over `warmup` steps, then down as 1/√step (Vaswani et al.
    2017, where `lr` is 1/√(width·warmup))."""
    peak = not_negative("a learning rate", lr)
    check_count("warmup", warmup)
    return schedule(
        lambda step: peak * minimum((step + 1) / warmup, sqrt(warmup / maximum(step + 1, 1.0)))
    )
