"""Several steps of training in one run, as a loop over their batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from nncompile.diagnostics.errors import ModelError
from nncompile.ir.dims import dim, symbols
from nncompile.ir.graph import Graph, input_of
from nncompile.ir.names import unused_name
from nncompile.ir.transform import replace
from nncompile.ops.loops.body import Loop, applied, binder, fresh
from nncompile.ops.loops.scan import Scan


def repeated(step: Graph, state_map: Mapping[str, str]) -> Graph:
    """The graph of as many steps as there are batches: each input of data has one more axis, the
    first, of the batches, and so has each metric. The state goes from one step to the next, as
    `state_map` says: of each state that changes, the output with its next value.

    An iteration computes what `step` computes, before or after the passes. Raises `ModelError` for
    a step without data, which has no batches to go through, `ShapeError` for one with sizes that
    depend on data.
    """
    data = step.of_kind("input")
    if not data:
        raise ModelError(f"{step.name} takes no data: there are no batches to go through")
    sizes = {str(size) for leaf in data.values() for size in symbols(leaf.shape)}
    length = dim(unused_name("steps", sizes, "_"))
    rows = {name: binder(fresh("row"), leaf.type) for name, leaf in data.items()}
    batches = {
        name: dataclasses.replace(input_of(x), type=x.type.with_shape((length, *x.shape)))()
        for name, x in data.items()
    }
    changing = {path: name for path, name in state_map.items() if path in step.leaves}
    carries = {path: binder(fresh("carry"), step.leaves[path].type) for path in changing}
    inside = {step.leaves[name]: x for name, x in (*carries.items(), *rows.items())}
    values = replace(list(step.outputs.values()), inside)
    results = dict(zip(step.outputs, values, strict=True))
    following = tuple(results.pop(name) for name in changing.values())
    loop = Loop(
        carries=tuple(carries.values()),
        initial=tuple(step.leaves[path] for path in changing),
        following=following,
        elements=tuple(rows.values()),
        sequences=tuple(batches.values()),
        results=tuple(results.values()),
        length=length,
    )
    last, stacks = applied(loop, Scan)
    outputs = dict(zip((*results, *changing.values()), (*stacks, *last), strict=True))
    inputs = tuple(batches.get(name, leaf) for name, leaf in step.leaves.items())
    return dataclasses.replace(step, name=f"{step.name}s", outputs=outputs, inputs=inputs)
