"""The gradient of a case, and the gradient of that: against central differences in double, and in
onnxruntime."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile.autodiff.grad import vjp
from nncompile.diagnostics.errors import GradientError
from nncompile.ir.graph import Graph, Input
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from tests.differences import dot
from tests.onnx_cases.imported import Imported, in_onnxruntime
from tests.tolerances import GRADIENT, STEP

TRIES = 40  # points near that of the case that are looked at for one that is not at a kink
BENT = 1e-2  # slopes on both sides that are further apart are those of a kink
# Of the largest, how far onnxruntime's gradients may be from those in double; of `SMALL` where all
# are smaller, as those of a saturated tanh, which are made of differences of ones.
SMALL = 0.2
ROUNDED = 1e-4
_ROUNDED = {"float16": 2e-2, "bfloat16": 1e-1}
Arrays = dict[str, Any]


@dataclass(frozen=True)
class Slopes:
    """What was found of a case: whether its gradient, and the gradient of that, is other than 0;
    the inputs that move a result; and what is wrong, which is empty where nothing is."""

    is_sloped: bool = False
    is_curved: bool = False
    moving: frozenset[str] = frozenset()
    problem: str = ""


def slopes(case: Imported, label: str) -> Slopes | None:
    """Checks the gradients of a case, at a point near its own that is not at a kink, along a random
    direction; None where no real number is among the inputs, or no finite one among the
    results."""
    leaves = [x for x in case.graph.inputs if x.dtype.is_float]
    outputs = [y for y in case.graph.outputs.values() if y.dtype.is_float]
    if not leaves or not outputs:
        return None
    weights = [apply(Input(f"weight {i}", y.type)) for i, y in enumerate(outputs)]
    others = [apply(Input(f"direction {i}", x.type)) for i, x in enumerate(leaves)]
    try:
        gradients = vjp(outputs, leaves, weights)
        seconds = vjp(gradients, [*leaves, *weights], others)
    except GradientError as error:
        return Slopes(problem=error.problem)
    rng = np.random.default_rng(zlib.crc32(label.encode()))
    for _ in range(TRIES):
        feeds = {n: _moved(x, rng) for n, x in case.feeds.items()}
        inner = {_name(x): rng.uniform(-1, 1, x.shape) for x in leaves}
        if not _is_smooth(outputs, feeds, inner):
            continue
        # A result of minus infinity, as of what a mask hides, is that everywhere.
        results = _at(outputs, feeds)
        if not any(np.isfinite(y).any() for y in results):
            return None
        feeds |= {
            _name(w): np.where(np.isfinite(y), rng.uniform(-1, 1, y.shape), 0)
            for w, y in zip(weights, results, strict=True)
        }
        feeds |= {_name(o): rng.uniform(-1, 1, o.shape) for o in others}
        along = inner | {_name(w): rng.uniform(-1, 1, feeds[_name(w)].shape) for w in weights}
        first, second = _at(gradients, feeds), _at(seconds, feeds)
        formal = (*case.graph.inputs, *weights, *others)
        problem = (
            _apart("gradient", first, leaves, weights, _differences(outputs, feeds, inner), feeds,
                   inner)
            or _apart("gradient of the gradient", second, [*leaves, *weights], others,
                      _differences(gradients, feeds, along), feeds, along)
            or _otherwise([*gradients, *seconds], formal, feeds)
        )  # fmt: skip
        moving = [_name(x) for x, g in zip(leaves, first, strict=True) if g.any()]
        curves = second[: len(leaves)]
        return Slopes(bool(moving), any(s.any() for s in curves), frozenset(moving), problem)
    return Slopes(problem="each point nearby is at a kink, or has no finite result")


def _name(leaf: Value) -> str:
    return leaf.op.name  # type: ignore[attr-defined, no-any-return]


def _moved(x: Any, rng: np.random.Generator) -> Any:
    """The array in double, a little smaller and then a little elsewhere: inputs in [−1, 1] stay
    there, and those at 0, where many functions have a kink, do not."""
    if np.asarray(x).dtype.kind in "biu":
        return x
    wide = np.asarray(x).astype(np.float64)
    wide = np.where(np.isfinite(wide), wide, 0.5)
    shrunk = wide * (1 - rng.uniform(0, 0.1, wide.shape))
    return shrunk + rng.uniform(-0.02, 0.02, wide.shape)


def _at(values: Sequence[Value], feeds: Arrays) -> list[np.ndarray]:
    graph = Graph("slopes", {str(i): v for i, v in enumerate(values)})
    known = {name: feeds[name] for name in graph.leaves}
    return [*evaluate(graph, known, precision=np.float64).values()]


def _stepped(feeds: Arrays, along: Arrays, step: float) -> Arrays:
    return feeds | {name: feeds[name] + step * d for name, d in along.items()}


def _is_smooth(values: Sequence[Value], feeds: Arrays, along: Arrays) -> bool:
    """Whether the slopes on both sides are the same, for each element of the results."""
    step = 2 * STEP
    low, here, high = (_at(values, _stepped(feeds, along, s * step)) for s in (-1, 0, 1))
    for a, b, c in zip(low, here, high, strict=True):
        if np.isnan(b).any():
            return False
        left, right = _less(b, a) / step, _less(c, b) / step
        least = np.minimum(np.abs(left), np.abs(right))
        if not (np.abs(left - right) <= BENT * (1 + least)).all():
            return False
    return True


def _less(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """a − b, 0 where both are the same infinity."""
    with np.errstate(invalid="ignore"):
        return np.where(a == b, 0, a - b)


def _differences(values: Sequence[Value], feeds: Arrays, along: Arrays) -> list[np.ndarray]:
    """The slopes of the results along a direction, to the fourth order of the step."""
    near, far = (
        [
            _less(a, b)
            for a, b in zip(
                _at(values, _stepped(feeds, along, step)),
                _at(values, _stepped(feeds, along, -step)),
                strict=True,
            )
        ]
        for step in (STEP, 2 * STEP)
    )
    return [(8 * a - b) / (12 * STEP) for a, b in zip(near, far, strict=True)]


def _apart(
    what: str, gradients: Sequence[np.ndarray], leaves: Sequence[Value], weights: Sequence[Value],
    differences: Sequence[np.ndarray], feeds: Arrays, along: Arrays,
) -> str:  # fmt: skip
    """⟨gradient, direction⟩ and ⟨weight, difference⟩ where they differ; empty where not."""
    exact = dot(gradients, [along[_name(x)] for x in leaves])
    numeric = dot([feeds[_name(w)] for w in weights], differences)
    largest = max(1.0, *(float(np.abs(d).max(initial=0)) for d in differences))
    relative, absolute = GRADIENT
    if abs(exact - numeric) <= relative * abs(numeric) + absolute * largest:
        return ""
    return f"{what} {exact:.9g}, difference {numeric:.9g}"


def _otherwise(values: Sequence[Value], leaves: Sequence[Value], feeds: Arrays) -> str:
    """How the values differ in onnxruntime, in their own element types, from what they are in
    double; empty where they do not."""
    graph = Graph("gradients", {str(i): v for i, v in enumerate(values)}, tuple(leaves))
    formal = graph.leaves.values()
    narrow = {_name(x): np.asarray(feeds[_name(x)]).astype(x.dtype.numpy) for x in formal}
    found = in_onnxruntime(Imported(graph, narrow, list(graph.outputs)))
    wide = {n: x if x.dtype.kind in "biu" else x.astype(np.float64) for n, x in narrow.items()}
    exact = [*evaluate(graph, wide, precision=np.float64).values()]
    largest = max((float(np.abs(x[np.isfinite(x)]).max(initial=0)) for x in exact), default=0)
    bound = max(_ROUNDED.get(x.dtype.name, ROUNDED) for x in narrow.values())
    for i, (a, b) in enumerate(zip(found, exact, strict=True)):
        apart = float(np.abs(_less(a.astype(np.float64), b)).max(initial=0))
        if not apart <= bound * max(largest, SMALL):
            return f"gradient {i} is {apart:.3g} of {largest:.3g} apart in onnxruntime"
    return ""
