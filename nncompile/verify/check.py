"""Whether a model does what it says: its gradients, its ONNX form, and whether it learns at all."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile.autodiff.grad import grad
from nncompile.compiler.compile import CompiledStep, compile_model, compile_step
from nncompile.diagnostics.errors import seed_number
from nncompile.diagnostics.locations import tracing
from nncompile.ir.dims import Dim, substitute, symbols
from nncompile.ir.graph import Graph, Value
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array
from nncompile.ops.core.assertions import InRange
from nncompile.program.model import Model
from nncompile.program.recipe import Minimize, Recipe
from nncompile.program.shape_check import SizeCheck, trained
from nncompile.program.step import initial_values
from nncompile.runtime import Session
from nncompile.train.indices import claimed
from nncompile.train.locate import locate_nonfinite
from nncompile.train.overfit import overfit_one_batch
from nncompile.verify.finite_differences import GRADIENT_TOLERANCE, declared_slopes, worst_slope

ROWS = 16  # of a batch that is checked: each is computed many times in double precision
STEPS = 200  # on one batch
JITTER = 0.01  # moves the parameters off the points where formulas have kinks, zero above all
ONNX_TOLERANCE = 1e-4  # of float32 against double precision, relative to the largest element
HALF_ROUNDINGS = 4  # of 16 bits, that what float32 has in another way is rounded to elsewhere


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
    `data` or, where there are none, on random ones drawn from `seed`. Raises `FeedError` for sizes
    at which there is no model."""
    random = np.random.default_rng(seed_number(seed))
    batch = batch_of(model, data, random)
    SizeCheck(trained(model.whole), model.inputs)({name: x.shape for name, x in batch.items()})
    state = _state(model, seed)
    for update in recipe.updates if recipe else ():
        if isinstance(update, Minimize):
            yield check_gradient(model, update, {**state, **batch}, random)
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
    claims = claimed(trained(model.whole))
    return {
        name: _drawn(
            leaf, tuple(int(substitute(d, sizes)) for d in leaf.shape), random, claims.get(name)
        )
        for name, leaf in model.inputs.items()
    }


def _is_batched(leaf: Value) -> bool:
    return leaf.rank > 0 and not isinstance(leaf.shape[0], int)


def _drawn(
    leaf: Value, shape: tuple[int, ...], random: np.random.Generator, claim: InRange | None
) -> Array:
    """Integers are 0 or 1, which are labels and indices of almost anything; real numbers of which
    a range is claimed are in it."""
    dtype = leaf.dtype.numpy
    values: Array
    if not leaf.dtype.is_float:
        values = random.integers(0, 2, shape)
    elif claim is not None and isinstance(claim.low, int):
        high = claim.high if isinstance(claim.high, int) else claim.low + 1
        values = random.uniform(claim.low, high, shape)
    else:
        values = random.normal(size=shape)
    return np.asarray(values).astype(dtype)


def _state(model: Model, seed: int) -> dict[str, Array]:
    start = {"seed": np.asarray(seed, np.int64), "step": np.zeros((), np.int64)}
    return {**start, **initial_values(model, seed)}


def check_gradient(
    model: Model, update: Minimize, feeds: Mapping[str, Array], random: np.random.Generator
) -> Finding:
    """The slope of the loss along a random direction of each trained parameter, against a central
    difference, both in double precision; near the initial parameters, not at them."""
    what = f"gradient of {update.loss}"
    loss = update.loss_of(model)
    trained = update.trained(model)
    declared = declared_slopes(loss)
    if declared:
        site = model.graph.trace.site(declared[0])
        where = f" ({site.place})" if site else ""
        figures = f"it has {len(declared)} declared slopes{where}, which differences do not see"
        return Finding(what, None, figures)
    with tracing(model.graph.trace):
        slopes = grad(loss, list(trained.values()))
    point = dict(feeds)
    for path in trained:
        point[path] = feeds[path] + JITTER * random.normal(size=feeds[path].shape)
    found = dict(zip(trained, slopes, strict=True))
    inputs = tuple(model.inputs.values())
    graph = Graph(what, found, (*inputs, *trained.values()), model.graph.trace)
    lost = _lost(graph, loss, point)
    if lost is not None:
        return Finding(what, False, lost)
    worst, where = worst_slope(loss, found, point, random, inputs)
    return Finding(
        what,
        worst <= GRADIENT_TOLERANCE,
        f"largest relative error {worst:.1e} over {len(trained)} parameters"
        + (f", at {where}" if where else ""),
    )


def _lost(graph: Graph, loss: Value, point: Mapping[str, Array]) -> str | None:
    """What is said of gradients that are not finite where the loss is; None where all are."""
    values = dict(point)
    for name, leaf in graph.leaves.items():
        if name in values:
            values[name] = np.asarray(values[name], leaf.dtype.numpy)
    whole = {**graph.outputs, "loss": loss}
    arrays = evaluate(Graph(graph.name, whole, graph.inputs, graph.trace), values, np.float64)
    if not np.isfinite(arrays.pop("loss")):
        return None
    paths = [path for path, x in arrays.items() if not np.isfinite(x).all()]
    place = locate_nonfinite(graph, values, paths[:1]) if paths else None
    if place is None:
        return None
    last = place.then or place
    return (
        f"it is not finite at {paths[0]}, where the loss is: {place}"
        + (f"; then {last}" if last is not place else "")
        + ". Behind a product of matrices or a running sum, what where() does not take has a part "
        "in the gradient: let it choose the argument, sqrt(where(x > 0, x, 1))"
    )


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
    in numpy and double precision, but for values of 16 bits: then it is rounded as it is in numpy,
    too. `leave_out` names paths whose next values are not compared."""
    session = Session(model)
    types = [getattr(v.type, "items", (v.type,)) for v in graph.nodes]
    halves = {t.dtype.eps for several in types for t in several if t.dtype.is_half}
    expected = evaluate(graph, feeds, None if halves else np.float64)
    allowed = max(ONNX_TOLERANCE, HALF_ROUNDINGS * max(halves, default=0.0))
    got = session.run({port.name: feeds[port.name] for port in session.inputs})
    errors = {
        name: relative_error(got[name], expected[name])
        for name in got
        if not any(name.startswith(f"{path}.") for path in leave_out)
    }
    name = max(errors, key=lambda n: (np.isnan(errors[n]), errors[n]))
    return Finding(
        f"ONNX {what}",
        errors[name] <= allowed,
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
