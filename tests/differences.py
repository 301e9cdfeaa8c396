"""Gradients against central differences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import is_real
from tests.tolerances import GRADIENT, STEP


def dot(a: Iterable[np.ndarray], b: Iterable[np.ndarray]) -> float:
    """The inner product of two lists of arrays."""
    return float(sum(np.vdot(x, y) for x, y in zip(a, b, strict=True)))


def check_difference(
    outputs: Sequence[Value],
    gradients: Sequence[Value],
    weights: Sequence[np.ndarray],
    leaves: Sequence[Value],
    feeds: Mapping[str, np.ndarray],
    rng: np.random.Generator,
    label: str = "",
    inputs: Sequence[Value] = (),
) -> None:
    """⟨gradients, d⟩ is the central difference of Σ weight·output along a random direction d of
    the leaves, all in double. Among `inputs` are those that tell sizes which no value needs."""
    wide = {n: a.astype(np.float64) if is_real(a.dtype) else a for n, a in feeds.items()}
    names = [x.op.name for x in leaves]  # type: ignore[attr-defined]
    direction = [rng.uniform(-1, 1, wide[name].shape) for name in names]

    def at(values: Sequence[Value], step: float) -> list[np.ndarray]:
        moved = {name: wide[name] + step * d for name, d in zip(names, direction, strict=True)}
        graph = Graph("differences", {str(i): v for i, v in enumerate(values)}, tuple(inputs))
        known = {name: array for name, array in (wide | moved).items() if name in graph.leaves}
        return list(evaluate(graph, known, precision=np.float64).values())

    high, low = (dot(weights, at(outputs, step)) for step in (STEP, -STEP))
    exact, numeric = dot(at(gradients, 0.0), direction), (high - low) / (2 * STEP)
    relative, absolute = GRADIENT
    assert np.isclose(exact, numeric, relative, absolute * max(1.0, abs(exact))), (
        f"{label}: gradient {exact}, central difference {numeric}"
    )


def derivative_along(
    y: Value, feeds: Mapping[str, np.ndarray], directions: Mapping[str, np.ndarray]
) -> np.ndarray:
    """The derivative of y as the leaves move along directions, by central differences."""
    high, low = (
        evaluate(y, {**feeds, **{n: feeds[n] + s * d for n, d in directions.items()}}, np.float64)
        for s in (STEP, -STEP)
    )
    return (high - low) / (2 * STEP)  # type: ignore[no-any-return]


def gradient_of_sum(y: Value, feeds: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    """∂Σy/∂(leaf `name`), element by element, by central differences."""
    gradient = np.zeros_like(feeds[name])
    for index in np.ndindex(gradient.shape):
        unit = np.zeros_like(gradient)
        unit[index] = 1
        gradient[index] = derivative_along(y, feeds, {name: unit}).sum()
    return gradient
