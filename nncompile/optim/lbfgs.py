"""L-BFGS: steps along the gradient times an inverse Hessian estimated from the last steps."""

from __future__ import annotations

from dataclasses import field

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.options import Count, NotNegative
from nncompile.elementwise import abs, maximum, where
from nncompile.ir.basic import const
from nncompile.ir.broadcasting import full, zeros_like
from nncompile.ir.op import Value
from nncompile.ops.loops.scan import scan
from nncompile.ops.reduction.statistics import all, any
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.reshape import expand_dims
from nncompile.optim.base import Optimizer, Slots
from nncompile.optim.schedules import LearningRate, resolve

CURVED = 1e-10  # what y·s is at least, where a pair says how the gradient bends


class lbfgs(Optimizer):
    """Steps by an inverse Hessian from the last steps: w' = w − η·H·g, of all parameters as
    one vector, where H is the inverse Hessian that the last
    `history_size` pairs of a step s and the change y of the gradient over it tell (J. Nocedal 1980;
    the two loops of Nocedal & Wright, "Numerical Optimization", algorithm 7.4, from y·s/y·y times
    the identity). The first step is η·min(1, 1/Σ|g|)·g.

    One step of it is one iteration of torch's (`max_iter=1`, without a line search, which is
    torch's default): a pair with y·s ≤ 10⁻¹⁰ is not kept, no gradient above `tolerance_grad` leaves
    all as it is, and a gradient along the step above −`tolerance_change` leaves the parameters. A
    search for the length of the step would evaluate loss and gradient as often as the data ask
    for, and a graph has them once; a smaller rate, or one that falls, takes its place. It is for
    whole sets of data: over batches, y is the noise of their difference, too.

    Parameters that follow equal optimizers are one vector. Slots, each `training.lbfgs.NAME`: the
    pairs `s` and `y`, `[history_size, numbers]`, with `rho` = 1/(y·s), 0 where there is none yet;
    the last gradient `g` and step `move`, and `scale`, y·s/y·y.
    """

    lr: LearningRate = 1.0
    history_size: Count = 10
    tolerance_grad: NotNegative = 1e-7
    tolerance_change: NotNegative = 1e-9
    line_search_fn: None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.line_search_fn is not None:
            raise ModelError(
                f"lbfgs has no line search, got line_search_fn={self.line_search_fn!r}",
                hint="a line search evaluates the loss several times, a training step only "
                "once; lbfgs(0.5) takes half of each step",
            )

    together = True

    def initial(self, w: Value) -> Slots:
        pairs = full((self.history_size, *w.shape), 0, w.dtype)
        rho = full((self.history_size,), 0, w.dtype)
        empty = zeros_like(w)
        unit = const(1.0, w.dtype)
        return {"s": pairs, "y": pairs, "rho": rho, "g": empty, "move": empty, "scale": unit}

    def update(self, w: Value, g: Value, slots: Slots, step: Value) -> tuple[Value, Slots]:
        following = self._remembered(g, slots)
        direction = self._direction(g, following)
        begins = ~any(slots["g"] != 0)
        length = where(begins, 1 / maximum(abs(g).sum(), 1.0), 1.0)
        length = length * resolve(self.lr, step, w.dtype)
        # Written so that a NaN moves the parameters, and shows.
        rests = all(abs(g) <= self.tolerance_grad)
        stops = rests | ((g * direction).sum() > -self.tolerance_change)
        move = where(stops, 0.0, length * direction)
        following |= {"g": g, "move": move}
        return w + move, {n: where(rests, slots[n], x) for n, x in following.items()}

    def _remembered(self, g: Value, slots: Slots) -> Slots:
        """The pairs with that of the last step, where the gradient bends along it."""
        s, y = slots["move"], g - slots["g"]
        bend = (y * s).sum()
        is_pair = bend > CURVED

        def pushed(history: Value, new: Value) -> Value:
            moved = concatenate([history[1:], expand_dims(new, 0)], 0)
            result: Value = where(is_pair, moved, history)
            return result

        return {
            "s": pushed(slots["s"], s),
            "y": pushed(slots["y"], y),
            "rho": pushed(slots["rho"], 1 / where(is_pair, bend, 1.0)),
            "scale": where(is_pair, bend / where(is_pair, (y * y).sum(), 1.0), slots["scale"]),
        }

    def _direction(self, g: Value, slots: Slots) -> Value:
        """−H·g; a place without a pair, ρ = 0, changes nothing."""
        pairs = slots["s"], slots["y"], slots["rho"]

        def last_first(q: Value, s: Value, y: Value, rho: Value) -> tuple[Value, Value]:
            alpha = rho * (s * q).sum()
            return q - alpha * y, alpha

        def first_last(r: Value, s: Value, y: Value, rho: Value, alpha: Value) -> Value:
            beta = rho * (y * r).sum()
            result: Value = r + (alpha - beta) * s
            return result

        q, alphas = scan(last_first, -g, pairs, reverse=True)
        result: Value = scan(first_last, slots["scale"] * q, (*pairs, alphas))
        return result
