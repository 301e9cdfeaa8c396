"""Whether a model does what it says: its gradients, its ONNX form, and whether it learns at all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile.compiler import CompiledStep, compile_model, compile_step
from nncompile.dims import Dim, substitute, symbols
from nncompile.errors import seed_number
from nncompile.grad import grad
from nncompile.graph import Graph, Input, Value, replace, toposort
from nncompile.map import Map
from nncompile.model import Model
from nncompile.ops.basic import Reroute
from nncompile.recipe import Minimize, Recipe
from nncompile.reference import evaluate
from nncompile.runtime import Session
from nncompile.scalars.heads import stop_gradient
from nncompile.step import initial_values
from nncompile.tracing import tracing
from nncompile.train.overfit import overfit_one_batch
from nncompile.types import Array

ROWS = 16  # of a batch that is checked: each is computed many times in double precision
STEPS = 200  # on one batch
JITTER = 0.01  # moves the parameters off the points where formulas have kinks, zero above all
DIFFERENCES = (1e-4, 1e-5, 1e-6)
GRADIENT_TOLERANCE = 1e-5  # of double precision against a central difference
ONNX_TOLERANCE = 1e-4  # of float32 against double precision, relative to the largest element


@dataclass(frozen=True)
class Finding:
    """One thing that was checked: what, whether it holds (None: it does not apply), the figures."""

    what: str
    holds: bool | None
    figures: str


def check(
    model: Model, recipe: Recipe | None, data: Mapping[str, Array] | None, seed: int = 0
) -> Iterator[Finding]:
    """All checks of a model and of how it is trained, one after the other, on the first rows of
    `data` or, where there are none, on random ones drawn from `seed`."""
    random = np.random.default_rng(seed_number(seed))
    batch = batch_of(model, data, random)
    state = _state(model, seed)
    for update in recipe.updates if recipe else ():
        if isinstance(update, Minimize):
            yield from check_gradient(model, update, {**state, **batch}, random)
    inference = compile_model(model)
    yield compared("inference", inference.source.inference(), inference.model, {**state, **batch})
    if recipe is not None:
        step = compile_step(recipe)
        feeds = {**step.source.initial(seed), **batch}
        quiet = without_slope(step, feeds)
        yield compared("training step", step.source.step, step.step_model, feeds, quiet)
        yield check_learning(step, batch, seed)


def batch_of(
    model: Model, data: Mapping[str, Array] | None, random: np.random.Generator
) -> dict[str, Array]:
    """One small batch: the first rows of the data, or numbers that the types allow."""
    if data is not None:
        return {
            name: data[name][:ROWS] if _is_batched(leaf) else data[name]
            for name, leaf in model.inputs.items()
            if name in data
        }
    names = sorted(symbols(d for leaf in model.inputs.values() for d in leaf.shape), key=str)
    sizes: dict[Any, Dim] = {s: 4 + 2 * i for i, s in enumerate(names)}
    return {
        name: _drawn(leaf, tuple(int(substitute(d, sizes)) for d in leaf.shape), random)
        for name, leaf in model.inputs.items()
    }


def _is_batched(leaf: Value) -> bool:
    return leaf.rank > 0 and not isinstance(leaf.shape[0], int)


def _drawn(leaf: Value, shape: tuple[int, ...], random: np.random.Generator) -> Array:
    """Integers are 0 or 1, which are labels and indices of almost anything."""
    dtype = leaf.dtype.numpy
    values = random.normal(size=shape) if leaf.dtype.is_float else random.integers(0, 2, shape)
    return np.asarray(values).astype(dtype)


def _state(model: Model, seed: int) -> dict[str, Array]:
    start = {"seed": np.asarray(seed, np.int64), "step": np.zeros((), np.int64)}
    return {**start, **initial_values(model, seed)}


def check_gradient(
    model: Model, update: Minimize, feeds: Mapping[str, Array], random: np.random.Generator
) -> Iterator[Finding]:
    """The slope of the loss along a random direction of each trained parameter, against a central
    difference, both in double precision; near the initial parameters, not at them."""
    loss = update.loss_of(model)
    trained = update.trained(model)
    declared = [v for v in toposort([loss]) if _has_declared_slope(v)]
    if declared:
        site = model.graph.trace.site(declared[0])
        where = f" ({site.place})" if site else ""
        yield Finding(
            f"gradient of {update.loss}",
            None,
            f"it has {len(declared)} declared slopes{where}, which differences do not see",
        )
        return
    with tracing(model.graph.trace):
        slopes = grad(loss, list(trained.values()))
    point = dict(feeds)
    for path in trained:
        point[path] = feeds[path] + JITTER * random.normal(size=feeds[path].shape)
    arrays = evaluate([loss, *slopes], point, np.float64)
    loss, point = _held(loss, point)
    worst, where = 0.0, ""
    for path, slope in zip(trained, arrays[1:], strict=True):
        # Some of the gradient itself in the direction, or most directions are almost level.
        direction = _unit(random.normal(size=slope.shape)) + _unit(slope)
        symbolic = float(np.sum(slope * direction))
        scale = abs(symbolic) + 1e-8 * (1 + abs(float(arrays[0])))
        error = min(
            abs(_difference(loss, point, path, direction, h) - symbolic) / scale
            for h in DIFFERENCES
        )
        if not error <= worst:  # NaN is the worst
            worst, where = error, path
    yield Finding(
        f"gradient of {update.loss}",
        worst <= GRADIENT_TOLERANCE,
        f"largest relative error {worst:.1e} over {len(trained)} parameters"
        + (f", at {where}" if where else ""),
    )


def _is_stopped(v: Value) -> bool:
    return isinstance(v.op, Map) and v.op.body.func is stop_gradient


def _has_declared_slope(v: Value) -> bool:
    """Whether the slope of a node is what somebody declared, and not its derivative."""
    if isinstance(v.op, Map):
        hidden = v.op.body.has(stop_gradient) and not _is_stopped(v)
        return v.op.slopes is not None or hidden
    return isinstance(v.op, Reroute)


def _held(loss: Value, point: dict[str, Array]) -> tuple[Value, dict[str, Array]]:
    """The loss where what `stop_gradient` holds constant stays as it is at `point`, as it does in
    the symbolic slope."""
    stopped = [v for v in toposort([loss]) if _is_stopped(v)]
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


def without_slope(step: CompiledStep, feeds: Mapping[str, Array]) -> set[str]:
    """The parameters whose slope is zero but for rounding, as that of the bias of attention's keys:
    an optimizer that divides by the slope's own size makes a step of the rounding."""
    slopes = evaluate(step.source.gradient, feeds, np.float64)
    size = {
        name.removesuffix(".grad"): float(np.max(np.abs(x), initial=0.0))
        for name, x in slopes.items()
        if name.endswith(".grad")
    }
    largest = max(size.values(), default=0.0)
    return {path for path, s in size.items() if s < 1e-12 * largest}


