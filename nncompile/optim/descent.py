"""Optimizers that follow the gradient, or its sign, as it is: SGD, momentum, Nesterov, Lion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nncompile.elementwise import sign
from nncompile.errors import ModelError
from nncompile.formula import formula
from nncompile.graph import Value
from nncompile.habits import teaching
from nncompile.optim.base import Optimizer, Slots, accumulate, descend, kept, penalised
from nncompile.optim.schedules import LearningRate, resolve


@dataclass(frozen=True)
class SGD(Optimizer):
    """w' = w − η·g; with momentum v' = μ·v + g and w' = w − η·v', or Nesterov's
    w' = w − η·(g + μ·v').

    Where η is a number the slot `u` holds η·v, so that u' = μ·u + η·g and w' = w − u': one pass
    over the tensors less. Weight decay adds λ·w to the gradient.
    """

    momentum: float = 0.0
    nesterov: bool = False
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_fraction("momentum")
        self._check_not_negative("weight_decay")
        if self.nesterov and not self.momentum:
            raise ModelError(
                "nesterov needs a momentum", hint="sgd(rate, momentum=0.9, nesterov=True)"
            )

    @property
    def slots(self) -> tuple[str, ...]:
        return ("u",) if self.momentum else ()

    def update(
        self, w: Value, g: Value, slots: Mapping[str, Value], step: Value
    ) -> tuple[Value, Slots]:
        rate = resolve(self.rate, step, w.dtype)
        g = penalised(g, w, self.weight_decay)
        if not self.momentum:
            return descend(w, g, rate), {}
        # What scales the gradient on its way into the slot, and the slot on its way out.
        inward, outward = (rate, 1) if isinstance(rate, float) else (1, rate)
        u = accumulate(slots["u"], g, self.momentum, inward)
        ahead = accumulate(u, g, self.momentum, inward) if self.nesterov else u
        return descend(w, ahead, outward), {"u": u}


@formula
def _descend_sign(w: Any, m: Any, g: Any, share: Any, rate: Any, left: Any = 1) -> Any:
    return left * w - rate * sign(share * m + g)


@dataclass(frozen=True)
class Lion(Optimizer):
    """w' = (1 − η·λ)·w − η·sign(β₁·m + (1−β₁)·g), then m' = β₂·m + (1−β₂)·g (Chen et al. 2023,
    "Symbolic discovery of optimization algorithms", algorithm 2). The sign of zero is zero.

    The slot `m` holds m/(1−β₂), so that m' = β₂·m + g.
    """

    beta1: float = 0.9
    beta2: float = 0.99
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_fraction("beta1", "beta2")
        self._check_not_negative("weight_decay")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("m",)

    def update(
        self, w: Value, g: Value, slots: Mapping[str, Value], step: Value
    ) -> tuple[Value, Slots]:
        rate = resolve(self.rate, step, w.dtype)
        share = self.beta1 * (1 - self.beta2) / (1 - self.beta1)
        following = _descend_sign(w, slots["m"], g, share, rate, kept(self.weight_decay, rate))
        return following, {"m": accumulate(slots["m"], g, self.beta2)}


@teaching
def sgd(
    rate: LearningRate = 0.1,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Gradient descent, with momentum or Nesterov's; see `SGD`."""
    return SGD(rate, momentum, nesterov, weight_decay)


@teaching
def lion(
    rate: LearningRate = 1e-4,
    beta1: float = 0.9,
    beta2: float = 0.99,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Steps of one size along the sign of a running mean; see `Lion`."""
    return Lion(rate, beta1, beta2, weight_decay)
