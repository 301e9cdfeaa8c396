"""A learning rate from a sweep: the loss at rates that grow from step to step.

The range test of L. N. Smith, "Cyclical learning rates for training neural networks", 2017.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from nncompile.compiler.compile import compile_step
from nncompile.diagnostics.errors import (
    FeedError,
    ModelError,
    TrainingError,
    did_you_mean,
    whole_number,
)
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.options import real
from nncompile.ir.types import Array
from nncompile.optim import Optimizer
from nncompile.optim.schedules import Schedule, declared_rate, schedule
from nncompile.program.rate_groups import inner_optimizers
from nncompile.program.recipe import Recipe, minimize
from nncompile.runtime.providers import Provider
from nncompile.train.data import Batch, Data, Feeder
from nncompile.train.drawing import Line, draw_lines
from nncompile.train.trainer import Trainer

SMOOTHED = 0.05  # of the sweep is averaged to see the trend through the noise of batches


@dataclass(frozen=True, repr=False)
class RateSearch:
    """The rates of a sweep, the loss before the step with each, and its smooth trend.

    `suggestion` is the rate at which the trend falls most steeply over the logarithm of the rate;
    None where it falls by no more than the losses scatter about it. `loss` is the name of what was
    swept.
    """

    loss: str
    rates: Array
    losses: Array
    trend: Array
    suggestion: float | None

    def __repr__(self) -> str:
        found = "no suggestion" if self.suggestion is None else f"suggestion {self.suggestion:.2g}"
        rates = f"{self.rates[0]:.2g} to {self.rates[-1]:.2g}"
        return f"<RateSearch of {self.loss} at {len(self.rates)} rates from {rates}: {found}>"

    def plot(self, path: str | os.PathLike[str]) -> Path:
        """Draws loss and trend over the rate; see `nncompile.train.drawing.draw_lines`."""
        lines: dict[str, Line] = {
            self.loss: (self.rates, self.losses),
            "trend": (self.rates, self.trend),
        }
        marks = {} if self.suggestion is None else {f"{self.suggestion:.2g}": self.suggestion}
        return draw_lines(path, lines, "learning rate", self.loss, log_x=True, marks=marks)


@suggests_names
def lr_find(
    source: Recipe | Trainer,
    data: Data,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    batch_size: int | None = None,
    loss: str | None = None,
    seed: int | None = None,
    providers: Provider | Sequence[Provider] = "cpu",
    threads: int | None = None,
    limit: float = 4.0,
) -> RateSearch:
    """Trains a copy for `steps` updates, the learning rate growing evenly on a logarithmic scale
    from `lowest` to `highest`, and suggests the rate where the loss falls fastest.

    The copy begins at the first state of a recipe, or where a trainer is, which stays as it is.
    Every optimizer of the recipe gets the rate in place of its own; where all of them have numbers,
    those keep their proportions, and the rate is that of the largest. Nothing is compiled but once:
    the rate is a formula of the step. `loss` is one of the recipe's (the first by default). The
    sweep ends where it is not finite or has risen by `limit - 1` times the first loss (to four
    times it). `seed` (the recipe's by default) draws the weights and the order of the examples;
    the same one gives the same result.

    Raises `ModelError` for a range or recipe without rates, `FeedError` for data that do not fit or
    end too early, `TrainingError` where the loss is not finite at the lowest rates.
    """
    if isinstance(source, Trainer):
        trainer, recipe = source, source.recipe
        providers, threads = trainer.providers, trainer.threads
        state = trainer.state
        seed = trainer.seed if seed is None else seed
    else:
        recipe, state = source, None
    lowest, highest = real("lowest", lowest), real("highest", highest)
    if not 0 < lowest < highest < math.inf:
        raise ModelError(
            f"rates must increase from lowest > 0 to highest, got {lowest} to {highest}"
        )
    whole_number("steps", steps, 3)
    losses = recipe.losses
    if not losses:
        raise ModelError("the recipe has no learning rate: no update follows a gradient")
    name = losses[0] if loss is None else loss
    if name not in losses:
        raise ModelError(
            f"the recipe does not minimize {name!r}", hint=did_you_mean(name, dict.fromkeys(losses))
        )
    count = recipe.accumulate
    done_steps = 0 if state is None else int(state["step"])
    start = -(-done_steps // count)
    growth = highest / lowest
    curve = schedule(lambda step: lowest * growth ** ((step - start) / (steps - 1)))
    compiled = compile_step(_swept(recipe, curve))
    first = compiled.source.initial(seed)
    if state is not None:
        state["step"] = np.asarray(start * count, np.int64)
        first = {path: state.get(path, x) for path, x in first.items()}
    runner = compiled.runner(first, providers, threads)
    ports = [p for p in runner.ports if p.name in recipe.model.inputs]
    size = recipe.batch_size if batch_size is None else batch_size
    feeder = Feeder(data, recipe.model, ports, size, compiled.sizes)
    batches = _batches(feeder, recipe.seed if seed is None else seed)

    def update() -> float:
        several = []
        for examples in itertools.islice(batches, count):
            runner.step(examples)
            several.append(float(runner.metrics()[name]))
        return sum(several) / count

    history = list(_until_divergence((update() for _ in range(steps)), limit))
    if len(history) < 3:
        raise TrainingError(
            f"{name} diverges after {len(history)} steps at rates from {lowest:g} on",
            rows=[(name, f"{x:.6g}") for x in history],
            hint="start from a lower rate, or check whether it trains at all: overfit_one_batch",
        )
    rates = lowest * growth ** (np.arange(len(history)) / (steps - 1))
    values = np.array(history)
    trend = smooth(values, max(1, round(SMOOTHED * steps)))
    return RateSearch(name, rates, values, trend, _steepest(rates, values, trend))


def _until_divergence(losses: Iterable[float], limit: float) -> Iterator[float]:
    """The losses before one that is not finite, or has risen by `limit - 1` times the first."""
    bound = math.inf
    for number, loss in enumerate(losses):
        if not math.isfinite(loss) or (loss > bound and bound != 0):
            return
        if number == 0:
            bound = loss + (limit - 1) * abs(loss)
        yield loss


def _swept(recipe: Recipe, curve: Schedule) -> Recipe:
    """The recipe with the rate of the curve in all of its optimizers."""
    every = [o for u in recipe.updates if isinstance(u, minimize) for o in _optimizers(u)]
    numbers = [n for o in every if (n := declared_rate(o.lr)) is not None]
    largest = max(numbers) if len(numbers) == len(every) else 0.0

    def changed(optimizer: Optimizer) -> Optimizer:
        share = (declared_rate(optimizer.lr) or 0.0) / largest if largest else 1.0
        rate = curve if share == 1 else schedule(lambda step: share * curve.formula(step))
        inner = {option: changed(x) for option, x in inner_optimizers(optimizer)}
        return replace(optimizer, lr=rate, **inner)

    def update_of(update: minimize) -> minimize:
        optimizer = update.optimizer
        if isinstance(optimizer, Mapping):
            return replace(update, optimizer={p: changed(o) for p, o in optimizer.items()})
        return replace(update, optimizer=changed(optimizer))

    updates = tuple(update_of(u) if isinstance(u, minimize) else u for u in recipe.updates)
    return replace(recipe, updates=updates)


def _optimizers(update: minimize) -> Iterator[Optimizer]:
    """All optimizers of the update, and those that they hand some parameters on to."""
    optimizers = update.optimizer
    waiting = list(optimizers.values()) if isinstance(optimizers, Mapping) else [optimizers]
    while waiting:
        optimizer = waiting.pop()
        yield optimizer
        waiting += dict(inner_optimizers(optimizer)).values()


def _batches(feeder: Feeder, seed: int) -> Iterator[Batch]:
    """Batches without end. Raises `FeedError` where the data end and cannot be read again."""
    for epoch in itertools.count():
        empty = True
        for batch in feeder.epoch((seed, epoch)):
            empty = False
            yield batch
        if empty:
            raise FeedError(
                f"the data of the sweep end after {epoch} rounds",
                hint="pass a list of batches, or a function that returns them anew",
            )


def smooth(x: Array, width: int) -> Array:
    """The mean of each element and its neighbours, up to `width` on either side."""
    return np.array([x[max(i - width, 0) : i + width + 1].mean() for i in range(len(x))])


def _steepest(rates: Array, losses: Array, trend: Array) -> float | None:
    """The rate where the trend falls most steeply, before its lowest point."""
    lowest = int(np.argmin(trend))
    scatter = float(np.std((losses - trend)[: lowest + 1]))
    if not trend[0] - trend[lowest] > scatter:
        return None
    slopes = np.gradient(trend, np.log(rates))[: lowest + 1]
    return float(rates[int(np.argmin(slopes))])
