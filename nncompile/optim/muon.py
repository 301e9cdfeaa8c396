"""Muon: momentum whose steps are made orthogonal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from nncompile.diagnostics.errors import ModelError, whole_number
from nncompile.diagnostics.hints import teaching
from nncompile.elementwise import maximum, sqrt
from nncompile.ir.graph import Value
from nncompile.ops.core.basic import zeros_like
from nncompile.ops.shape.reshape import swapaxes
from nncompile.optim.adam import adamw
from nncompile.optim.base import Optimizer, Slots, accumulate, descend, kept
from nncompile.optim.schedules import LearningRate, Stateful, resolve

COEFFICIENTS = (3.4445, -4.775, 2.0315)


def orthogonalised(
    g: Value, rounds: int = 5, epsilon: float = 1e-7, factors: tuple[float, ...] = COEFFICIENTS
) -> Value:
    """U·S·Vᵀ of the matrix g = U·Σ·Vᵀ with singular values S near 1 (about 0.7 to 1.2), by rounds
    of X' = a·X + (b·A + c·A²)·X, A = X·Xᵀ, from X = g/max(|g|, ε) (Newton–Schulz, K. Jordan et
    al. 2024). The smaller axis comes first within, so that A is small."""
    tall = g.shape[0] > g.shape[1]
    a, b, c = factors
    x = swapaxes(g, 0, 1) if tall else g
    x = x / maximum(sqrt((x * x).sum()), epsilon)
    for _ in range(rounds):
        gram = x @ swapaxes(x, 0, 1)
        x = a * x + (b * gram + c * (gram @ gram)) @ x
    return swapaxes(x, 0, 1) if tall else x


@dataclass(frozen=True)
class Muon(Optimizer):
    """For matrices: b' = μ·b + (1−μ)·g, w' = (1 − η·λ)·w − η·s·orthogonalised(n), where n is
    (1−μ)·g + μ·b' (Nesterov's) or b' (K. Jordan et al. 2024, "Muon: an optimizer for hidden
    layers"). Parameters of another rank follow `others`, AdamW at the same rate by default; give
    embeddings and the last layer to it by name: `{"head.*": adamw(), "*": muon()}`.

    The factor s is √max(1, out/in) ("original"), 0.2·√max(out, in) ("match_rms_adamw", Liu et al.
    2025) or 1 (None), for weights laid out [in, out]; torch's are [out, in]. The iteration is in
    the parameter's own precision; torch's is in bfloat16. The slot `u` holds b/(1−μ).
    """

    momentum: float = 0.95
    nesterov: bool = True
    weight_decay: float = 0.1
    rounds: int = 5
    epsilon: float = 1e-7
    adjust: str | None = "original"
    others: Optimizer | None = field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_fraction("momentum")
        self._check_not_negative("weight_decay", "epsilon")
        whole_number("rounds", self.rounds, 1)
        if self.adjust not in ("original", "match_rms_adamw", None):
            raise ModelError(
                f"adjust must be 'original', 'match_rms_adamw' or None, got {self.adjust!r}"
            )
        if self.others is None:
            object.__setattr__(self, "others", adamw(self.rate, self.weight_decay))

    @property
    def stateful(self) -> tuple[Stateful, ...]:
        return (*super().stateful, *self._others.stateful)

    def of_loss(self, loss: str, maximized: bool, alone: bool) -> Optimizer:
        others = self._others.of_loss(loss, maximized, alone)
        return replace(super().of_loss(loss, maximized, alone), others=others)  # type: ignore[call-arg]

    def initial(self, w: Value) -> Slots:
        return {"u": zeros_like(w)} if w.rank == 2 else self._others.initial(w)

    def update(
        self, w: Value, g: Value, slots: Mapping[str, Value], step: Value
    ) -> tuple[Value, Slots]:
        if w.rank != 2:
            return self._others.update(w, g, slots, step)
        rate = resolve(self.rate, step, w.dtype)
        u = accumulate(slots["u"], g, self.momentum)
        ahead = accumulate(u, g, self.momentum) if self.nesterov else u
        # The slot is larger than b by 1/(1−μ), which falls out but for ε.
        direction = orthogonalised(ahead, self.rounds, self.epsilon / (1 - self.momentum))
        left = kept(self.weight_decay, rate)
        return descend(w, direction, rate * self._factor(w), left), {"u": u}

    @property
    def _others(self) -> Optimizer:
        assert self.others is not None  # given, or made at the start
        return self.others

    def _factor(self, w: Value) -> float:
        inward, outward = map(int, w.shape)
        match self.adjust:
            case "original":
                return math.sqrt(max(1, outward / max(inward, 1)))
            case "match_rms_adamw":
                return 0.2 * math.sqrt(max(outward, inward))
        return 1.0


@teaching
def muon(
    rate: LearningRate = 1e-3,
    weight_decay: float = 0.1,
    momentum: float = 0.95,
    nesterov: bool = True,
    rounds: int = 5,
    epsilon: float = 1e-7,
    adjust: str | None = "original",
    others: Optimizer | None = None,
) -> Optimizer:
    """Orthogonal steps for matrices, `others` for all else; see `Muon`."""
    return Muon(rate, momentum, nesterov, weight_decay, rounds, epsilon, adjust, others)
