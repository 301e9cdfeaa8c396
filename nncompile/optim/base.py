"""What every optimizer is: options, slots and an update, all formulas in the graph.

What a slot holds is chosen so that a step reads and writes as few tensors as it can, all
corrections being numbers; each formula equals that of its paper.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.options import Fractions, NotNegative, Options
from nncompile.elementwise import sqrt
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import cast
from nncompile.ir.broadcasting import zeros_like
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f64
from nncompile.optim.schedules import LearningRate, Stateful, resolve

Slots = dict[str, Value]


class Optimizer(Options):
    """What one step makes of a parameter and its slots: a subclass is a frozen dataclass by itself,
    whose fields are its options, checked where their annotations say what they may be (see
    `Options`), and says its `slots` and its `update`.

    Raises `ModelError` for a learning rate that is not a number, schedule or function of the step,
    or is negative.
    """

    lr: LearningRate = 1e-3

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the tensors that are kept for each parameter `w`. The slot `m` of
        `stem.weight` is the state `stem.weight.m` of the training step, and of checkpoints."""
        return ()

    @property
    def averages(self) -> tuple[str, ...]:
        """Those of the slots that are averages of the parameter, to predict with."""
        return ()

    @property
    def together(self) -> bool:
        """Whether all parameters that follow this optimizer are one vector to it: `w` is then a
        vector of all of their numbers, and the slot `s` the state `training.NAME.s`, NAME the
        class."""
        return False

    def initial(self, w: Value) -> Slots:
        """What the slots of the parameter `w` hold before the first step, which also says their
        types: zeros like `w`, unless a subclass says otherwise."""
        return dict.fromkeys(self.slots, zeros_like(w)) if self.slots else {}

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        """The next parameter, and the next value of each slot by name.

        `w` is the parameter, `g` the gradient (of the type of `w`, clipped already), `slots` the
        slots by name, and `step` the number of the step, an i64 scalar that counts from
        zero. All results are values of the type of what they follow, computed from these in the
        graph; the learning rate at `step` is `resolve(self.lr, step, w.dtype)`.
        """
        raise ModelError(f"{type(self).__name__} does not say how it updates a parameter")

    @property
    def stateful(self) -> tuple[Stateful, ...]:
        """The learning rates with a state of their own that this optimizer follows."""
        return (self.lr,) if isinstance(self.lr, Stateful) else ()

    def of_loss(self, loss: str, maximized: bool, alone: bool) -> Optimizer:
        """The optimizer as it is in the update that minimizes that output: with the learning rates
        that watch it. See `Stateful.of_loss`."""
        if not isinstance(self.lr, Stateful):
            return self
        return replace(self, lr=self.lr.of_loss(loss, maximized, alone))


@formula
def descend(w: Any, g: Any, rate: Any, decay: Any = 1) -> Any:
    """decay·w − rate·g: one step of gradient descent."""
    return decay * w - rate * g


@formula
def accumulate(total: Any, g: Any, decay: Any, factor: Any = 1) -> Any:
    """decay·total + factor·g: a moving average of gradients."""
    return decay * total + factor * g


@formula
def accumulate_squares(total: Any, g: Any, decay: Any) -> Any:
    """decay·total + g²."""
    return decay * total + g * g


@formula
def normalise(m: Any, v: Any, eps: Any, scale: Any = 1) -> Any:
    """scale·m / (√v + eps): a step of Adam."""
    return scale * m / (sqrt(v) + eps)


@formula
def advance(w: Any, step: Any, scale: Any, decay: Any = 1) -> Any:
    """decay·w + scale·step."""
    return decay * w + scale * step


def descend_normalised(w: Any, m: Any, v: Any, scale: Any, eps: Any, decay: Any = 1) -> Any:
    """decay·w + scale·(m / (√v + eps)): divided first, so that scale and sum are one operation."""
    return advance(w, normalise(m, v, eps), scale, decay)


def penalised(g: Value, w: Value, weight_decay: float) -> Value:
    """The gradient of the loss plus ½·weight_decay·|w|²."""
    result: Value = accumulate(w, g, weight_decay) if weight_decay else g
    return result


def decay_factor(weight_decay: float, rate: Value | float) -> Any:
    """What decoupled weight decay leaves of a parameter: 1 − η·λ."""
    return 1 - weight_decay * rate if weight_decay else 1


class Moments(Optimizer):
    """Optimizers with a running mean of the gradient and of its square: slots `m` and `v`.

    They hold m/(1−β₁) and v/(1−β₂), so that m' = β₁·m + g and v' = β₂·v + g². With
    c = √((1−β₂ᵗ)/(1−β₂)), t = step + 1, m̂/(√v̂ + ε) = c·(1−β₁)/(1−β₁ᵗ)·m'/(√v' + c·ε): ten passes
    over tensors instead of fourteen. What stands before m' and c·ε are numbers, computed in
    float64, as 1−β₂ᵗ loses its digits in float32.
    """

    betas: Fractions = (0.9, 0.999)
    eps: NotNegative = 1e-8
    weight_decay: NotNegative = 0.0

    @property
    def slots(self) -> tuple[str, ...]:
        return ("m", "v")

    def _decayed(
        self, w: Value, g: Value, rate: Value | float, decoupled: bool
    ) -> tuple[Value, Any]:
        """The gradient with coupled weight decay, and what decoupled decay keeps of `w`."""
        if decoupled:
            return g, decay_factor(self.weight_decay, rate)
        return penalised(g, w, self.weight_decay), 1

    def _accumulated(self, g: Value, slots: Slots) -> Slots:
        return {
            "m": accumulate(slots["m"], g, self.betas[0]),
            "v": accumulate_squares(slots["v"], g, self.betas[1]),
        }

    @property
    def _norm(self) -> float:
        """√v of the paper is the root of the slot divided by this."""
        return float((1 - self.betas[1]) ** -0.5)

    def _root(self, t: Value) -> Value:
        """√(1−β₂ᵗ)."""
        result: Value = sqrt(1 - self.betas[1] ** t)
        return result


def count(step: Value) -> Value:
    """The number of the step counted from one, in float64."""
    return cast(step + 1, f64)


def scaled(factor: Value, rate: Value | float, dtype: DType) -> Value:
    """The float64 `factor` times the learning rate, as `dtype`."""
    if isinstance(rate, float):
        return cast(factor * rate, dtype)
    product: Value = cast(factor, dtype) * rate
    return product


__all__ = [
    "Moments",
    "Optimizer",
    "Slots",
    "accumulate",
    "accumulate_squares",
    "advance",
    "count",
    "decay_factor",
    "descend",
    "descend_normalised",
    "normalise",
    "penalised",
    "resolve",
    "scaled",
]
