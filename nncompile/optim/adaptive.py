"""Optimizers that divide the gradient by the root of its squares: AdaGrad, AdaDelta, RMSProp."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nncompile.diagnostics.hints import teaching
from nncompile.elementwise import maximum, sqrt
from nncompile.elementwise.formula import formula
from nncompile.ir.graph import Value
from nncompile.ops.core.basic import cast, full
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


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """v' = v + g², w' = w − η/(1 + d·step)·g/(√v' + ε) (Duchi, Hazan & Singer 2011; ε outside the
    root, the decay d of the rate and the start of v as in torch)."""

    rate_decay: float = 0.0
    weight_decay: float = 0.0
    start: float = 0.0
    epsilon: float = 1e-10

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_not_negative("rate_decay", "weight_decay", "start", "epsilon")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("v",)

    def initial(self, w: Value) -> Slots:
        return {"v": full(w.shape, self.start, w.dtype)}

    def update(
        self, w: Value, g: Value, slots: Mapping[str, Value], step: Value
    ) -> tuple[Value, Slots]:
        rate = resolve(self.rate, step, w.dtype)
        if self.rate_decay:
            rate = rate / (1 + self.rate_decay * cast(step, w.dtype))
        g = penalised(g, w, self.weight_decay)
        v = accumulate_squares(slots["v"], g, 1)
        return descend_normalised(w, g, v, -rate, self.epsilon), {"v": v}


@formula
def _ratio(g: Any, v: Any, d: Any, epsilon: Any) -> Any:
    return sqrt(d + epsilon) / sqrt(v + epsilon) * g


@dataclass(frozen=True)
class AdaDelta(Optimizer):
    """v' = ρ·v + (1−ρ)·g², Δ = √(d + ε)/√(v' + ε)·g, d' = ρ·d + (1−ρ)·Δ², w' = w − η·Δ (Zeiler
    2012, ε inside the roots; the paper's η is 1).

    The slots hold v/(1−ρ) and d/(1−ρ), so that v' = ρ·v + g² and d' = ρ·d + Δ² with ε/(1−ρ) in
    both roots.
    """

    decay: float = 0.9
    epsilon: float = 1e-6
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_fraction("decay")
        self._check_not_negative("epsilon", "weight_decay")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("v", "d")

    def update(
        self, w: Value, g: Value, slots: Mapping[str, Value], step: Value
    ) -> tuple[Value, Slots]:
        rate = resolve(self.rate, step, w.dtype)
        g = penalised(g, w, self.weight_decay)
        v = accumulate_squares(slots["v"], g, self.decay)
        delta = _ratio(g, v, slots["d"], self.epsilon / (1 - self.decay))
        d = accumulate_squares(slots["d"], delta, self.decay)
        return descend(w, delta, rate), {"v": v, "d": d}


@formula
def _variance(v: Any, m: Any, share: Any) -> Any:
    # Rounding may take it below zero, where the root would not be a number.
    return maximum(v - share * m * m, 0)


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """v' = ρ·v + (1−ρ)·g², w' = w − η·g/(√v' + ε); with momentum, b' = μ·b + g/(√v' + ε) and
    w' = w − η·b' (Tieleman & Hinton 2012, ε outside the root as in torch).

    Centred, the variance takes the place of v': m' = ρ·m + (1−ρ)·g and v' − m'² (Graves 2013).
    The slots `v` and `m` hold v/(1−ρ) and m/(1−ρ), so that v' = ρ·v + g².
    """

    decay: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0
    centered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_fraction("decay", "momentum")
        self._check_not_negative("epsilon", "weight_decay")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("v", *(("m",) if self.centered else ()), *(("b",) if self.momentum else ()))

    def update(
        self, w: Value, g: Value, slots: Mapping[str, Value], step: Value
    ) -> tuple[Value, Slots]:
        rate = resolve(self.rate, step, w.dtype)
        g = penalised(g, w, self.weight_decay)
        scale = (1 - self.decay) ** -0.5  # g/(√((1−ρ)v) + ε) = scale·g/(√v + scale·ε)
        following = {"v": accumulate_squares(slots["v"], g, self.decay)}
        v = following["v"]
        if self.centered:
            following["m"] = accumulate(slots["m"], g, self.decay)
            v = _variance(v, following["m"], 1 - self.decay)
        if not self.momentum:
            return descend_normalised(w, g, v, -scale * rate, scale * self.epsilon), following
        b = accumulate(slots["b"], normalise(g, v, scale * self.epsilon, scale), self.momentum)
        return descend(w, b, rate), following | {"b": b}


@teaching
def adagrad(
    rate: LearningRate = 0.01,
    rate_decay: float = 0.0,
    weight_decay: float = 0.0,
    start: float = 0.0,
    epsilon: float = 1e-10,
) -> Optimizer:
    """Steps divided by the root of the sum of all squared gradients; see `AdaGrad`."""
    return AdaGrad(rate, rate_decay, weight_decay, start, epsilon)


@teaching
def adadelta(
    rate: LearningRate = 1.0,
    decay: float = 0.9,
    epsilon: float = 1e-6,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Steps in units of the parameter, from running squares of both; see `AdaDelta`."""
    return AdaDelta(rate, decay, epsilon, weight_decay)


@teaching
def rmsprop(
    rate: LearningRate = 0.01,
    decay: float = 0.99,
    epsilon: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
    centered: bool = False,
) -> Optimizer:
    """Steps divided by a running root mean square of the gradient; see `RMSProp`."""
    return RMSProp(rate, decay, epsilon, momentum, weight_decay, centered)
