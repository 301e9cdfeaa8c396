"""A learning rate that the program which trains can set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.options import Options
from nncompile.elementwise import where
from nncompile.ir.basic import as_value, cast, const
from nncompile.ir.graph import Input
from nncompile.ir.op import Value
from nncompile.ir.types import f64
from nncompile.optim.schedules import TRAINING, LearningRate, Stateful, declared_rate

NAME = "adjustable"
_RATE = ".rate"
AS_DECLARED = -1.0
"""What the state is where the rate is that of `lr`, as any negative number says."""


class adjustable(Options, Stateful):
    """A rate that the program which trains can set from step to step: `lr`, a number or a schedule,
    until another one is put into its state.

    `trainer.learning_rate = 1e-4` does so, and makes a rate adjustable that is not yet. Declared in
    the recipe, it is so in the exported step, too, whose state input `training.NAME.rate`, a
    float64 number, any program can set. It begins as the number `lr`; where that is a schedule, it
    begins at −1. A negative number says that the rate is as `lr` says. What a schedule knows of the
    step, and a `plateau` of the metric, goes on beneath a rate that is set.

    The name is "adjustable" unless another is given; where a recipe minimizes several losses, that
    of a rate is "adjustable.LOSS".
    """

    lr: LearningRate = 1e-3
    name: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if isinstance(self.lr, adjustable):
            raise ModelError("the learning rate can be set already: adjustable within adjustable")

    @property
    def declared(self) -> float | None:
        return declared_rate(self.lr)

    @property
    def path(self) -> str:
        """The path of the state that holds the rate."""
        return f"{TRAINING}{self.name or NAME}{_RATE}"

    @property
    def initial(self) -> dict[str, Value]:
        number = AS_DECLARED if self.declared is None else self.declared
        beneath = self.lr.initial if isinstance(self.lr, Stateful) else {}
        return {self.path: const(number, f64), **beneath}

    @property
    def monitors(self) -> tuple[str, ...]:
        return self.lr.monitors if isinstance(self.lr, Stateful) else ()

    def of_loss(self, loss: str, maximized: bool, alone: bool) -> adjustable:
        beneath = self.lr
        if isinstance(beneath, Stateful):
            beneath = beneath.of_loss(loss, maximized, alone)
        name = self.name or (None if alone else f"{NAME}.{loss}")
        return replace(self, lr=beneath, name=name)

    def __call__(self, step: Value) -> Value:
        number = Input(self.path, f64[()], "state")()
        base = as_value(self.lr(step) if callable(self.lr) else self.lr, number)
        rate: Value = where(number < 0, cast(base, f64), number)
        return rate

    def following(self, outputs: Mapping[str, Value], step: Value) -> dict[str, Value]:
        return self.lr.following(outputs, step) if isinstance(self.lr, Stateful) else {}


def is_set_rate(path: str) -> bool:
    """Whether that is the path of a state that holds an adjustable rate."""
    return path.startswith(TRAINING) and path.endswith(_RATE)
