"""The columns of the coverage table: each runs the system's own model."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np

from nncompile.autodiff.grad import vjp
from nncompile.compiler.compile import CompiledStep, compile_step
from nncompile.diagnostics.errors import GradientError
from nncompile.ir.dims import substitute, symbols
from nncompile.ir.graph import Graph, Input
from nncompile.ir.op import Value, apply
from nncompile.ir.types import Type, f32, f64
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from tests.backends import script_of, session, valid_model
from tests.differences import check_difference
from tests.op_checks import in_double
from tests.tolerances import assert_close

R = TypeVar("R")
Feeds = dict[str, np.ndarray]
STATE_SIZES = {"batch": 3, "time": 4, "height": 6, "width": 7, "steps": 61}
EPSILON = 2.0**-23  # of f32
ZERO = 1e-9  # of the largest: what is smaller in float64 is zero but for rounding


@dataclass(frozen=True)
class System:
    """A system that the table promises, and how it shows.

    Something of it runs: the values of `build`, a small model or graph; ten training steps of
    `recipe`; or `run`, a program that raises where the system fails. `order` is 2, or 0
    where the values have no gradient, `training` says that a model is checked as it is while
    training, and `feeds` gives data for inputs that are not any numbers. `batches` are the data of
    the steps, random ones by default. `peer` computes values, gradients and steps in another
    library, and is called what `agrees` says. `example` is a file that shows it at work, and `test`
    the file that compares it with what `agrees` says where there is no `peer`.
    """

    name: str
    section: str
    build: Callable[[], Model | Graph] | None = None
    recipe: Callable[[], Recipe] | None = None
    run: Callable[[], None] | None = None
    order: int = 2
    training: bool = False
    feeds: Callable[[np.random.Generator], Mapping[str, Any]] | None = None
    batches: Callable[[Recipe], list[Feeds]] | None = None
    peer: Callable[[Any, System], dict[str, Feeds]] | None = None
    example: str = ""
    agrees: str = ""
    test: str = ""

    @cached_property
    def built(self) -> Model | Graph:
        assert self.build is not None
        return self.build()

    @cached_property
    def graph(self) -> Graph:
        """What the model computes, once it is trained or before."""
        built = self.built
        if isinstance(built, Graph):
            return built
        return built.graph if self.training else built.inference()

    @cached_property
    def is_step(self) -> bool:
        """Whether the values are those of a training step, which has backends of its own."""
        states = [x for x in self.leaves if x.op.kind != "input"]  # type: ignore[attr-defined]
        return self.recipe is not None and isinstance(self.built, Graph) and bool(states)

    @cached_property
    def leaves(self) -> tuple[Value, ...]:
        return tuple(self.graph.leaves.values())

    @cached_property
    def real(self) -> list[Value]:
        """The leaves that gradients are taken at."""
        return [x for x in self.leaves if x.dtype.is_float]

    @cached_property
    def kept(self) -> dict[str, Any]:
        """What was computed of it."""
        return {}

    @cached_property
    def compiled(self) -> CompiledStep:
        """The training step of the recipe."""
        assert self.recipe is not None
        return compile_step(self.recipe())

    @cached_property
    def data(self) -> Feeds:
        """Numbers for all leaves: those of `feeds`, random ones for the rest."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        given = {} if self.feeds is None else dict(self.feeds(rng))
        drawn = {name: _drawn(rng, x.type) for name, x in self.graph.leaves.items()}
        for name, x in self.graph.leaves.items():  # running variances, means of squares
            if x.op.kind == "state" and x.dtype.is_float:  # type: ignore[attr-defined]
                drawn[name] = np.abs(drawn[name]) + np.asarray(0.1, drawn[name].dtype)
        return drawn | {name: np.asarray(x) for name, x in given.items() if name in drawn}

    @cached_property
    def gradients(self) -> tuple[list[Value], dict[Value, Type]]:
        """The gradients of Σ weight·output at the real leaves, and the leaves of the weights."""
        outputs = [y for y in self.graph.outputs.values() if y.dtype.is_float]
        return _gradients("weight", outputs, self.real)


def check_gradient(system: System) -> None:
    """The gradients of the model's outputs are central differences."""
    outputs = [y for y in system.graph.outputs.values() if y.dtype.is_float]
    _check_order(system, outputs, *system.gradients, {})


def check_second_order(system: System) -> None:
    """And so are the gradients of the gradients."""
    gradients, weights = system.gradients
    seconds, directions = _gradients("direction", gradients, system.real)
    _check_order(system, gradients, seconds, directions, weights)


def _check_order(
    system: System,
    outputs: list[Value],
    gradients: list[Value],
    weights: Mapping[Value, Type],
    others: Mapping[Value, Type],
) -> None:
    feeds = system.data | _weights(system, {**weights, **others})
    weighted, rng = [feeds[_name(w)] for w in weights], np.random.default_rng(1)
    inputs = (*system.leaves, *weights, *others)
    check_difference(outputs, gradients, weighted, system.real, feeds, rng, system.name, inputs)


