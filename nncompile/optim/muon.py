"""Muon: momentum whose steps are made orthogonal."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.options import Count, Fraction, NotNegative
from nncompile.elementwise import maximum, sqrt
from nncompile.ir.broadcasting import zeros_like
from nncompile.ir.op import Value
from nncompile.ops.shape.reshape import swapaxes
from nncompile.optim.adam import adamw
from nncompile.optim.base import Optimizer, Slots, accumulate, decay_factor, descend
from nncompile.optim.schedules import Stateful, resolve

COEFFICIENTS = (3.4445, -4.775, 2.0315)


def orthogonalised(
    g: Value, steps: int = 5, eps: float = 1e-7, coefficients: tuple[float, ...] = COEFFICIENTS
) -> Value:
    """U·S·Vᵀ of the matrix g = U·Σ·Vᵀ with singular values S near 1 (about 0.7 to 1.2), by steps
    of X' = a·X + (b·A + c·A²)·X, A = X·Xᵀ, from X = g/max(|g|, ε) (Newton–Schulz, K. Jordan et
    al. 2024). The smaller axis comes first within, so that A is small."""
    tall = g.shape[0] > g.shape[1]
    a, b, c = coefficients
    x = swapaxes(g, 0, 1) if tall else g
    x = x / maximum(sqrt((x * x).sum()), eps)
    for _ in range(steps):
        gram = x @ swapaxes(x, 0, 1)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return swapaxes(x, 0, 1) if tall else x


class muon(Optimizer):
    """Orthogonal steps for matrices, `others` for all else: b' = μ·b + (1−μ)·g, w' = (1 − η·λ)·w −
    η·s·orthogonalised(n), where n is (1−μ)·g + μ·b' (Nesterov's) or b' (K. Jordan et al. 2024,
    "Muon: an optimizer for hidden layers"). Parameters of another rank follow `others`, `adamw` at
    the same rate by default; give embeddings and the last layer to it by name: `{"head.*": adamw(),
    "*": muon()}`.

    The factor s, `adjust_lr_fn`, is √max(1, out/in) ("original", or None), 0.2·√max(out, in)
    ("match_rms_adamw", Liu et al. 2025) or 1 ("unscaled"), for weights laid out [in, out]; torch's
    are [out, in]. The iteration is in the parameter's own precision; torch's is in bfloat16. The
    slot `u` holds b/(1−μ).
    """

    weight_decay: NotNegative = 0.1
    momentum: Fraction = 0.95
    nesterov: bool = True
    ns_coefficients: tuple[float, float, float] = COEFFICIENTS
    eps: NotNegative = 1e-7
    ns_steps: Count = 5
    adjust_lr_fn: Literal["original", "match_rms_adamw", "unscaled"] | None = None
    others: Optimizer | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adjust_lr_fn not in (None, "original", "match_rms_adamw", "unscaled"):
            raise ModelError(
                "adjust_lr_fn must be 'original', 'match_rms_adamw' or 'unscaled', "
                f"got {self.adjust_lr_fn!r}"
            )
        if self.others is None:
            self._set("others", adamw(self.lr, weight_decay=self.weight_decay))

    @property
    def stateful(self) -> tuple[Stateful, ...]:
        return (*super().stateful, *self._others.stateful)

    def of_loss(self, loss: str, maximized: bool, alone: bool) -> Optimizer:
        fallback = self._others.of_loss(loss, maximized, alone)
        return replace(super().of_loss(loss, maximized, alone), others=fallback)  # type: ignore[call-arg]  # every field of a Muon

    def initial(self, w: Value) -> Slots:
        return {"u": zeros_like(w)} if w.rank == 2 else self._others.initial(w)

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        if w.rank != 2:
            return self._others.update(w, g, slots, step)
        rate = resolve(self.lr, step, w.dtype)
        u = accumulate(slots["u"], g, self.momentum)
        ahead = accumulate(u, g, self.momentum) if self.nesterov else u
        # The slot is larger than b by 1/(1−μ), which falls out but for ε.
        direction = orthogonalised(
            ahead, self.ns_steps, self.eps / (1 - self.momentum), self.ns_coefficients
        )
        decay = decay_factor(self.weight_decay, rate)
        return descend(w, direction, rate * self._factor(w), decay), {"u": u}

    @property
    def _others(self) -> Optimizer:
        assert self.others is not None  # given, or made at the start
        return self.others

    def _factor(self, w: Value) -> float:
        inward, outward = map(int, w.shape)
        match self.adjust_lr_fn:
            case "match_rms_adamw":
                return 0.2 * math.sqrt(max(outward, inward))
            case "unscaled":
                return 1.0
        return math.sqrt(max(1, outward / max(inward, 1)))
