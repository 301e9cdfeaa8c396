"""Gradients against finite differences, in double precision.

A difference of f over a step h is off by some f'''·h² and by noise/h, the noise being what rounding
makes of f: a smaller gradient cannot be distinguished from zero. How large it is depends on how f
is computed, and is measured (J. Moré and S. Wild, "Estimating computational noise", 2011).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from nncompile.elementwise.map import Map
from nncompile.elementwise.sympy_functions import stop_gradient
from nncompile.ir.graph import Graph, Input, input_of, toposort
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import Array
from nncompile.ops.core.annotations import CustomVjp

DIFFERENCES = (1e-4, 1e-5, 1e-6)
GRADIENT_TOLERANCE = 1e-5  # of double precision against a central difference

# Steps over which a function changes by rounding, and else as a polynomial of low degree.
_NEAR = (1e-10, 1e-8, 1e-6)
_CERTAINTY = 8.0  # standard deviations of the noise
_EPSILON = float(np.finfo(np.float64).eps)


def declared_gradients(loss: Value) -> list[Value]:
    """The nodes whose gradient is what somebody declared, and not their derivative."""
    return [v for v in toposort([loss]) if has_declared_gradient(v)]


def has_declared_gradient(v: Value) -> bool:
    """Whether the gradient of a node is what somebody declared."""
    if isinstance(v.op, Map):
        hidden = v.op.body.has(stop_gradient) and not is_stopped(v)
        return v.op.derivatives is not None or hidden
    return isinstance(v.op, CustomVjp)


def worst_gradient(
    loss: Value,
    gradients: Mapping[str, Value],
    point: Mapping[str, Array],
    random: np.random.Generator,
    inputs: Sequence[Value] = (),
) -> tuple[float, str]:
    """The largest relative error of `gradients`, those of `loss` by the names of leaves, along a
    random direction of each against a central difference at `point`; and the name of the leaf.
    `inputs` are further leaves that tell sizes."""
    derived = Graph("gradients", dict(gradients), tuple(inputs))
    arrays = list(evaluate(derived, point, np.float64).values())
    loss, point = _with_constants(loss, point)
    graph = Graph("loss", {"loss": loss}, tuple(inputs))
    worst, worst_path = 0.0, ""
    for path, gradient in zip(gradients, arrays, strict=True):
        # Some of the gradient itself in the direction, or most directions are almost level.
        direction = _unit(random.normal(size=gradient.shape)) + _unit(gradient)
        symbolic = float(np.sum(gradient * direction))

        def along(h: float, path: str = path, direction: Array = direction) -> float:
            moved = {**point, path: point[path] + h * direction}
            return float(evaluate(graph, moved, np.float64)["loss"])

        error = derivative_error(along, symbolic, abs(symbolic))
        if error > worst:
            worst, worst_path = error, path
    return worst, worst_path


def derivative_error(
    function: Callable[[float], float],
    derivative: float,
    scale: float,
    steps: Sequence[float] = DIFFERENCES,
) -> float:
    """How far `derivative` is from the differences of `function` around 0, in units of `scale`;
    infinite where no difference is finite. What the noise of the function may make of the
    difference over the largest step counts as no more than the tolerance."""
    distance = float("inf")
    for h in steps:
        difference = (function(h) - function(-h)) / (2 * h)
        distance = min(distance, abs(difference - derivative))  # which NaN is not below
        if distance <= GRADIENT_TOLERANCE * scale:
            return distance / scale if scale else 0.0
    if not math.isfinite(distance):
        return float("inf")
    floor = _CERTAINTY * _noise(function) / max(steps) / GRADIENT_TOLERANCE
    return distance / (scale + floor) if scale + floor else float("inf")


def _noise(function: Callable[[float], float]) -> float:
    """The standard deviation of the rounding of a function near 0, from the higher differences of
    its values at equal small steps: there is nothing but noise in them. It is a rounding of the
    result at least."""
    for step in _NEAR:
        values = np.array([function(i * step) for i in range(7)])
        if len(np.unique(values)) > len(values) // 2:  # or it is rounded more coarsely than that
            break
    deviation = _EPSILON * float(np.max(np.abs(values)))
    table = values
    with np.errstate(all="ignore"):  # differences of infinities are NaN, and no noise
        for k in range(1, 6):
            table = np.diff(table)
            if k >= 3:
                share = math.factorial(k) ** 2 / math.factorial(2 * k)
                deviation = max(deviation, math.sqrt(share * float(np.mean(table**2))))
    return deviation


def is_stopped(v: Value) -> bool:
    """Whether the node holds its argument constant: it has no gradient, by definition."""
    return isinstance(v.op, Map) and v.op.body.func is stop_gradient


def _with_constants(loss: Value, point: Mapping[str, Array]) -> tuple[Value, dict[str, Array]]:
    """The loss where what `stop_gradient` holds constant stays as it is at `point`, as it does in
    the symbolic gradient."""
    stopped = [v for v in toposort([loss]) if is_stopped(v)]
    leaves = [Input(f"stopped {i}", v.type)() for i, v in enumerate(stopped)]
    arrays = evaluate(stopped, point, np.float64)
    stopped_values = {input_of(leaf).name: x for leaf, x in zip(leaves, arrays, strict=True)}
    return replace([loss], dict(zip(stopped, leaves, strict=True)))[0], {**point, **stopped_values}


def _unit(x: Array) -> Array:
    length = float(np.linalg.norm(x))
    return x / length if length else x