def compared(
    what: str,
    graph: Graph,
    model: Any,
    feeds: Mapping[str, Array],
    leave_out: Collection[str] = (),
) -> Finding:
    """The outputs of the ONNX model in onnxruntime against those of the graph, before any pass,
    in numpy and double precision; `leave_out` names paths whose next values are not compared."""
    session = Session(model)
    expected = evaluate(graph, feeds, np.float64)
    got = session.run({port.name: feeds[port.name] for port in session.inputs})
    errors = {
        name: relative_error(got[name], expected[name])
        for name in got
        if not any(name.startswith(f"{path}.") for path in leave_out)
    }
    name = max(errors, key=lambda n: (np.isnan(errors[n]), errors[n]))
    return Finding(
        f"ONNX {what}",
        errors[name] <= ONNX_TOLERANCE,
        f"largest relative error {errors[name]:.1e} over {len(errors)} outputs, at {name}",
    )


def relative_error(got: Array, expected: Array) -> float:
    """The largest difference, in units of the largest element; infinite where the shapes differ,
    NaN where only one of two elements is NaN."""
    if got.shape != expected.shape:
        return float("inf")
    if got.size == 0:
        return 0.0
    a, b = got.astype(np.float64), expected.astype(np.float64)
    same = (a == b) | (np.isnan(a) & np.isnan(b))  # equal infinities have no difference
    difference = np.abs(np.where(same, 0.0, a) - np.where(same, 0.0, b))
    largest = np.max(np.abs(b[np.isfinite(b)]), initial=0.0)
    return float(np.max(difference) / (1e-6 + largest))


def check_learning(step: CompiledStep, batch: Mapping[str, Array], seed: int) -> Finding:
    """Whether steps on one and the same batch bring its loss down."""
    if not any(isinstance(u, Minimize) for u in step.source.recipe.updates):
        return Finding("learns one batch", None, "no update follows a gradient")
    found = overfit_one_batch(step, batch, STEPS, seed)
    return Finding("learns one batch", found.learns, str(found))
