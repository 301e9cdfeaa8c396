"""Optimizers that follow the gradient, or its sign, as it is: SGD, momentum, Nesterov, Lion,
averaged SGD, Rprop."""

from __future__ import annotations

from typing import Any

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.options import Bounds, Fraction, Fractions, NotNegative, Real
from nncompile.elementwise import clip, maximum, sign, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import as_value, cast
from nncompile.ir.broadcasting import full
from nncompile.ir.op import Value
from nncompile.ir.types import f64
from nncompile.optim.base import Optimizer, Slots, accumulate, decay_factor, descend, penalised
from nncompile.optim.schedules import LearningRate, declared_rate, resolve


class sgd(Optimizer):
    """Gradient descent, with momentum or Nesterov's: w' = w − η·g; with momentum v' = μ·v + g and
    w' = w − η·v', or Nesterov's w' = w − η·(g + μ·v').

    Where η is a number the slot `u` holds η·v, so that u' = μ·u + η·g and w' = w − u': one pass
    over the tensors less. Weight decay adds λ·w to the gradient. With a dampening τ,
    v' = μ·v + (1−τ)·g, but for the first step, where v' = g, as torch's.
    """

    lr: LearningRate = 0.1
    momentum: Fraction = 0.0
    dampening: Real = 0.0
    weight_decay: NotNegative = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.nesterov and (not self.momentum or self.dampening):
            raise ModelError(
                "nesterov needs a momentum and no dampening",
                hint="sgd(0.1, momentum=0.9, nesterov=True)",
            )

    @property
    def slots(self) -> tuple[str, ...]:
        return ("u",) if self.momentum else ()

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        rate = resolve(self.lr, step, w.dtype)
        g = penalised(g, w, self.weight_decay)
        if not self.momentum:
            return descend(w, g, rate), {}
        # Scales of the gradient as it enters the slot, and of the slot as it leaves.
        inward: Value | float
        outward: Value | float
        inward, outward = (rate, 1) if isinstance(rate, float) else (1, rate)
        declared = declared_rate(self.lr)
        if declared and not isinstance(rate, float):  # a rate that can be set: the slot is the same
            inward, outward = declared, cast(resolve(self.lr, step, f64) / declared, w.dtype)
        if self.dampening:
            inward = inward * where(step == 0, as_value(1.0, w), 1 - self.dampening)
        u = accumulate(slots["u"], g, self.momentum, inward)
        ahead = accumulate(u, g, self.momentum, inward) if self.nesterov else u
        return descend(w, ahead, outward), {"u": u}


@formula
def _descend_sign(w: Any, m: Any, g: Any, share: Any, rate: Any, decay: Any = 1) -> Any:
    return decay * w - rate * sign(share * m + g)


class lion(Optimizer):
    """Steps of one size along the sign of a running mean:
    w' = (1 − η·λ)·w − η·sign(β₁·m + (1−β₁)·g), then m' = β₂·m + (1−β₂)·g (Chen et al. 2023,
    "Symbolic discovery of optimization algorithms", algorithm 2). The sign of zero is zero.

    The slot `m` holds m/(1−β₂), so that m' = β₂·m + g.
    """

    lr: LearningRate = 1e-4
    betas: Fractions = (0.9, 0.99)
    weight_decay: NotNegative = 0.0

    slots = ("m",)

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        rate = resolve(self.lr, step, w.dtype)
        beta1, beta2 = self.betas
        share = beta1 * (1 - beta2) / (1 - beta1)
        decay = decay_factor(self.weight_decay, rate)
        following = _descend_sign(w, slots["m"], g, share, rate, decay)
        return following, {"m": accumulate(slots["m"], g, beta2)}


class asgd(Optimizer):
    """Gradient descent of falling steps, and the average of its weights: w' = (1 − λ·ηₜ)·w − ηₜ·g
    with ηₜ = η/(1 + λ·η·t)^α, t the number of the step from 0, and the average a' = a + (w' −
    a)/max(1, t − t₀), which is w' up to the step t₀ (Polyak & Juditsky 1992; the falling rate of
    Bottou 2010, as in torch, `lambd`, `alpha` and `t0` too).

    The slot `ax` is the average: `trainer.averaged("ax")` predicts with it. Where η follows a
    schedule, ηₜ is that of the step itself (torch's is that of the step before). Weight decay adds
    to the gradient.
    """

    lr: LearningRate = 0.01
    lambd: NotNegative = 1e-4
    alpha: NotNegative = 0.75
    t0: NotNegative = 1e6
    weight_decay: NotNegative = 0.0

    slots = ("ax",)

    averages = ("ax",)

    def initial(self, w: Value) -> Slots:
        return {"ax": w}

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        t, rate = cast(step, f64), resolve(self.lr, step, f64)
        falling = rate / (1 + self.lambd * rate * t) ** self.alpha
        decay = cast(1 - self.lambd * falling, w.dtype)
        share = cast(1 / maximum(t - self.t0, 1.0), w.dtype)
        g = penalised(g, w, self.weight_decay)
        following = descend(w, g, cast(falling, w.dtype), decay)
        # So that the average of the first steps is the weight to the last bit.
        return following, {"ax": accumulate(slots["ax"], following, 1 - share, share)}


@formula
def _sized(size: Any, g: Any, before: Any, less: Any, more: Any, low: Any, high: Any) -> Any:
    # Not g·before, which is zero where both are small.
    turn = sign(g) * before
    return clip(size * where(turn > 0, more, where(turn < 0, less, 1)), low, high)


@formula
def _unless_turned(g: Any, before: Any) -> Any:
    return where(sign(g) * before < 0, 0, g)


class rprop(Optimizer):
    """Steps along the sign of the gradient, of a size for each number: w' = w − s'·sign(g), where
    s' = s·η⁺ where the gradient has the sign that it had before, s·η⁻ where it has the other one,
    in which case the number stays for this step; s' within `step_sizes` (Riedmiller & Braun 1993,
    as torch's, without going back). For whole sets of data: it follows signs, which are those of
    noise from batch to batch.

    `etas` are η⁻ and η⁺. The rate is where the sizes begin, one number: a schedule has nothing
    to say after that, and is a `ModelError`. Slots: `prev`, the gradient that counted last (0 after
    a turn), and `step_size`.
    """

    lr: LearningRate = 0.01
    etas: Bounds = (0.5, 1.2)
    step_sizes: Bounds = (1e-6, 50.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if callable(self.lr):
            raise ModelError(
                "the learning rate of rprop must be a number: the step sizes start from it and "
                "adapt themselves",
                hint="rprop(0.01); step_sizes=(1e-6, 50) bounds them",
            )
        less, more = self.etas
        if not 0 < less < 1 < more:
            raise ModelError(f"etas must be one below 1 and one above, got {self.etas}")
        if not self.step_sizes[0] <= self.step_sizes[1]:
            raise ModelError(
                f"step_sizes must be the minimum and the maximum, got {self.step_sizes}"
            )

    slots = ("prev", "step_size")

    def initial(self, w: Value) -> Slots:
        return super().initial(w) | {"step_size": full(w.shape, self.lr, w.dtype)}

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        before = slots["prev"]
        size = _sized(slots["step_size"], g, before, *self.etas, *self.step_sizes)
        counted = _unless_turned(g, before)
        return descend(w, sign(counted), size), {"prev": counted, "step_size": size}
