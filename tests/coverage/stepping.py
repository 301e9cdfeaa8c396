"""Ten training steps, by every way to compute them."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompile.ir.dims import substitute, symbols
from nncompile.ir.types import Type
from nncompile.program.first_row import FIRST_ROW
from nncompile.program.recipe import Recipe
from nncompile.runtime import Session
from tests.backends import session, valid_model
from tests.coverage.checks import STATE_SIZES, Feeds, System, distance, once
from tests.op_checks import in_double
from tests.tolerances import assert_close

STEPS = 10

# What is computed: the metrics of each step, as `loss 3`, and the last state, by path.


def batches_of(system: System) -> list[Feeds]:
    """The data of the steps: what the system says, random numbers otherwise. Every third batch is
    of another size: one file serves all."""
    recipe = system.compiled.source.recipe
    if system.batches is not None:
        return system.batches(recipe)
    rng = np.random.default_rng(zlib.crc32(f"{system.name} batches".encode()))
    return [_batch(recipe, rng, 8 if i % 3 else 5) for i in range(STEPS)]


@once
def in_numpy(system: System) -> Feeds:
    """The steps of the graph before any pass, in double precision."""
    step = system.compiled.source
    state: Feeds = dict(step.initial())
    found: Feeds = {}
    for i, batch in enumerate(batches_of(system)):
        results = in_double(step.step, {**state, **batch})
        found |= {f"{name} {i}": results[name] for name in step.model.metrics}
        state |= {path: results[following] for path, following in step.state_map.items()}
    return found | state


@once
def in_onnxruntime(system: System) -> Feeds:
    """The steps by the ONNX file that is exported."""
    step = system.compiled.source
    runner = system.compiled.runner(step.initial(), threads=1)
    found: Feeds = {}
    for i, batch in enumerate(batches_of(system)):
        runner.step(batch)
        metrics = runner.metrics()
        found |= {f"{name} {i}": metrics[name] for name in step.model.metrics}
    return found | runner.state()


def in_torchscript(system: System, torchscript: Any) -> Feeds:
    """The steps by the TorchScript module that is exported."""
    from nncompile.backends.torchscript import arrays

    step = system.compiled.source
    module = torchscript.backend.to_step(step, step.initial(), system.compiled.optimized)
    found: Feeds = {}
    for i, batch in enumerate(batches_of(system)):
        given = [arrays.tensor_of(batch[name]) for name in step.model.inputs]
        metrics = module.train_step(*given)
        found |= {f"{name} {i}": x.numpy() for name, x in metrics.items()}
    return found | {path: x.numpy() for path, x in module.get_state().items()}


def check_same(actual: Feeds, expected: Feeds, system: System) -> None:
    """Metrics and state are those of numpy to the table's bounds, whole numbers exactly."""
    declared = system.compiled.source.state
    assert declared.keys() <= actual.keys()
    for name, exact in expected.items():
        dtype = declared[name].dtype.name if name in declared else actual[name].dtype.name
        assert_close(actual[name], exact, dtype, name)
    start = system.compiled.source.initial()
    moved = [p for p in declared if p != "step" and not np.array_equal(actual[p], start[p])]
    assert moved, "ten steps change nothing"


def steps_error(system: System) -> float:
    """How far onnxruntime's metrics and state after ten steps are from numpy's in double."""
    return _distance(in_onnxruntime(system), in_numpy(system))


def peer_errors(system: System, torch: Any) -> dict[str, float]:
    """How far onnxruntime's values, gradients and steps in f32 are from the peer's in double."""
    assert system.peer is not None
    if "peer" not in system.kept:
        system.kept["peer"] = {
            what: _distance(COMPUTED[what](system), theirs)
            for what, theirs in system.peer(torch, system).items()
        }
    return system.kept["peer"]  # type: ignore[no-any-return]


def _values(system: System) -> Feeds:
    return _first_gradient(system, gradients=False)


def _gradients(system: System) -> Feeds:
    return _first_gradient(system, gradients=True)


def _first_gradient(system: System, gradients: bool) -> Feeds:
    step = system.compiled.source
    runs = Session(system.compiled.gradient_model, threads=1)
    given = {**step.initial(), **batches_of(system)[0], FIRST_ROW: 0}
    found = runs.run({port.name: given[port.name] for port in runs.inputs})
    wanted = {f"{path}.grad" for path in step.parameters} if gradients else step.model.metrics
    return {name: x for name, x in found.items() if name in wanted}


def _rates(system: System) -> Feeds:
    shapes = {name: np.shape(system.data["step"]) for name in system.graph.outputs}
    return session(valid_model(system.graph))(system.data, shapes)


COMPUTED = {
    "forward": _values,
    "gradient": _gradients,
    "ten steps": in_onnxruntime,
    "rates": _rates,
}


def _distance(actual: Mapping[str, Any], expected: Mapping[str, Any]) -> float:
    pairs = [(actual[n], e) for n, e in expected.items() if np.asarray(e).dtype.kind == "f"]
    assert pairs, "nothing to compare"
    return distance(pairs)


def _batch(recipe: Recipe, rng: np.random.Generator, size: int) -> Feeds:
    found: Feeds = {}
    for name, x in recipe.model.inputs.items():
        assert isinstance(x.type, Type)
        sizes = {
            s: size if str(s) == "batch" else STATE_SIZES.get(str(s), 3)
            for s in symbols(x.type.shape)
        }
        shape = tuple(int(substitute(d, sizes)) for d in x.type.shape)
        whole = x.dtype.is_integer
        drawn = rng.integers(0, 3, shape) if whole else rng.uniform(-1, 1, shape)
        found[name] = drawn.astype(x.dtype.numpy)
    return found
