"""Adafactor: a second moment of rows and columns in place of one for each number."""

from __future__ import annotations

from typing import Annotated, Any

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.options import NotNegative, Real, not_negative, optional, pair
from nncompile.elementwise import maximum, minimum, sqrt
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import cast
from nncompile.ir.broadcasting import full
from nncompile.ir.op import Value
from nncompile.ops.reduction.statistics import mean
from nncompile.optim.base import Optimizer, Slots, count, decay_factor, descend
from nncompile.optim.schedules import LearningRate, resolve


@formula
def _mixed(total: Any, new: Any, share: Any) -> Any:
    return total + share * (new - total)


@formula
def _normalised(g: Any, variance: Any, least: Any) -> Any:
    return g / sqrt(maximum(variance, least))


class adafactor(Optimizer):
    """Steps in units of the parameter, with a second moment of rows and columns: the root mean
    square of the parameter, divided by the root of a running mean of squared gradients, of which a
    matrix keeps those of its rows and of its columns alone (Shazeer &
    Stern 2018, algorithms 4 and 5, with torch's options).

    With t from 1, ρ = t^`beta2_decay`, `eps` = (ε₁, ε₂) and rms(x) = √mean(x²): of a parameter of
    two axes or more, R' = R + ρ·(mean(g² along the last axis) − R), C' the same along the axis
    before it, and v = R'·C'/max(mean R', ε₁); otherwise v' = v + ρ·(g² − v). Then
    u = g/√max(v, ε₁²), w' = (1 − η·λ)·w − max(ε₂, rms(w))·min(η, 1/√t)·u/max(1, rms(u)/d).

    ε₁ is the smallest step from 1 of the element type where it is None. Slots: `row_var` and
    `col_var`, or `variance`. There is no running mean of the gradient, as in torch.
    """

    lr: LearningRate = 0.01
    beta2_decay: Real = -0.8
    eps: Annotated[tuple[float | None, float], pair(optional(not_negative), not_negative)] = (
        None,
        1e-3,
    )
    d: Real = 1.0
    weight_decay: NotNegative = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta2_decay <= 0:
            raise ModelError(f"beta2_decay must not be positive, got {self.beta2_decay}")
        if not self.d >= 1:
            raise ModelError(f"d must be at least 1, got {self.d}")

    def initial(self, w: Value) -> Slots:
        if w.rank < 2:
            return {"variance": full(w.shape, 0, w.dtype)}
        *lead, rows, columns = w.shape
        return {
            "row_var": full((*lead, rows, 1), 0, w.dtype),
            "col_var": full((*lead, 1, columns), 0, w.dtype),
        }

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        if 0 in w.shape:  # the mean of no numbers is NaN
            return w, dict(slots)
        rate, t = resolve(self.lr, step, w.dtype), count(step)
        eps, least_size = self.eps
        epsilon = w.dtype.eps if eps is None else eps
        following, variance = self._variance(g, slots, cast(t**self.beta2_decay, w.dtype), epsilon)
        u = _normalised(g, variance, epsilon * epsilon)
        size = maximum(_rms(w), least_size) * minimum(cast(1 / sqrt(t), w.dtype), rate)
        step_size = size / maximum(_rms(u) / self.d, 1.0)
        return descend(w, u, step_size, decay_factor(self.weight_decay, rate)), following

    def _variance(
        self, g: Value, slots: Slots, share: Value, epsilon: float
    ) -> tuple[Slots, Value]:
        """The next slots, and the running mean of g² that they stand for."""
        square = g * g
        if g.rank < 2:
            variance = _mixed(slots["variance"], square, share)
            return {"variance": variance}, variance
        rows = _mixed(slots["row_var"], mean(square, -1, keepdims=True), share)
        columns = _mixed(slots["col_var"], mean(square, -2, keepdims=True), share)
        row_mean = maximum(mean(rows, -2, keepdims=True), epsilon)
        return {"row_var": rows, "col_var": columns}, rows * columns / row_mean


def _rms(x: Value) -> Value:
    result: Value = sqrt(mean(x * x))
    return result
