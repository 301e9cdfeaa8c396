"""The columns of the coverage table: each runs the system's own model."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nncompile.dims import substitute, symbols
from nncompile.grad import vjp
from nncompile.graph import Graph, Input, Value, apply
from nncompile.model import Model
from nncompile.types import Type
from tests.card_checks import dot, in_double, session, valid_model
from tests.tolerances import SLOPE, STEP, assert_close

Feeds = dict[str, np.ndarray]
STATE_SIZES = {"batch": 3, "time": 4, "height": 6, "width": 7}
ABSENT = "–"


@dataclass(frozen=True)
class System:
    """A system that the table promises, and how it shows.

    `build` makes a small model of it; None where it is no function of values (a schedule, say),
    which only its tests and example show. `order` is how often it has a true derivative, `training`
    says that it is checked as it is while training, and `feeds` gives data for inputs that are not
    any numbers. `example` is a file that shows it at work, `agrees` with what a test compares it,
    and `test` is the file of that test.
    """

    name: str
    section: str
    build: Callable[[], Model] | None = None
    order: int = 2
    training: bool = False
    feeds: Callable[[np.random.Generator], Mapping[str, Any]] | None = None
    example: str = ""
    agrees: str = ""
    test: str = ""

    @cached_property
    def model(self) -> Model:
        assert self.build is not None
        return self.build()

    @cached_property
    def graph(self) -> Graph:
        """What the model computes, once it is trained or before."""
        return self.model.graph if self.training else self.model.inference()

    @cached_property
    def leaves(self) -> tuple[Value, ...]:
        return tuple(self.graph.leaves.values())

    @cached_property
    def real(self) -> list[Value]:
        """The leaves that slopes are taken at."""
        return [x for x in self.leaves if x.dtype.is_float]

    @cached_property
    def data(self) -> Feeds:
        """Numbers for all leaves: those of `feeds`, random ones for the rest."""
        rng = np.random.default_rng(zlib.crc32(self.name.encode()))
        given = {} if self.feeds is None else dict(self.feeds(rng))
        drawn = {name: _drawn(rng, x.type) for name, x in self.graph.leaves.items()}
        return drawn | {name: np.asarray(x) for name, x in given.items() if name in drawn}

    @cached_property
    def slopes(self) -> tuple[list[Value], dict[Value, Type]]:
        """The slopes of Σ weight·output at the real leaves, and the leaves of the weights."""
        outputs = [y for y in self.graph.outputs.values() if y.dtype.is_float]
        return _slopes("weight", outputs, self.real)


def check_gradient(system: System) -> None:
    """The slopes of the model's outputs are central differences."""
    outputs = [y for y in system.graph.outputs.values() if y.dtype.is_float]
    _check_difference(system, outputs, *system.slopes, {})


def check_second_order(system: System) -> None:
    """And so are the slopes of the slopes."""
    slopes, weights = system.slopes
    seconds, directions = _slopes("direction", slopes, system.real)
    _check_difference(system, slopes, seconds, directions, weights)


def rounding_error(system: System) -> float:
    """How far onnxruntime's outputs and slopes in f32 are from numpy's in double: in units of f32's
    rounding (2⁻²³) of the largest number of each. A result is not held to less than a thousandth of
    the largest of all: some slopes are zero but for rounding."""
    results = [(a, e) for y, a, e in _in_onnxruntime(system) if y.dtype.is_float and a.size]
    largest = [float(np.abs(expected).max()) for _, expected in results]
    least = max(largest, default=0.0) / 1000 or 1.0
    errors = [float(np.abs(actual - expected).max()) for actual, expected in results]
    scaled = [e / max(x, least) for e, x in zip(errors, largest, strict=True)]
    return max(scaled, default=0.0) / 2.0**-23


def check_onnx(system: System) -> None:
    """onnxruntime computes outputs and slopes in f32 as numpy does in double."""
    for y, actual, expected in _in_onnxruntime(system):
        assert_close(actual, expected, y.dtype.name)


def _in_onnxruntime(system: System) -> list[tuple[Value, np.ndarray, np.ndarray]]:
    outputs = dict(system.graph.outputs)
    extra: dict[Value, Type] = {}
    if system.order and system.real:
        slopes, extra = system.slopes
        outputs |= {f"slope {i}": s for i, s in enumerate(slopes)}
    graph = Graph("coverage", outputs, (*system.leaves, *extra))
    feeds = system.data | _weights(system, extra)
    expected = in_double(graph, feeds)
    actual = session(valid_model(graph))(feeds, {n: a.shape for n, a in expected.items()})
    return [(y, actual[name], expected[name]) for name, y in graph.outputs.items()]


def check_torch(system: System, torchscript: Any) -> None:
    """TorchScript computes the outputs in f32 as numpy does in double."""
    graph, torch = Graph("coverage", system.graph.outputs, system.leaves), torchscript.torch
    data = [n for n, x in graph.leaves.items() if x.op.kind == "input"]  # type: ignore[attr-defined]
    weights = {n: system.data[n] for n in graph.leaves if n not in data}
    script = torchscript.to_script(graph, weights)
    expected = in_double(graph, system.data)
    with torch.no_grad():
        actual = script(*(torch.from_numpy(system.data[name].copy()) for name in data))
    for name, y in graph.outputs.items():
        assert_close(actual[name].numpy(), expected[name], y.dtype.name, name)


def _slopes(
    prefix: str, outputs: list[Value], at: list[Value]
) -> tuple[list[Value], dict[Value, Type]]:
    weights = {apply(Input(f"{prefix} {i}", y.type)): y.type for i, y in enumerate(outputs)}
    return vjp(outputs, at, list(weights)), weights


def _weights(system: System, leaves: Mapping[Value, Type]) -> Feeds:
    rng = np.random.default_rng(zlib.crc32(f"{system.name} weights".encode()))
    return {_name(v): _drawn(rng, t) for v, t in leaves.items()}


def _check_difference(
    system: System,
    outputs: list[Value],
    slopes: list[Value],
    weights: Mapping[Value, Type],
    others: Mapping[Value, Type],
) -> None:
    feeds = system.data | _weights(system, {**weights, **others})
    feeds = {n: a.astype(np.float64) if a.dtype == np.float32 else a for n, a in feeds.items()}
    rng = np.random.default_rng(1)
    direction = {_name(x): rng.uniform(-1, 1, feeds[_name(x)].shape) for x in system.real}
    inputs = (*system.leaves, *weights, *others)

    def at(values: list[Value], step: float) -> list[np.ndarray]:
        moved = {name: feeds[name] + step * d for name, d in direction.items()}
        graph = Graph("slopes", {str(i): v for i, v in enumerate(values)}, inputs)
        return list(in_double(graph, feeds | moved).values())

    def total(step: float) -> float:
        return dot([feeds[_name(w)] for w in weights], at(outputs, step))

    numeric = (total(STEP) - total(-STEP)) / (2 * STEP)
    exact = dot(at(slopes, 0.0), list(direction.values()))
    relative, absolute = SLOPE
    bound = absolute * max(1.0, abs(total(0.0)), abs(exact))
    assert np.isclose(exact, numeric, relative, bound), f"slope {exact}, difference {numeric}"


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
