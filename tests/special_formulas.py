"""Sweeps of formulas: every combination of special values, or as many as there is room for."""

from __future__ import annotations

import functools
import importlib
import itertools
import pkgutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

import dsl
from nncompile.diagnostics.errors import CompileError
from nncompile.elementwise.formula import Formula
from nncompile.elementwise.map import mapped
from nncompile.elementwise.samples import examples
from nncompile.ir.graph import Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.types import DTYPES, DType, boolean
from tests.op_types import import_all
from tests.special_sweeps import FLOATS, Output, Sweep, special, with_gradients

POINTS = 600  # of a formula at most: of several arguments, so many of all combinations


def formulas() -> dict[str, Formula]:
    """Every formula of the two packages under one of its names, private ones with their module."""
    import_all()
    for module in pkgutil.walk_packages(dsl.__path__, "dsl."):
        importlib.import_module(module.name)
    found: dict[int, tuple[str, Formula]] = {}
    for place, module in sorted(sys.modules.items()):
        if place.split(".")[0] in ("dsl", "nncompile"):
            for name, x in vars(module).items():
                if isinstance(x, Formula):
                    whole = f"{place}.{name}" if name.startswith("_") else name
                    found.setdefault(id(x), (whole, x))
    return dict(sorted(found.values(), key=lambda pair: pair[0]))


Body = Callable[..., Value]
# Which argument is a condition, and what stands for those that are literals.
CONDITIONS = {"where": 0, "nncompile.optim.adam._descend_rectified": 3}
LITERALS: dict[str, dict[int, Any]] = {
    "polygamma": {0: 1},
    "nncompile.ops.reduction.statistics._raised_size": {1: 0.5},
    "nncompile.ops.reduction.statistics._raised_total": {1: 0.5},
}


def _called(formula: Formula, literals: Mapping[int, Any], *leaves: Value) -> Value:
    args = list(leaves)
    for place, number in literals.items():
        args.insert(place, number)
    return formula(*args)  # type: ignore[no-any-return]


def _elementwise() -> Iterator[tuple[str, tuple[DType, ...], Body]]:
    """Every formula on every element type that it takes, and every example of `Map`."""
    for name, formula in formulas().items():
        parameters = formula.signature.parameters.values()
        many = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        required = [p for p in parameters if p.default is p.empty]
        integers = [d for d in DTYPES if not d.is_float] if formula.primitive else []
        counts = (1, 2) if many else (len(required),)
        for dtype, count in itertools.product((*FLOATS, *integers), counts):
            condition, literals = CONDITIONS.get(name), LITERALS.get(name, {})
            places = [i for i in range(count) if i not in literals]
            dtypes = tuple(boolean if i == condition else dtype for i in places)
            call = functools.partial(_called, formula, literals)
            leaves = [apply(Input(f"x{i}", d[1])) for i, d in enumerate(dtypes)]
            ones = {x.op.name: np.ones(1, x.dtype.numpy) for x in leaves}  # type: ignore[attr-defined]
            try:
                evaluate(call(*leaves), ones)
            except (CompileError, TypeError, IndexError):
                continue  # another element type, or number of arguments
            yield name, dtypes, call
    for example in examples():
        if not any(d.is_float and d not in FLOATS for d in example.dtypes):
            body = example.body

            def applied(*args: Value, body: Any = body) -> Value:
                return mapped(body, args)

            yield f"Map: {body}", example.dtypes, applied


def elementwise_sweeps() -> Iterator[Sweep]:
    """A sweep for each combination of the types of arguments."""
    groups: dict[tuple[DType, ...], list[tuple[str, Body]]] = {}
    for name, dtypes, body in _elementwise():
        groups.setdefault(dtypes, []).append((name, body))
    for dtypes, bodies in groups.items():
        leaves = tuple(apply(Input(f"x{i}", d["n"])) for i, d in enumerate(dtypes))
        ones = {d: apply(Input(f"one_{d}", d["n"])) for d in FLOATS}
        outputs: list[Output] = []
        seen: set[Value] = set()  # an example may be a formula
        for name, body in bodies:
            program = f"{name} {' '.join(map(str, dtypes))}"
            y = body(*leaves)
            if not y.dtype.is_half and not (y in seen and name.startswith("Map: ")):
                seen.add(y)
                weight = ones.get(y.dtype, y)
                outputs += with_gradients(program, (y,), leaves, {y: weight}.__getitem__)
        feeds = {x.op.name: a for x, a in zip(leaves, _points(dtypes), strict=True)}  # type: ignore[attr-defined]
        count = len(next(iter(feeds.values())))
        feeds |= {v.op.name: np.ones(count, d.numpy) for d, v in ones.items()}  # type: ignore[attr-defined]
        yield Sweep(tuple(outputs), (*leaves, *ones.values()), (("number", feeds),), signs=True)


def _points(dtypes: Sequence[DType]) -> list[np.ndarray]:
    values = [special(d) for d in dtypes]
    if np.prod([float(v.size) for v in values]) <= POINTS:
        return [g.reshape(-1) for g in np.meshgrid(*values, indexing="ij")]
    rng = np.random.default_rng(len(values))
    return [rng.choice(v, POINTS) for v in values]
