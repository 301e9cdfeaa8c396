"""Work on weights that is done once, where they are known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from nncompile.ir.graph import Graph, Input, input_of, toposort
from nncompile.ir.interpreter import evaluate
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import Array, Type
from nncompile.passes.normalization_folding import fixed

SMALL = 1024  # elements of a result that may be kept beside the weights it is made of


def bake(graph: Graph, weights: Mapping[str, Array]) -> tuple[Graph, dict[str, Array]]:
    """The graph with what follows from the weights alone as new weights, and all its weights.

    The new ones are computed in double, and called after the largest that they are made of:
    `conv.weight_folded`. Where old and new ones would both have to be kept (a weight that is used
    in two places), large ones are not computed.
    """
    foldable = _foldable(graph, weights)
    names = {*graph.leaves, *graph.outputs}
    new: dict[Value, Value] = {}
    all_weights = dict(weights)
    for v in foldable:
        # One after the other, so that one alone is there in double.
        array = evaluate(v, weights, precision=np.float64)
        name = unused_name(f"{_largest(v)}_folded", names, "_")
        names.add(name)
        new[v] = Input(name, v.type, "parameter")()
        with np.errstate(over="ignore"):  # what is too large is infinite
            all_weights[name] = np.array(array, v.dtype.numpy, order="C")
    if not new:
        return graph, all_weights
    folded = graph.mapped(lambda outputs: replace(outputs, new))
    nodes = set(folded.nodes)
    folded = dataclasses.replace(folded, inputs=tuple(v for v in folded.inputs if v in nodes))
    return folded, {name: all_weights[name] for name in folded.leaves if name in all_weights}


def _foldable(graph: Graph, weights: Mapping[str, Array]) -> list[Value]:
    """What is computed from weights alone, is needed beside data, and takes no more room than
    the weights that are needed for nothing else."""
    is_fixed = fixed()
    needed = list(graph.outputs.values())
    needed += (a for v in graph.nodes if not is_fixed(v) for a in v.args)
    border = [v for v in dict.fromkeys(needed) if is_fixed(v)]
    users: dict[Value, int] = {}
    for v in border:
        is_small = bool(v.args) and v.type.is_static and math.prod(v.shape) <= SMALL
        for leaf in [] if is_small else _leaves(v):  # what is small is computed in any case
            users[leaf] = users.get(leaf, 0) + 1
    foldable = []
    for v in border:
        leaves = _leaves(v)
        if not v.args or not isinstance(v.type, Type) or not v.type.is_static or not leaves:
            continue
        freed = sum(math.prod(leaf.shape) for leaf in leaves if users.get(leaf, 0) <= 1)
        known = all(input_of(leaf).name in weights for leaf in leaves)
        if known and math.prod(v.shape) <= max(freed, SMALL):
            foldable.append(v)
    return foldable


def _largest(value: Value) -> str:
    """The name of the largest weight that the value is made of, of a trained one if possible."""

    def key(leaf: Value) -> tuple[bool, int]:
        return input_of(leaf).kind == "parameter", math.prod(leaf.shape)

    return str(input_of(max(_leaves(value), key=key)).name)


def _leaves(value: Value) -> list[Value]:
    return [v for v in toposort([value]) if isinstance(v.op, Input)]
