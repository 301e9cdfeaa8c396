"""What a runner of steps is given: a compiled step, a step, a recipe or graph of one, or a file."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, Protocol

from nncompile.backends.onnx.model import to_model
from nncompile.diagnostics.errors import BackendError, ModelError
from nncompile.diagnostics.kinds import shown
from nncompile.ir.graph import Graph
from nncompile.passes import optimize
from nncompile.program.composition import compose
from nncompile.program.model import Model
from nncompile.program.rate_groups import with_rates_of
from nncompile.program.recipe import Recipe
from nncompile.program.step import Step
from nncompile.runtime.feeds import Port
from nncompile.runtime.origin import FirstState
from nncompile.runtime.session import Session
from nncompile.runtime.tensor_files import state_path

METADATA_KEY = "nncompile.state"
"""The key of a step's metadata: JSON, the name of each state input to that of its next value."""


class Compiled(Protocol):
    """A compiled step; see `nncompile.compiler.compile.CompiledStep`."""

    @property
    def step_model(self) -> Any: ...


def step_of(
    source: Any, state: Mapping[str, Any] | str | os.PathLike[str] | None
) -> tuple[Any, FirstState]:
    """The step as a session takes it, and its first state: by default that of the step, drawn from
    the recipe's seed, or the one that was exported beside a file (`step.onnx` and
    `step.state.safetensors`). The step of a recipe has the learning rates that were set in `state`.

    Raises `ModelError` for what is no step, and where there is no state.
    """
    step: Step | None = None
    first = _first_state(state)
    if isinstance(source, Recipe):
        source = compose(with_rates_of(source, first.arrays if first else ()))
    if isinstance(source, Step):
        step, source = source, optimize(source.step)
    elif hasattr(source, "step_model") and isinstance(getattr(source, "source", None), Step):
        step, source = source.source, source.step_model  # a CompiledStep
    if isinstance(source, Graph):
        source = _lowered(source)
    if isinstance(source, Model):
        raise ModelError(
            f"a runner makes steps of a training, got model {source.name}",
            hint="StepRunner(training(model, minimize='loss', optimizer=adam(1e-3)))",
        )
    is_file = isinstance(source, str | os.PathLike)
    if not (is_file or isinstance(source, bytes) or hasattr(source, "SerializeToString")):
        raise ModelError(
            f"a runner makes steps of a recipe, a compiled step or a file, got {shown(source)}",
            hint="StepRunner(compile_step(recipe))",
        )
    if first is None and step is not None:
        first = FirstState(step.initial())
    if first is None and is_file and state_path(source).is_file():
        first = FirstState.of(state_path(source))
    if first is None:
        raise ModelError(
            "a runner needs the first state of the step, which does not say it itself",
            hint="StepRunner(step, state), as of compile_step(recipe).source.initial(seed=0) or "
            "trainer.state",
        )
    return source, first


def _first_state(state: Mapping[str, Any] | str | os.PathLike[str] | None) -> FirstState | None:
    if state is None:
        return None
    if isinstance(state, str | os.PathLike):
        return FirstState.of(state)
    if not isinstance(state, Mapping):
        raise ModelError(f"state must be a dict of arrays by path, or a file, got {shown(state)}")
    return FirstState(state)


def _lowered(graph: Graph) -> Any:
    """The graph of a step as a model: the next value of the leaf `w` is the output `w.next`."""
    pairs = {name: f"{name}.next" for name in graph.leaves if f"{name}.next" in graph.outputs}
    if not pairs:
        raise ModelError(
            f"graph {graph.name} is not a training step: no output is the next value of a leaf",
            rows=[("outputs", ", ".join(graph.outputs))],
            hint="compile_step(recipe).step is one",
        )
    return to_model(graph, metadata={METADATA_KEY: json.dumps(pairs)})


def state_map(session: Session) -> dict[str, str]:
    """The name of each state with that of its next value, as a step says it. Raises `BackendError`
    for what is none."""
    text = session.metadata.get(METADATA_KEY)
    if text is None:
        raise BackendError(
            f"{session.name} is not a training step: it has no metadata {METADATA_KEY!r}",
            hint="nncompile compile FILE.py --to step makes one",
        )
    try:
        pairs = json.loads(text)
    except json.JSONDecodeError as error:
        raise BackendError(f"the metadata {METADATA_KEY!r} is not JSON: {error}") from None
    inputs = {port.name: port for port in session.inputs}
    outputs = {port.name: port for port in session.outputs}
    if not isinstance(pairs, dict) or not all(
        _pair(inputs.get(name), outputs.get(result)) for name, result in pairs.items()
    ):
        raise BackendError(
            f"the metadata {METADATA_KEY!r} does not name inputs and outputs of equal types",
            rows=[("got", text[:200])],
        )
    return dict(pairs)


def _pair(port: Port | None, result: Port | None) -> bool:
    return (
        port is not None
        and result is not None
        and port.dtype == result.dtype
        and len(port.shape) == len(result.shape)
    )
