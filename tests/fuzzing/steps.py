"""How an op is applied to the values of a program: fitted to values of any rank, or by one of its
samples with its sizes renamed."""

from __future__ import annotations

import sympy as sp

from nncompile.diagnostics.errors import CompileError
from nncompile.ir.dims import Dim, dim, substitute, symbols
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import Type
from tests.fuzzing.fitting import ALONE, FITTING, by_axes
from tests.fuzzing.fitting_networks import MATRICES
from tests.fuzzing.program import Builder, Rejected
from tests.fuzzing.samples import Step, noted, samples_of
from tests.op_types import _symbols_within


def apply_op_type(b: Builder, op_type: type[Op]) -> None:
    """Adds one application of the op to the program, if one can be found."""
    own = FITTING.get(op_type, by_axes if op_type.varies else None)
    before = len(b.leaves), b.order, b.smooth
    steps: list[Step] = [fresh_sample] if op_type in MATRICES else [by_sample, fresh_sample]
    if own is not None and (op_type in ALONE or b.chance(70)):
        steps = [own] if op_type in ALONE else [own, *steps]
    for step in steps:
        try:
            b.add(step(b, op_type))
            return
        except (Rejected, CompileError):
            leaves, b.order, b.smooth = before
            del b.leaves[leaves:]


def by_sample(b: Builder, op_type: type[Op]) -> Value:
    """One of the op's samples, whose names of sizes become those of the program's values."""
    sample = b.choose(samples_of(op_type))
    renamed: dict[sp.Symbol, Dim] = {}
    chosen: dict[int, Value] = {}
    for i, pattern in enumerate(sample.types):
        fit = [
            (v, names)
            for v in reversed(b.values)
            if (names := _unified(pattern, v.type, renamed)) is not None
        ]
        if fit and b.chance(75):
            v, renamed = b.choose(fit)
            try:
                chosen[i] = b.ranged(v, sample)
            except Rejected:
                continue
    free = set().union(*(symbols(t.shape) for t in sample.types), _symbols_within(sample.op.key))
    for s in sorted(free - renamed.keys(), key=str):
        renamed[s] = b.dim()
    return _applied(b, sample, renamed, chosen)


def fresh_sample(b: Builder, op_type: type[Op]) -> Value:
    """One of the op's samples as it is."""
    sample = b.choose(samples_of(op_type))
    for s in sorted(_symbols_within(sample.op.key), key=str):
        b.name(str(s))
    return _applied(b, sample, {}, {}, fresh=True)


def _applied(
    b: Builder,
    sample: Sample,
    renamed: dict[sp.Symbol, Dim],
    chosen: dict[int, Value],
    fresh: bool = False,
) -> Value:
    op = sample.op.at(renamed)
    types = [t.with_shape(tuple(substitute(d, renamed) for d in t.shape)) for t in sample.types]
    if any(isinstance(d, int) and d < 0 for t in types for d in t.shape):
        raise Rejected
    op.infer(*types)
    args = [
        chosen[i]
        if i in chosen and chosen[i].type == t
        else b.leaf(t, sample)
        if fresh
        else b.argument(t, sample)
        for i, t in enumerate(types)
    ]
    noted(b, sample)
    return apply(op, *args)


def _unified(
    pattern: Type, type_: Type, renamed: dict[sp.Symbol, Dim]
) -> dict[sp.Symbol, Dim] | None:
    """`renamed` with what makes the pattern that type; None where nothing does."""
    if pattern.dtype is not type_.dtype or pattern.rank != type_.rank:
        return None
    names = dict(renamed)
    for p, d in zip(pattern.shape, type_.shape, strict=True):
        if isinstance(p, sp.Symbol):
            if names.setdefault(p, d) != d:
                return None
        elif substitute(p, names) != d:
            if isinstance(p, int):
                return None
            (name, *more) = sorted(p.free_symbols, key=str)
            if more or name in names:
                return None
            sizes = range(d + 1) if isinstance(d, int) else (dim(d - substitute(p, {name: 0})),)
            roots = [r for r in sizes if substitute(p, {name: r}) == d]
            if not roots:
                return None
            names[name] = roots[0]
    return names
