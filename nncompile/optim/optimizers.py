"""Optimizers: the next value of a parameter and of its slots, as formulas.

What a slot holds is chosen so that a step reads and writes as few tensors as it can, all
corrections being numbers; each formula equals that of its paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nncompile.elementwise import sqrt
from nncompile.errors import ModelError
from nncompile.formula import formula
from nncompile.graph import Value
from nncompile.ops.basic import cast
from nncompile.optim.schedules import LearningRate, not_negative, real, resolve
from nncompile.types import f64

Slots = dict[str, Value]


@dataclass(frozen=True)
class Optimizer:
    """What one step makes of a parameter and its slots: a subclass is a frozen dataclass whose
    fields are its options, and says its `slots` and its `update`.

    Raises `ModelError` for a learning rate that is no number, schedule or function of the step,
    or is negative.
    """

    rate: LearningRate

    def __post_init__(self) -> None:
        if not callable(self.rate):
            self._normalise("rate", not_negative("a learning rate", self.rate))

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of the tensors that are kept for each parameter `w`, each of the type of `w`
        and zero before the first step. The slot `m` of `stem.weight` is the state
        `stem.weight.m` of the training step, and of checkpoints."""
        return ()

    def update(
        self, w: Value, g: Value, slots: Mapping[str, Value], step: Value
    ) -> tuple[Value, Slots]:
        """The next parameter, and the next value of each slot by name.

        `w` is the parameter, `g` the gradient (of the type of `w`, clipped already), `slots` the
        slots by name, and `step` the number of the step, an i64 without axes that counts from
        zero. All results are values of the type of `w`, computed from these in the graph; the
        learning rate at `step` is `resolve(self.rate, step, w.dtype)`.
        """
        raise ModelError(f"{type(self).__name__} does not say how it updates a parameter")

    def _normalise(self, name: str, x: float) -> None:
        object.__setattr__(self, name, x)

    def _check_fraction(self, *names: str) -> None:
        for name in names:
            x = real(name, getattr(self, name))
            if not 0 <= x < 1:
                raise ModelError(f"{name} must be at least 0 and below 1, got {x}")
            self._normalise(name, x)

    def _check_not_negative(self, *names: str) -> None:
        for name in names:
            self._normalise(name, not_negative(name, getattr(self, name)))


@formula
def _descend(w: Any, g: Any, rate: Any) -> Any:
    return w - rate * g


@formula
def _accumulate(total: Any, g: Any, decay: Any, factor: Any = 1) -> Any:
    return decay * total + factor * g


@formula
def _accumulate_squares(total: Any, g: Any, decay: Any) -> Any:
    return decay * total + g * g


@formula
def _normalise(m: Any, v: Any, epsilon: Any, scale: Any = 1) -> Any:
    return scale * m / (sqrt(v) + epsilon)


@formula
def _descend_normalised(w: Any, m: Any, v: Any, scale: Any, epsilon: Any, kept: Any = 1) -> Any:
    return kept * w + scale * m / (sqrt(v) + epsilon)


def _penalised(g: Value, w: Value, weight_decay: float) -> Value:
    """The gradient of the loss plus ½·weight_decay·|w|²."""
    penalised: Value = _accumulate(w, g, weight_decay) if weight_decay else g
    return penalised


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
        g = _penalised(g, w, self.weight_decay)
        if not self.momentum:
            return _descend(w, g, rate), {}
        # What scales the gradient on its way into the slot, and the slot on its way out.
        inward, outward = (rate, 1) if isinstance(rate, float) else (1, rate)
        u = _accumulate(slots["u"], g, self.momentum, inward)
        ahead = _accumulate(u, g, self.momentum, inward) if self.nesterov else u
        return _descend(w, ahead, outward), {"u": u}


