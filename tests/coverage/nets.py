"""The networks that the coverage table trains, as a user writes them."""

from __future__ import annotations

from typing import Any

import dsl
from dsl import f32, model
from nncompile.program.model import Model


def network(penalty: Any = None, hidden: Any = None) -> Model:
    """Four inputs, eight hidden units, two results; the squared error is the loss, with what
    `penalty` makes of the two weights. `hidden` changes the hidden values."""

    @model
    def net(x: Any = f32["batch", 4], target: Any = f32["batch", 2]) -> dict[str, Any]:
        first, last = dsl.Dense(8, dsl.tanh, name="hidden"), dsl.Dense(2, name="out")
        between = x >> first
        y = (between if hidden is None else hidden(between)) >> last
        loss = dsl.mse(y, target)
        return {"y": y, "loss": loss}

    if penalty is None:
        return net  # type: ignore[no-any-return]

    @model
    def penalised(x: Any = f32["batch", 4], target: Any = f32["batch", 2]) -> dict[str, Any]:
        found = net(x, target)
        p = net.parameters
        return {"y": found["y"], "loss": found["loss"] + penalty(p)}

    return penalised  # type: ignore[no-any-return]
