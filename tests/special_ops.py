"""Sweeps of all other ops: their samples, with special values strewn over random ones."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import CompileError
from nncompile.elementwise.map import Map
from nncompile.ir.dims import dim, substitute
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.types import Type
from tests.op_types import (
    Case,
    Feeds,
    cases_of,
    draw,
    registered_ops,
    typed_cases_of,
    unpacked,
    varied_cases_of,
)
from tests.special_sweeps import Output, Sweep, special, with_gradients

# What is strewn, and over which part.
KINDS: dict[str, tuple[tuple[float, ...], float]] = {
    "nan": ((np.nan,), 0.2),
    "nan everywhere": ((np.nan,), 0.9),
    "inf": ((np.inf,), 0.2),
    "minus inf": ((-np.inf,), 0.5),
    "mixed": ((np.nan, np.inf, -np.inf), 0.3),
    "zeros": ((0.0, -0.0), 0.6),
    "tiny": ((1e-45, -1e-45, 1e-38, -1e-38), 0.6),
    "large": ((3e35, -3e35), 0.3),  # of one argument; sums do not overflow
    "ends": ((float(np.finfo(np.float32).max), -float(np.finfo(np.float32).max)), 0.5),
}


def op_sweeps() -> Iterator[Sweep]:
    """A sweep for each op but `Map`."""
    for op_type in registered_ops():
        if op_type is Map:
            continue
        cases = [*cases_of(op_type), *varied_cases_of(op_type), *typed_cases_of(op_type)]
        cases = [c for c in cases if not any(t.dtype.is_half for t in c.sample.types)]
        if cases:
            yield _of_cases(cases)


def _of_cases(cases: Sequence[Case]) -> Sweep:
    outputs: list[Output] = []
    leaves: list[Value] = []
    data: dict[str, Feeds] = {kind: {} for kind in KINDS}
    for case in cases:
        sizes = case.bindings[0]
        op = case.sample.op.at(sizes)
        types = [_static(t, sizes) for t in case.sample.types]
        own = [apply(Input(f"{case.name}_x{i}", t)) for i, t in enumerate(types)]
        weights: dict[Value, Value] = {}

        def weight(y: Value, name: str = case.name, weights: Any = weights) -> Value:
            return weights.setdefault(y, apply(Input(f"{name}_w{len(weights)}", y.type)))

        results = unpacked(apply(op, *own))
        if type(op).differentiable and case.sample.order:
            outputs += with_gradients(case.name, results, own, weight)
        else:
            outputs += (Output(case.name, f"value {i}", y) for i, y in enumerate(results))
        leaves += [*own, *weights.values()]
        graph = Graph("case", {f"y{i}": y for i, y in enumerate(results)}, tuple(own))
        free = _free(case, graph)
        for kind in KINDS:
            data[kind] |= _strewn(case, kind, graph, free)
            rng = case.rng("weights")
            for w in weights.values():
                data[kind][w.op.name] = rng.normal(size=w.shape).astype(w.dtype.numpy)  # type: ignore[attr-defined]
    return Sweep(tuple(outputs), tuple(leaves), tuple(data.items()))


def _static(type_: Type, sizes: Any) -> Type:
    return type_.with_shape(tuple(int(dim(substitute(d, sizes))) for d in type_.shape))


def _free(case: Case, graph: Graph) -> frozenset[str]:
    """The integer arguments that may be any number of their type: those that are not places, which
    numpy refuses then, nor sizes of the result."""
    if not all(y.type.is_static for y in graph.outputs.values()):
        return frozenset()
    usual = _strewn(case, "zeros", graph, frozenset())
    found = set()
    for name, x in graph.leaves.items():
        if x.dtype.is_integer:
            numbers = (np.full_like(usual[name], n) for n in special(x.dtype))
            if all(_is_taken(graph, usual | {name: array}) for array in numbers):
                found.add(name)
    return frozenset(found)


def _is_taken(graph: Graph, feeds: Feeds) -> bool:
    try:
        evaluate(graph, feeds)
    except (IndexError, ValueError, CompileError):
        return False
    return True


def _strewn(case: Case, kind: str, graph: Graph, free: frozenset[str]) -> Feeds:
    """Data of that kind; of the integers that are free the ends of their type."""
    rng = np.random.default_rng(zlib.crc32(f"{case.name} {kind}".encode()))
    numbers, share = KINDS[kind]
    if kind == "ends" and not type(case.sample.op).orders:
        share = 0.0  # a sum of them overflows in one order and not in another
    real = [x for x in graph.inputs if x.dtype.is_float]
    chosen = real[int(rng.integers(len(real)))] if kind == "large" and real else None
    feeds = {}
    for name, x in graph.leaves.items():
        array = draw(rng, case.sample, x.type, {})
        places = rng.random(array.shape)
        if x.dtype.is_float and (chosen is None or x is chosen):
            ends = np.asarray(numbers, x.dtype.numpy)
            array = np.where(places < share, rng.choice(ends, array.shape), array)
        elif name in free:
            array = np.where(places < 0.6, rng.choice(special(x.dtype), array.shape), array)
        feeds[name] = array.astype(x.dtype.numpy)
    return feeds