@dataclass(frozen=True)
class RMSProp(Optimizer):
    """v' = ρ·v + (1−ρ)·g², w' = w − η·g/(√v' + ε); with momentum, b' = μ·b + g/(√v' + ε) and
    w' = w − η·b' (Tieleman & Hinton 2012, ε outside the root).

    The slot `v` holds v/(1−ρ), so that v' = ρ·v + g².
    """

    decay: float = 0.99
    epsilon: float = 1e-8
    momentum: float = 0.0
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_fraction("decay", "momentum")
        self._check_not_negative("epsilon", "weight_decay")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("v", "b") if self.momentum else ("v",)

    def update(
        self, w: Value, g: Value, slots: Mapping[str, Value], step: Value
    ) -> tuple[Value, Slots]:
        rate = resolve(self.rate, step, w.dtype)
        g = _penalised(g, w, self.weight_decay)
        scale = (1 - self.decay) ** -0.5  # g/(√((1−ρ)v) + ε) = scale·g/(√v + scale·ε)
        v = _accumulate_squares(slots["v"], g, self.decay)
        if not self.momentum:
            return _descend_normalised(w, g, v, -scale * rate, scale * self.epsilon), {"v": v}
        b = _accumulate(slots["b"], _normalise(g, v, scale * self.epsilon, scale), self.momentum)
        return _descend(w, b, rate), {"v": v, "b": b}


@dataclass(frozen=True)
class Adam(Optimizer):
    """m' = β₁·m + (1−β₁)·g, v' = β₂·v + (1−β₂)·g², w' = w − η·m̂/(√v̂ + ε) with m̂ = m'/(1−β₁ᵗ),
    v̂ = v'/(1−β₂ᵗ), t from 1 (Kingma & Ba 2015).

    The slots hold m/(1−β₁) and v/(1−β₂), so that m' = β₁·m + g and v' = β₂·v + g²; with
    c = √((1−β₂ᵗ)/(1−β₂)) the step is w' = w − η·c·(1−β₁)/(1−β₁ᵗ)·m'/(√v' + c·ε), ten passes over
    tensors instead of fourteen. What stands before m' and c·ε are numbers, computed in float64,
    as 1−β₂ᵗ loses its digits in float32.

    Weight decay adds λ·w to the gradient; decoupled (AdamW, Loshchilov & Hutter 2019), it takes
    η·λ·w from the parameter.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    decoupled: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_fraction("beta1", "beta2")
        self._check_not_negative("epsilon", "weight_decay")

    @property
    def slots(self) -> tuple[str, ...]:
        return ("m", "v")

    def update(
        self, w: Value, g: Value, slots: Mapping[str, Value], step: Value
    ) -> tuple[Value, Slots]:
        rate = resolve(self.rate, step, w.dtype)
        if not self.decoupled:
            g = _penalised(g, w, self.weight_decay)
        t = cast(step + 1, f64)
        root = sqrt(1 - self.beta2**t)
        norm = (1 - self.beta2) ** -0.5
        factor = (self.beta1 - 1) * norm * (rate if isinstance(rate, float) else 1)
        scale = cast(root / (1 - self.beta1**t) * factor, w.dtype)
        scale = scale if isinstance(rate, float) else scale * rate
        epsilon = cast(root * (norm * self.epsilon), w.dtype)
        m = _accumulate(slots["m"], g, self.beta1)
        v = _accumulate_squares(slots["v"], g, self.beta2)
        kept = 1 - self.weight_decay * rate if self.decoupled and self.weight_decay else 1
        return _descend_normalised(w, m, v, scale, epsilon, kept), {"m": m, "v": v}


def sgd(
    rate: LearningRate = 0.1,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Gradient descent, with momentum or Nesterov's; see `SGD`."""
    return SGD(rate, momentum, nesterov, weight_decay)


def rmsprop(
    rate: LearningRate = 0.01,
    decay: float = 0.99,
    epsilon: float = 1e-8,
    momentum: float = 0.0,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Steps divided by a running root mean square of the gradient; see `RMSProp`."""
    return RMSProp(rate, decay, epsilon, momentum, weight_decay)


def adam(
    rate: LearningRate = 1e-3,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
    weight_decay: float = 0.0,
) -> Optimizer:
    """Running mean over running root mean square of the gradient; see `Adam`."""
    return Adam(rate, beta1, beta2, epsilon, weight_decay)


def adamw(
    rate: LearningRate = 1e-3,
    weight_decay: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.999,
    epsilon: float = 1e-8,
) -> Optimizer:
    """Adam with decoupled weight decay; see `Adam`."""
    return Adam(rate, beta1, beta2, epsilon, weight_decay, decoupled=True)
