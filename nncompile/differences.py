"""Slopes against finite differences, in double precision."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from nncompile.graph import Input, Value, replace, toposort
from nncompile.map import Map
from nncompile.ops.marks import Reroute
from nncompile.reference import evaluate
from nncompile.scalars.heads import stop_gradient
from nncompile.types import Array

DIFFERENCES = (1e-4, 1e-5, 1e-6)
GRADIENT_TOLERANCE = 1e-5  # of double precision against a central difference


def declared_slopes(loss: Value) -> list[Value]:
    """The nodes whose slope is what somebody declared, and not their derivative."""
    return [v for v in toposort([loss]) if has_declared_slope(v)]


def has_declared_slope(v: Value) -> bool:
    """Whether the slope of a node is what somebody declared."""
    if isinstance(v.op, Map):
        hidden = v.op.body.has(stop_gradient) and not is_stopped(v)
        return v.op.slopes is not None or hidden
    return isinstance(v.op, Reroute)


def worst_slope(
    loss: Value,
    slopes: Mapping[str, Value],
    point: Mapping[str, Array],
    random: np.random.Generator,
) -> tuple[float, str]:
    """The largest relative error of `slopes`, those of `loss` by the names of leaves, along a
    random direction of each against a central difference at `point`; and the name of the leaf."""
    arrays = evaluate([loss, *slopes.values()], point, np.float64)
    loss, point = _held(loss, point)
    worst, where = 0.0, ""
    for path, slope in zip(slopes, arrays[1:], strict=True):
        # Some of the gradient itself in the direction, or most directions are almost level.
        direction = _unit(random.normal(size=slope.shape)) + _unit(slope)
        symbolic = float(np.sum(slope * direction))
        scale = abs(symbolic) + 1e-8 * (1 + abs(float(arrays[0])))
        error = float("inf")
        for h in DIFFERENCES:
            difference = _difference(loss, point, path, direction, h)
            error = min(error, abs(difference - symbolic) / scale)  # which NaN is not below
            if error <= GRADIENT_TOLERANCE:
                break
        if error > worst:
            worst, where = error, path
    return worst, where


def is_stopped(v: Value) -> bool:
    """Whether the node holds its argument constant: it has no slope, by definition."""
    return isinstance(v.op, Map) and v.op.body.func is stop_gradient


def _held(loss: Value, point: Mapping[str, Array]) -> tuple[Value, dict[str, Array]]:
    """The loss where what `stop_gradient` holds constant stays as it is at `point`, as it does in
    the symbolic slope."""
    stopped = [v for v in toposort([loss]) if is_stopped(v)]
    leaves = [Input(f"stopped {i}", v.type)() for i, v in enumerate(stopped)]
    arrays = evaluate(stopped, point, np.float64)
    held = {leaf.op.name: x for leaf, x in zip(leaves, arrays, strict=True)}  # type: ignore[attr-defined]
    return replace([loss], dict(zip(stopped, leaves, strict=True)))[0], {**point, **held}


def _unit(x: Array) -> Array:
    length = float(np.linalg.norm(x))
    return x / length if length else x


def _difference(
    loss: Value, point: Mapping[str, Array], path: str, direction: Array, h: float
) -> float:
    ahead, behind = (
        float(evaluate(loss, {**point, path: point[path] + sign * h * direction}, np.float64))
        for sign in (1, -1)
    )
    return (ahead - behind) / (2 * h)
