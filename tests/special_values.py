"""The sweep of special values: every op and formula on NaN, infinities, signed zeros, numbers that
are hardly any, and the ends of the range, in onnxruntime and TorchScript against numpy.

A number is right where it is numpy's: as numpy computes it in the type of the arguments, or in
float64 rounded to that type (they differ where something between overflows or is rounded). Numbers
below the smallest normal one are as good as zero, for kernels may flush them. NaN equals NaN.

`python -m tests.special_values` prints what is swept, what differs, and why that is allowed.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import pkgutil
import sys
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from ml_dtypes import finfo

import dsl
from nncompile.autodiff.grad import vjp
from nncompile.backends.onnx import to_model
from nncompile.diagnostics.errors import CompileError, GradientError
from nncompile.elementwise.formula import Formula
from nncompile.elementwise.map import Map, mapped
from nncompile.elementwise.samples import examples
from nncompile.ir.dims import dim, substitute
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.types import DTYPES, DType, Type, boolean, f32, f64
from tests.backends import script_of, session
from tests.op_types import (
    Case,
    Feeds,
    cases_of,
    draw,
    import_all,
    registered_ops,
    typed_cases_of,
    unpacked,
    varied_cases_of,
)

RELATIVE = {"float16": 2e-3, "bfloat16": 2e-2, "float32": 2e-5, "float64": 1e-10}
POINTS = 600  # of a formula at most: of several arguments, so many of all combinations
FLOATS = (f32, f64)  # those of 16 bits are computed in float32


def special(dtype: DType) -> np.ndarray:
    """What kernels get wrong: the ends of the range, what lies beside zero, and what overflows or
    cancels in common formulas."""
    if dtype.is_bool:
        return np.asarray([False, True])
    if dtype.is_integer:
        limits = np.iinfo(dtype.numpy)
        numbers = [0, 1, 2, 3, 7, limits.bits - 1, limits.bits, limits.bits + 1, 2 * limits.bits]
        numbers += [-n for n in numbers]
        numbers += [limits.min, limits.min + 1, limits.max // 2 + 1, limits.max - 1, limits.max]
        kept = {n for n in numbers if limits.min <= n <= limits.max}
        return np.asarray(sorted(kept), dtype.numpy)
    limits = np.finfo(dtype.numpy)
    sizes = [0.0, limits.smallest_subnormal, limits.tiny / 3, limits.tiny, 1e-20, 1e-8, 0.3, 0.5]
    sizes += [1.0, 1.5, 2.0, 2.5, 3.0, 17.0, 30.0, 88.0, 100.0, 1e8, 1e20, limits.max, np.inf]
    return np.asarray([np.nan, *sizes, *(-x for x in sizes)], dtype.numpy)


@dataclass(frozen=True)
class Output:
    """A value of a program, or its gradient at an argument."""

    program: str
    name: str
    value: Value


@dataclass(frozen=True)
class Sweep:
    """Programs over the same leaves, and the data that they are fed, each of a kind."""

    outputs: tuple[Output, ...]
    leaves: tuple[Value, ...]
    data: tuple[tuple[str, Feeds], ...]
    signs: bool = False  # whether zeros are compared with their signs

    @property
    def graph(self) -> Graph:
        named = {f"y{i}": output.value for i, output in enumerate(self.outputs)}
        return Graph("sweep", named, self.leaves)


@dataclass(frozen=True, order=True)
class Difference:
    """Where a backend differs from numpy in an output of a program."""

    program: str
    output: str
    backend: str
    kind: str
    shown: str = field(compare=False)

    def __str__(self) -> str:
        return f"{self.program}, {self.output}, {self.backend}, {self.kind}: {self.shown}"


@dataclass
class Found:
    """What a sweep gave."""

    names: set[str] = field(default_factory=set)
    values: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def programs(self) -> int:
        return len(self.names)


def backends() -> tuple[str, ...]:
    return ("onnxruntime", "torch") if find_spec("torch") else ("onnxruntime",)


def _runner(backend: str, graph: Graph) -> Callable[[Feeds], Feeds]:
    return session(to_model(graph)) if backend == "onnxruntime" else script_of(graph)


def swept(sweep: Sweep) -> Found:
    """What differs. Raises where a backend does not run at all."""
    graph = sweep.graph
    found = Found({output.program for output in sweep.outputs})
    runners = {backend: _runner(backend, graph) for backend in backends()}
    for kind, feeds in sweep.data:
        own = evaluate(graph, feeds)
        double = evaluate(graph, feeds, precision=np.float64)
        for backend, run in runners.items():
            results = run(feeds)
            for output, name in zip(sweep.outputs, graph.outputs, strict=True):
                dtype, scaled = output.value.dtype, not sweep.signs
                wrong = _wrong(results[name], own[name], double[name], dtype, scaled)
                kinds = {kind: wrong}
                if sweep.signs and output.value.dtype.is_float:
                    kinds["sign of zero"] = _wrong_signs(results[name], own[name], double[name])
                found.values += results[name].size
                for label, places in kinds.items():
                    if places.any():
                        shown = _shown(places, feeds, results[name], own[name])
                        found.differences.append(
                            Difference(output.program, output.name, backend, label, shown)
                        )
    return found


def _wrong(
    got: np.ndarray, own: np.ndarray, double: np.ndarray, dtype: DType, scaled: bool
) -> np.ndarray:
    """Where a result is not numpy's; `scaled` says that it may be off by a part of the largest
    one, as sums are."""
    if not dtype.is_float:
        return got != own
    with np.errstate(all="ignore"):
        double = double.astype(dtype.numpy)
        return ~(_near(got, own, dtype, scaled) | _near(got, double, dtype, scaled))


def _near(got: np.ndarray, expected: np.ndarray, dtype: DType, scaled: bool) -> np.ndarray:
    same = (got == expected) | (np.isnan(got) & np.isnan(expected))
    a, b = got.astype(np.float64), expected.astype(np.float64)
    size = np.abs(b)
    if scaled:
        size = size + 0.1 * size[np.isfinite(size)].max(initial=1.0)
    allowed = np.maximum(RELATIVE[dtype.name] * size, float(finfo(dtype.numpy).tiny))
    return same | (np.isfinite(a) & np.isfinite(b) & (np.abs(a - b) <= allowed))


def _wrong_signs(got: np.ndarray, own: np.ndarray, double: np.ndarray) -> np.ndarray:
    """Where a zero has another sign than numpy's, on which both of numpy's agree."""
    zero = (got == 0) & (own == 0) & (double == 0)
    told = np.signbit(own) == np.signbit(double)
    return zero & told & (np.signbit(got) != np.signbit(own))


def _shown(wrong: np.ndarray, feeds: Feeds, got: np.ndarray, own: np.ndarray) -> str:
    first = np.unravel_index(int(np.flatnonzero(wrong)[0]), wrong.shape)
    at = [str(a[first]) for a in feeds.values() if a.shape == wrong.shape]
    place = f"at ({', '.join(at)}) " if 0 < len(at) < 6 else ""
    return f"{int(wrong.sum())} of {wrong.size}, {place}{got[first]} for {own[first]}"


# Formulas: every combination of special values, or so many of them.


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
                outputs += _with_gradients(program, (y,), leaves, {y: weight}.__getitem__)
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


def _with_gradients(
    program: str,
    results: Sequence[Value],
    leaves: Sequence[Value],
    weights: Callable[[Value], Value],
) -> Iterator[Output]:
    """The results, and their gradients at the leaves from the weights."""
    for i, y in enumerate(results):
        yield Output(program, f"value {i}" if len(results) > 1 else "value", y)
    real = {i: x for i, x in enumerate(leaves) if x.dtype.is_float}
    ys = [y for y in results if y.dtype.is_float]
    if not real or not ys:
        return
    try:
        gradients = vjp(ys, list(real.values()), [weights(y) for y in ys])
    except GradientError:
        return
    for i, gradient in zip(real, gradients, strict=True):
        yield Output(program, f"gradient {i}", gradient)


# Other ops: their samples, with special values strewn over random ones.

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
            outputs += _with_gradients(case.name, results, own, weight)
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


@cache
def everything() -> Found:
    """All sweeps together."""
    total = Found()
    for sweep in itertools.chain(elementwise_sweeps(), op_sweeps()):
        found = swept(sweep)
        total.names |= found.names
        total.values += found.values
        total.differences += found.differences
    return total


def main() -> None:
    """Prints the counts, and what is allowed to differ."""
    from tests.special_differences import ALLOWED

    found = everything()
    print(f"{found.programs} programs, {found.values:,} values compared with numpy's")
    for backend in backends():
        count = sum(d.backend == backend for d in found.differences)
        print(f"  {backend}: {count} outputs of a program and kind of data differ")
    for allowed in ALLOWED:
        count = sum(allowed.covers(d) for d in found.differences)
        print(f"{count:4} {allowed}")
    for difference in found.differences:
        if not any(a.covers(difference) for a in ALLOWED):
            print("NOT ALLOWED", difference)


if __name__ == "__main__":
    main()
