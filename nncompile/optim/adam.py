"""The family of Adam: AMSGrad, AdamW, Adamax, NAdam, RAdam, LAMB."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from nncompile.diagnostics.options import NotNegative
from nncompile.elementwise import abs, maximum, sqrt, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import cast, const
from nncompile.ir.op import Value
from nncompile.ir.types import f64
from nncompile.optim.base import (
    Moments,
    Slots,
    accumulate,
    count,
    descend,
    descend_normalised,
    normalise,
    penalised,
    scaled,
)
from nncompile.optim.schedules import LearningRate, resolve


class adam(Moments):
    """Running mean over running root mean square of the gradient: m' = β₁·m + (1−β₁)·g,
    v' = β₂·v + (1−β₂)·g², w' = w − η·m̂/(√v̂ + ε) with m̂ = m'/(1−β₁ᵗ), v̂ = v'/(1−β₂ᵗ), t from 1
    (Kingma & Ba 2015); for what the slots hold see `Moments`.

    AMSGrad (Reddi, Kale & Kumar 2018) takes the largest v' so far in place of v', a third slot
    `vmax`; as in torch, it is corrected after the maximum is taken. Weight decay adds λ·w to the
    gradient; decoupled (Loshchilov & Hutter 2019), it takes η·λ·w from the parameter.
    """

    amsgrad: bool = False
    decoupled_weight_decay: bool = False

    @property
    def slots(self) -> tuple[str, ...]:
        return ("m", "v", "vmax") if self.amsgrad else ("m", "v")

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        rate = resolve(self.lr, step, w.dtype)
        g, decay = self._decayed(w, g, rate, self.decoupled_weight_decay)
        t = count(step)
        root = self._root(t)
        factor = (self.betas[0] - 1) * self._norm * (rate if isinstance(rate, float) else 1)
        scale = cast(root / (1 - self.betas[0] ** t) * factor, w.dtype)
        scale = scale if isinstance(rate, float) else scale * rate
        eps = cast(root * (self._norm * self.eps), w.dtype)
        following = self._accumulated(g, slots)
        v = following["v"]
        if self.amsgrad:
            v = following["vmax"] = maximum(slots["vmax"], v)
        return descend_normalised(w, following["m"], v, scale, eps, decay), following


class adamw(adam):
    """`adam` with decoupled weight decay."""

    weight_decay: NotNegative = 0.01
    decoupled_weight_decay: bool = field(default=True, init=False, repr=False)


@formula
def _largest(u: Any, g: Any, decay: Any, eps: Any) -> Any:
    return maximum(decay * u, abs(g) + eps)


@formula
def _descend_by_largest(w: Any, m: Any, u: Any, scale: Any) -> Any:
    return w - scale * m / u


class adamax(Moments):
    """Running mean over the largest gradient of late: m' = β₁·m + (1−β₁)·g, u' = max(β₂·u, |g| +
    ε), w' = w − η/(1−β₁ᵗ)·m'/u' (Kingma & Ba 2015, section 7.1; ε as in torch). The slots are `m`,
    see `Moments`, and `u`."""

    lr: LearningRate = 2e-3

    slots = ("m", "u")

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        rate = resolve(self.lr, step, w.dtype)
        g = penalised(g, w, self.weight_decay)
        m = accumulate(slots["m"], g, self.betas[0])
        u = _largest(slots["u"], g, self.betas[1], self.eps)
        scale = scaled((1 - self.betas[0]) / (1 - self.betas[0] ** count(step)), rate, w.dtype)
        return _descend_by_largest(w, m, u, scale), {"m": m, "u": u}


@formula
def _descend_ahead(
    w: Any, g: Any, m: Any, v: Any, g_scale: Any, m_scale: Any, eps: Any, decay: Any = 1
) -> Any:
    return decay * w - (g_scale * g + m_scale * m) / (sqrt(v) + eps)


class nadam(Moments):
    """Adam with Nesterov's momentum: with μₜ = β₁·(1 − ½·0.96^(t·ψ)) and Πₜ = μ₁⋯μₜ,
    w' = w − η·((1−μₜ)/(1−Πₜ)·g + μₜ₊₁/(1−Πₜ₊₁)·m')/(√v̂ + ε) (Dozat 2016; ψ is `momentum_decay`).

    The slot `product` is Πₜ, one float64 number; for the others see `Moments`.
    """

    lr: LearningRate = 2e-3
    momentum_decay: NotNegative = 4e-3
    decoupled_weight_decay: bool = False

    slots = ("m", "v", "product")

    def initial(self, w: Value) -> Slots:
        return super().initial(w) | {"product": const(1.0, f64)}

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        rate = resolve(self.lr, step, w.dtype)
        g, decay = self._decayed(w, g, rate, self.decoupled_weight_decay)
        t = count(step)
        momentum, next_momentum = self._momentum(t), self._momentum(t + 1)
        product = slots["product"] * momentum
        factor = self._root(t) * self._norm
        g_scale = scaled(factor * (1 - momentum) / (1 - product), rate, w.dtype)
        m_scale = factor * next_momentum / (1 - product * next_momentum) * (1 - self.betas[0])
        following = self._accumulated(g, slots)
        w_next = _descend_ahead(
            w,
            g,
            following["m"],
            following["v"],
            g_scale,
            scaled(m_scale, rate, w.dtype),
            cast(factor * self.eps, w.dtype),
            decay,
        )
        return w_next, following | {"product": product}

    def _momentum(self, t: Value) -> Value:
        result: Value = self.betas[0] * (1 - 0.5 * 0.96 ** (t * self.momentum_decay))
        return result


@formula
def _descend_rectified(
    w: Any, m: Any, v: Any, trusted: Any, scale: Any, eps: Any, decay: Any = 1
) -> Any:
    return decay * w - scale * where(trusted, m / (sqrt(v) + eps), m)


class radam(Moments):
    """Adam that warms itself up: its first steps, while the variance of 1/√v̂ is not known, are
    momentum's alone.

    With ρ∞ = 2/(1−β₂) − 1 and ρₜ = ρ∞ − 2·t·β₂ᵗ/(1−β₂ᵗ): w' = w − η·rₜ·m̂/(√v' + ε)·√(1−β₂ᵗ),
    rₜ² = (ρₜ−4)(ρₜ−2)ρ∞/((ρ∞−4)(ρ∞−2)ρₜ), where ρₜ > 5, and w' = w − η·m̂ before (Liu et al.
    2020; the bound of 5 and the place of ε as in torch).
    """

    decoupled_weight_decay: bool = False

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        rate = resolve(self.lr, step, w.dtype)
        g, decay = self._decayed(w, g, rate, self.decoupled_weight_decay)
        t = count(step)
        final = 2 / (1 - self.betas[1]) - 1
        power = self.betas[1] ** t
        length = final - 2 * t * power / (1 - power)
        trusted = length > 5
        safe = maximum(length, 5.0)
        rectification = (safe - 4) * (safe - 2) * final / ((final - 4) * (final - 2) * safe)
        factor = where(trusted, sqrt(rectification) * self._root(t) * self._norm, 1.0)
        scale = factor / (1 - self.betas[0] ** t) * (1 - self.betas[0])
        following = self._accumulated(g, slots)
        w_next = _descend_rectified(
            w,
            following["m"],
            following["v"],
            trusted,
            scaled(scale, rate, w.dtype),
            self._norm * self.eps,
            decay,
        )
        return w_next, following


class lamb(Moments):
    """Adam with steps in proportion to each parameter, for large batches: u = m̂/(√v̂ + ε) + λ·w,
    w' = w − η·|w|/|u|·u, the Euclidean norms over the whole parameter, and |w|/|u| taken for 1
    where either is zero (You et al. 2020, algorithm 2 with φ(z) = z)."""

    eps: NotNegative = 1e-6
    weight_decay: NotNegative = 0.01

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        rate = resolve(self.lr, step, w.dtype)
        t = count(step)
        factor = self._root(t) * self._norm
        scale = cast(factor * (1 - self.betas[0]) / (1 - self.betas[0] ** t), w.dtype)
        following = self._accumulated(g, slots)
        eps = cast(factor * self.eps, w.dtype)
        u = normalise(following["m"], following["v"], eps, scale)
        u = u + self.weight_decay * w if self.weight_decay else u
        length, size = sqrt((w * w).sum()), sqrt((u * u).sum())
        moves = (length > 0) & (size > 0)
        trust = where(moves, length / where(moves, size, 1), 1)
        return descend(w, u, rate * trust), following
