"""The first values of a model's parameters and states."""

from __future__ import annotations

import numpy as np

from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import Array
from nncompile.program.model import Model, leaves_of


def initial_values(model: Model, seed: int) -> dict[str, Array]:
    """The first value of each parameter and state of the model, drawn from `seed`."""
    drawn = initial_expressions(model)
    known = {"seed": np.asarray(seed, np.int64), "step": np.zeros((), np.int64)}
    arrays = evaluate(list(drawn.values()), known)
    return {path: np.array(x, order="C") for path, x in zip(drawn, arrays, strict=True)}


def initial_expressions(model: Model) -> dict[str, Value]:
    """The first value of each parameter and state of the model, of the leaves `seed` and `step`
    alone."""
    known = {**model.parameters, **model.states}
    wanted = {path: value for path, value in model.initial.items() if path in known}
    order = list(wanted)
    values = [wanted[path] for path in order]
    leaves = {known[path]: value for path, value in wanted.items()}
    for _ in order:  # a value may build on others, as an average of weights starts at them
        if not any(leaf in leaves for leaf in leaves_of(values)):
            break
        values = replace(values, leaves)
    return dict(zip(order, values, strict=True))