def check_flat(system: System) -> None:
    """There is no gradient to check: whole numbers, or results that no real number moves."""
    real = {f"{i}": y for i, y in enumerate(system.graph.outputs.values()) if y.dtype.is_float}
    if not system.real or not real:
        return
    try:
        gradients, weights = system.gradients
    except GradientError:  # an op among them says that it has none
        return
    named = {f"gradient {i}": s for i, s in enumerate(gradients)}
    graph = Graph("flat", named, (*system.leaves, *weights))
    for name, gradient in in_double(graph, system.data | _weights(system, weights)).items():
        assert not gradient.any(), (
            f"{name} is not 0: the order of {system.name} is not {system.order}"
        )


def rounding_error(system: System) -> float:
    """How far onnxruntime's outputs and gradients in f32 are from numpy's in double; see
    `distance`."""
    found = [(a, e) for y, a, e in _in_onnxruntime(system) if y.dtype.is_float]
    return distance(found)


def distance(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """The largest difference of computed arrays from exact ones: in units of f32's rounding
    (2⁻²³) of the largest number of each array, or of the largest of all where an exact array is
    zero (of `ZERO` of the largest: the gradient at the bias of an attention's keys is 1e-17, which
    softmax takes no notice of)."""
    some = [(np.asarray(a, np.float64), np.asarray(e, np.float64)) for a, e in pairs]
    some = [(a, e) for a, e in some if e.size]
    sizes = [float(np.abs(e).max()) for _, e in some]
    largest = max(sizes, default=0.0) or 1.0
    scales = [size if size > ZERO * largest else largest for size in sizes]
    errors = [float(np.abs(a - e).max()) for a, e in some]
    assert all(np.isfinite(errors)), "a result is not finite"
    return max((e / x for e, x in zip(errors, scales, strict=True)), default=0.0) / EPSILON


def check_onnx(system: System) -> None:
    """onnxruntime computes outputs and gradients in f32 as numpy does in double."""
    narrow = any(x.dtype is f32 for x in system.leaves)  # f64 made of f32 is as exact as that
    for y, actual, expected in _in_onnxruntime(system):
        name = "float32" if narrow and y.dtype is f64 else y.dtype.name
        assert_close(actual, expected, name)


def once(compute: Callable[[System], R]) -> Callable[[System], R]:
    """The function, whose result a system keeps."""

    def kept(system: System) -> R:
        key = f"{compute.__module__}.{compute.__name__}"
        if key not in system.kept:
            system.kept[key] = compute(system)
        return system.kept[key]  # type: ignore[no-any-return]

    return kept


@once
def _in_onnxruntime(system: System) -> list[tuple[Value, np.ndarray, np.ndarray]]:
    outputs = dict(system.graph.outputs)
    extra: dict[Value, Type] = {}
    if system.order and system.real:
        gradients, extra = system.gradients
        outputs |= {f"gradient {i}": s for i, s in enumerate(gradients)}
    graph = Graph("coverage", outputs, (*system.leaves, *extra))
    feeds = system.data | _weights(system, extra)
    expected = in_double(graph, feeds)
    actual = session(valid_model(graph))(feeds, expected)
    return [(y, actual[name], expected[name]) for name, y in graph.outputs.items()]


def check_torch(system: System) -> None:
    """TorchScript computes the outputs in f32 as numpy does in double."""
    graph = Graph("coverage", system.graph.outputs, system.leaves)
    inputs = [n for n, x in graph.leaves.items() if x.op.kind == "input"]  # type: ignore[attr-defined]
    weights = {n: system.data[n] for n in graph.leaves if n not in inputs}
    expected = in_double(graph, system.data)
    for name, actual in script_of(graph, weights)(system.data).items():
        assert_close(actual, expected[name], graph.outputs[name].dtype.name, name)


def _gradients(
    prefix: str, outputs: list[Value], at: list[Value]
) -> tuple[list[Value], dict[Value, Type]]:
    weights = {apply(Input(f"{prefix} {i}", y.type)): y.type for i, y in enumerate(outputs)}
    return vjp(outputs, at, list(weights)), weights


def _weights(system: System, leaves: Mapping[Value, Type]) -> Feeds:
    rng = np.random.default_rng(zlib.crc32(f"{system.name} weights".encode()))
    return {_name(v): _drawn(rng, t) for v, t in leaves.items()}


def _name(leaf: Value) -> str:
    return leaf.op.name  # type: ignore[attr-defined, no-any-return]


def _drawn(rng: np.random.Generator, type_: Type) -> np.ndarray:
    sizes = {s: STATE_SIZES.get(str(s), 3) for s in symbols(type_.shape)}
    shape = tuple(int(substitute(d, sizes)) for d in type_.shape)
    if type_.dtype.is_bool:
        return rng.integers(0, 2, shape).astype(bool)
    if type_.dtype.is_integer:
        return rng.integers(0, 2, shape).astype(type_.dtype.numpy)
    return rng.uniform(-0.9, 0.9, shape).astype(type_.dtype.numpy)
