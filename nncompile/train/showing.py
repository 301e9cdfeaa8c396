"""What is shown of a training, and the simplest way: lines of text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import IO, Any, Self

from nncompile.train.events import Fitting
from nncompile.train.figures import duration, figures


@dataclass(frozen=True)
class Plan:
    """How long a training will be, at most: None where that is not known. `batches` are those of an
    epoch, `ending` the steps after which it ends in any case."""

    first_epoch: int
    first_step: int
    epochs: int | None
    ending: int | None
    batches: int | None

    @classmethod
    def of(cls, fitting: Fitting) -> Self:
        """The plan of a training that begins."""
        trainer = fitting.trainer
        last_epoch, last_step = fitting.ends
        epochs = None if math.isinf(last_epoch) else max(0, int(last_epoch) - trainer.epoch)
        ending = None if math.isinf(last_step) else max(0, int(last_step) - trainer.step)
        plan = cls(trainer.epoch, trainer.step, epochs, ending, fitting.feeder.batch_count)
        return plan._settled()

    def learned(self, batches: int) -> Self:
        """The plan after an epoch of so many batches."""
        return self if self.batches else replace(self, batches=batches)._settled()

    def _settled(self) -> Self:
        if self.epochs is None and self.ending and self.batches:
            return replace(self, epochs=-(-self.ending // self.batches))
        return self

    @property
    def total(self) -> int | None:
        """The number of steps."""
        by_epochs = self.epochs * self.batches if self.epochs and self.batches else None
        ends = [n for n in (by_epochs, self.ending) if n is not None]
        return min(ends, default=None)


@dataclass(frozen=True)
class Moment:
    """A training as it is: the epoch, how many steps were made of how many in all, the metrics of
    the last one, the learning rate, steps in a second, and the seconds that are left; None for what
    is not known."""

    epoch: int
    made: int
    total: int | None
    metrics: Mapping[str, Any]
    learning_rate: float | None
    speed: float
    left: float | None

    @property
    def figures(self) -> str:
        """`loss 0.0123  lr 0.001`."""
        rate = "" if self.learning_rate is None else f"lr {self.learning_rate:.3g}"
        return "  ".join(filter(None, (figures(self.metrics), rate)))

    @property
    def pace(self) -> str:
        """`812 steps/s  0:41 left`."""
        fast = self.speed >= 1
        pace = f"{self.speed:,.0f} steps/s" if fast else f"{1 / max(self.speed, 1e-9):.1f} s/step"
        return pace if self.left is None else f"{pace}  {duration(self.left)} left"


class View:
    """A way of showing a training; what it does not override shows nothing."""

    def start(self, plan: Plan) -> None:
        """The training begins."""

    def moment(self, moment: Moment) -> None:
        """It has come so far; some ten times a second."""

    def epoch(self, number: int, made: int, metrics: Mapping[str, Any]) -> None:
        """An epoch ends, after `made` steps."""

    def line(self, text: str) -> None:
        """A line of figures that stays."""

    def stop(self) -> None:
        """It ends, in whatever way."""


class Lines(View):
    """Lines of text, and nothing else."""

    def __init__(self, stream: IO[str]) -> None:
        self.stream = stream

    def line(self, text: str) -> None:
        self.stream.write(f"{text}\n")
        self.stream.flush()  # a pipe is read while the training runs
