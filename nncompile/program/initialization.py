"""The first values of a model's parameters and states."""

from __future__ import annotations

import numpy as np

from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import Array
from nncompile.program.model import Model, leaves_of


def initial_values(model: Model, seed: int, shared: bool = False) -> dict[str, Array]:
    """The first value of each parameter and state of the model, drawn from `seed`. Arrays that the
    model keeps, as those of a file, are copied, unless they are `shared`, and not written to."""
    expressions = initial_expressions(model)
    feeds = {"seed": np.asarray(seed, np.int64), "step": np.zeros((), np.int64)}
    arrays = evaluate(list(expressions.values()), feeds)
    taken = np.asarray if shared else np.array
    # One after the other, so that what is copied does not stay beside the copies of all.
    return {path: taken(arrays.pop(0), order="C") for path in expressions}


def initial_expressions(model: Model) -> dict[str, Value]:
    """The first value of each parameter and state of the model, of the leaves `seed` and `step`
    alone."""
    declared = {**model.parameters, **model.states}
    starts = {path: value for path, value in model.initial.items() if path in declared}
    order = list(starts)
    values = [starts[path] for path in order]
    leaves = {declared[path]: value for path, value in starts.items()}
    for _ in order:  # a value may build on others, as an average of weights starts at them
        if not any(leaf in leaves for leaf in leaves_of(values)):
            break
        values = replace(values, leaves)
    return dict(zip(order, values, strict=True))
