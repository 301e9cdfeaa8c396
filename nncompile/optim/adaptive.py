"""Optimizers that divide the gradient by the root of its squares: AdaGrad, AdaDelta, RMSProp."""

from __future__ import annotations

from typing import Any

from nncompile.diagnostics.options import Fraction, NotNegative
from nncompile.elementwise import maximum, sqrt
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import cast
from nncompile.ir.broadcasting import full
from nncompile.ir.op import Value
from nncompile.optim.base import (
    Optimizer,
    Slots,
    accumulate,
    accumulate_squares,
    descend,
    descend_normalised,
    normalise,
    penalised,
)
from nncompile.optim.schedules import LearningRate, resolve


class adagrad(Optimizer):
    """Steps divided by the root of the sum of all squared gradients: v' = v + g²,
    w' = w − η/(1 + d·step)·g/(√v' + ε) (Duchi, Hazan & Singer 2011; ε outside the root, the decay d
    of the rate, `lr_decay`, and the start of v, `initial_accumulator_value`, as in torch)."""

    lr: LearningRate = 0.01
    lr_decay: NotNegative = 0.0
    weight_decay: NotNegative = 0.0
    initial_accumulator_value: NotNegative = 0.0
    eps: NotNegative = 1e-10

    slots = ("v",)

    def initial(self, w: Value) -> Slots:
        return {"v": full(w.shape, self.initial_accumulator_value, w.dtype)}

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        rate = resolve(self.lr, step, w.dtype)
        if self.lr_decay:
            rate = rate / (1 + self.lr_decay * cast(step, w.dtype))
        g = penalised(g, w, self.weight_decay)
        v = accumulate_squares(slots["v"], g, 1)
        return descend_normalised(w, g, v, -rate, self.eps), {"v": v}


@formula
def _ratio(g: Any, v: Any, d: Any, eps: Any) -> Any:
    return sqrt(d + eps) / sqrt(v + eps) * g


class adadelta(Optimizer):
    """Steps in units of the parameter, from running squares of both: v' = ρ·v + (1−ρ)·g², Δ = √(d +
    ε)/√(v' + ε)·g, d' = ρ·d + (1−ρ)·Δ², w' = w − η·Δ (Zeiler 2012, ε inside the roots; the paper's
    η is 1).

    The slots hold v/(1−ρ) and d/(1−ρ), so that v' = ρ·v + g² and d' = ρ·d + Δ² with ε/(1−ρ) in
    both roots.
    """

    lr: LearningRate = 1.0
    rho: Fraction = 0.9
    eps: NotNegative = 1e-6
    weight_decay: NotNegative = 0.0

    slots = ("v", "d")

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        rate = resolve(self.lr, step, w.dtype)
        g = penalised(g, w, self.weight_decay)
        v = accumulate_squares(slots["v"], g, self.rho)
        delta = _ratio(g, v, slots["d"], self.eps / (1 - self.rho))
        d = accumulate_squares(slots["d"], delta, self.rho)
        return descend(w, delta, rate), {"v": v, "d": d}


@formula
def _variance(v: Any, m: Any, share: Any) -> Any:
    # Rounding may take it below zero, where the root would not be a number.
    return maximum(v - share * m * m, 0)


class rmsprop(Optimizer):
    """Steps divided by a running root mean square of the gradient: v' = α·v + (1−α)·g², w' = w −
    η·g/(√v' + ε); with momentum, b' = μ·b + g/(√v' + ε) and w' = w − η·b' (Tieleman & Hinton 2012,
    ε outside the root as in torch).

    Centred, the variance takes the place of v': m' = α·m + (1−α)·g and v' − m'² (Graves 2013).
    The slots `v` and `m` hold v/(1−α) and m/(1−α), so that v' = α·v + g².
    """

    lr: LearningRate = 0.01
    alpha: Fraction = 0.99
    eps: NotNegative = 1e-8
    weight_decay: NotNegative = 0.0
    momentum: Fraction = 0.0
    centered: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        return ("v", *(("m",) if self.centered else ()), *(("b",) if self.momentum else ()))

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        rate = resolve(self.lr, step, w.dtype)
        g = penalised(g, w, self.weight_decay)
        scale = (1 - self.alpha) ** -0.5  # g/(√((1−α)v) + ε) = scale·g/(√v + scale·ε)
        following = {"v": accumulate_squares(slots["v"], g, self.alpha)}
        v = following["v"]
        if self.centered:
            following["m"] = accumulate(slots["m"], g, self.alpha)
            v = _variance(v, following["m"], 1 - self.alpha)
        if not self.momentum:
            return descend_normalised(w, g, v, -scale * rate, scale * self.eps), following
        b = accumulate(slots["b"], normalise(g, v, scale * self.eps, scale), self.momentum)
        return descend(w, b, rate), following | {"b": b}
