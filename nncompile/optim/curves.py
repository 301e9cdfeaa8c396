"""Learning rates that rise, fall and begin again: curves over the steps, and their composition."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.hints import teaching
from nncompile.elementwise import clip, cos, floor, log, maximum, minimum, sqrt, where
from nncompile.optim.schedules import (
    Schedule,
    check_count,
    curve_of,
    milestones_of,
    not_negative,
    real,
    schedule,
)


@teaching
def multi_step(rate: float, milestones: Sequence[int], factor: float = 0.1) -> Schedule:
    """`rate`, multiplied by `factor` at each of the steps `milestones`."""
    rate, factor = not_negative("a learning rate", rate), not_negative("factor", factor)
    ends = milestones_of("milestones", milestones)

    def curve(step: Any) -> Any:
        found = rate + 0 * step
        for end in ends:
            found = where(step >= end, found * factor, found)
        return found

    return schedule(curve)


@teaching
def cosine(peak: float, *, steps: int, warmup: int = 0, final: float = 0.0) -> Schedule:
    """Up to `peak` in a straight line over `warmup` steps, then down to `final` at step `steps`
    along half a cosine, and `final` from there on (Loshchilov & Hutter 2017). torch's
    CosineAnnealingLR rises again from there, and is back at its peak at 2·T_max."""
    peak, final = not_negative("a learning rate", peak), not_negative("final", final)
    check_count("steps", steps)
    if not 0 <= real("warmup", warmup) < steps:
        raise ModelError(f"warmup must be from 0 to steps − 1 = {steps - 1}, got {warmup}")

    def rate(step: Any) -> Any:
        progress = minimum((step - warmup) / (steps - warmup), 1.0)
        falling = final + (peak - final) * (1 + cos(math.pi * progress)) / 2
        return where(step < warmup, peak * (step + 1) / warmup, falling) if warmup else falling

    return schedule(rate)


@teaching
def warm_restarts(peak: float, *, period: int, growth: int = 1, final: float = 0.0) -> Schedule:
    """Half a cosine from `peak` to `final` over `period` steps, again and again, each time
    `growth` times as long (Loshchilov & Hutter 2017, torch's CosineAnnealingWarmRestarts)."""
    peak, final = not_negative("a learning rate", peak), not_negative("final", final)
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


@teaching
def one_cycle(
    peak: float,
    *,
    steps: int,
    rise: float = 0.3,
    start: float = 1 / 25,
    final: float = 1e-4,
    three_phases: bool = False,
    straight: bool = False,
) -> Schedule:
    """Up from `peak`·start to `peak` over the part `rise` of the steps, then down to
    `peak`·start·final, each along half a cosine, or in straight lines (Smith & Topin 2019).

    In three phases, it goes down to where it began as fast as it went up, and on from there. As
    torch's OneCycleLR, whose `div_factor` is 1/start and `final_div_factor` 1/final; the momentum
    is not cycled. Past the last step, where torch's raises an error, the rate stays.
    """
    peak, start = not_negative("a learning rate", peak), not_negative("start", start)
    final = not_negative("final", final)
    check_count("steps", steps)
    if not 0 < real("rise", rise) < 1:
        raise ModelError(f"rise must be between 0 and 1, got {rise}")
    low, lowest, top = peak * start, peak * start * final, float(rise * steps) - 1
    phases = [(top, low, peak), (steps - 1, peak, lowest)]
    if three_phases:
        phases = [(top, low, peak), (2 * top, peak, low), (steps - 1, low, lowest)]
    begins = (0.0, *(end for end, _, _ in phases))
    if any(end <= begin for begin, end in itertools.pairwise(begins)):
        raise ModelError(
            f"one_cycle: {steps} steps are too few for a rise over {rise} of them",
            hint="each phase needs more than one step",
        )

    def curve(step: Any) -> Any:
        found = lowest + 0 * step
        for begin, (end, a, b) in reversed(list(zip(begins, phases, strict=False))):
            share = clip((step - begin) / (end - begin), 0.0, 1.0)
            way = share if straight else (1 - cos(math.pi * share)) / 2
            found = where(step <= end, a + (b - a) * way, found)
        return found

    return schedule(curve)


@teaching
def warmup(rate: float | Schedule, *, steps: int, start: float = 0.01) -> Schedule:
    """Up to the first rate of `rate`, a number or a schedule, from `start` times that, in a
    straight line over `steps` steps; then `rate`, counted from there (Goyal et al. 2017; torch's
    LinearLR, then the schedule, in a SequentialLR)."""
    start = not_negative("start", start)
    check_count("steps", steps)
    after = curve_of("rate", rate)
    return schedule(
        lambda step: where(
            step < steps,
            after(0 * step) * (start + (1 - start) * step / steps),
            after(maximum(step - steps, 0.0)),
        )
    )


@teaching
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
        found = curves[0](step)
        for begin, following in zip(ends, curves[1:], strict=True):
            found = where(step >= begin, following(maximum(step - begin, 0.0)), found)
        return found

    return schedule(curve)


@teaching
def linear_decay(rate: float, *, steps: int, final: float = 0.0) -> Schedule:
    """From `rate` to `final` in a straight line over `steps` steps, and `final` from there on."""
    return polynomial(rate, steps=steps, final=final)


@teaching
def polynomial(rate: float, *, steps: int, power: float = 1.0, final: float = 0.0) -> Schedule:
    """final + (rate − final)·(1 − step/steps)^power, and `final` from step `steps` on."""
    rate, final = not_negative("a learning rate", rate), not_negative("final", final)
    power = not_negative("power", power)
    check_count("steps", steps)
    return schedule(lambda step: final + (rate - final) * (1 - minimum(step / steps, 1.0)) ** power)


@teaching
def inverse_sqrt(peak: float, *, warmup: int) -> Schedule:
    """Up to `peak` in a straight line over `warmup` steps, then down as 1/√step (Vaswani et al.
    2017, where peak is 1/√(width·warmup))."""
    peak = not_negative("a learning rate", peak)
    check_count("warmup", warmup)
    return schedule(
        lambda step: peak * minimum((step + 1) / warmup, sqrt(warmup / maximum(step + 1, 1.0)))
    )
