"""How a training is, layer by layer: norms of gradients and updates, activations, dead units.

All figures of one measurement are outputs of one graph of state and batch, which is compiled as the
step is and run beside it: the training itself is not touched.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from nncompile.compiler.compile import CompiledStep, compiled_step
from nncompile.compiler.stages import Target
from nncompile.diagnostics.errors import ModelError, warn, whole_number
from nncompile.diagnostics.errors import TrainingWarning as TrainingWarning
from nncompile.diagnostics.hints import suggests_options
from nncompile.diagnostics.locations import recording_locations
from nncompile.elementwise import abs, sqrt, where
from nncompile.ir.basic import cast
from nncompile.ir.graph import Graph, needed
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value
from nncompile.ir.types import Array, f64
from nncompile.program.composition import compose
from nncompile.program.recipe import Recipe, minimize
from nncompile.program.step import Step
from nncompile.program.updated_state import Window
from nncompile.runtime import Session
from nncompile.runtime.providers import Provider
from nncompile.train.events import Event
from nncompile.train.measurement import (
    DEAD,
    EXPLODING,
    VANISHING,
    ActivationFigures,
    LayerFigures,
    Measurement,
)
from nncompile.train.units import HiddenUnits, depths, hidden_units

# Passes without which a measurement, of a few runs, is as fast, and sooner compiled.
_LEFT_OUT = ("casts", "reshapes", "common", "transposes", "gemm", "update", "pack")


@suggests_options
class Probe:
    """Measures a recipe's training at any state and batch; `recipe` may be one that is compiled.

    Measuring computes the gradient and the update as the step does, with the same random numbers
    (dropout), and changes nothing. Where a recipe accumulates, the gradient is that of the batch,
    and the update that of all batches since the last one, this one included. The state and
    the batch may be of any batch size that the model takes. The options are those of `Trainer`.
    """

    def __init__(
        self,
        recipe: Recipe | CompiledStep,
        providers: Provider | Sequence[Provider] = "cpu",
        threads: int | None = None,
        without: Collection[str] = (),
    ) -> None:
        self.compiled = compiled_step(recipe, without)
        self.recipe = self.compiled.source.recipe
        with recording_locations(self.recipe.model.graph.locations):
            self._plan = _Plan(self.compiled)
        compiled, graph = self.compiled, self._plan.graph

        def optimized() -> Graph:
            return compiled.optimized("monitor", graph, _LEFT_OUT)

        target = Target("monitor", graph, optimized, _LEFT_OUT)
        content = compiled.made(target).content
        self.session = Session(content, providers, threads, optimization="basic")

    def measure(self, state: Mapping[str, Any], batch: Mapping[str, Any]) -> Measurement:
        """The figures at that state (`trainer.state`) on that batch. Raises `FeedError` for data
        that do not fit."""
        arrays = {**state, **batch}
        feeds = {p.name: arrays[p.name] for p in self.session.inputs if p.name in arrays}
        return self._plan.measurement(self.session.run(feeds), int(state["step"]))


class _Plan:
    """The graph of a measurement, and how its outputs are read."""

    def __init__(self, compiled: CompiledStep) -> None:
        recipe = compiled.source.recipe
        # Most steps of an accumulation do not update: what an update here would be is measured.
        accumulates = recipe.accumulate > 1
        source = compose(recipe, Window.CLOSING) if accumulates else compiled.source
        model = recipe.trained_model
        self._locations = model.graph.locations
        self.losses: dict[str, tuple[str, ...]] = {}
        self.leaves: dict[str, Value] = {}
        self.outputs: dict[str, Value] = {}
        self.hidden: dict[str, HiddenUnits] = {}
        for update in recipe.updates:
            if isinstance(update, minimize):
                self._measure(update, recipe, source)
        if not self.leaves:
            raise ModelError(
                f"no update of {recipe.model.name} follows a gradient: there is none to measure",
                hint='training(model, minimize="loss") has one',
            )
        for name, units in self.hidden.items():
            for figure, value in units.figures().items():
                self.outputs[_output(figure, name)] = value
        inputs = needed(self.outputs.values(), source.step.inputs)
        self.graph = Graph(f"{recipe.model.name}_monitor", self.outputs, inputs, self._locations)

    def _measure(self, update: minimize, recipe: Recipe, source: Step) -> None:
        """Adds the parameters that an update trains and none before it, and the hidden units of
        its loss."""
        model = recipe.trained_model
        trained = update.trained(model, recipe.freeze)
        loss = update.loss_of(model)
        distance = depths(loss)
        untracked = {p: leaf for p, leaf in trained.items() if p not in self.leaves}
        ordered = sorted(untracked, key=lambda p: -distance[untracked[p]])
        names = tuple(dict.fromkeys(_layer(path) for path in ordered))
        if names:
            self.losses[update.loss] = (*self.losses.get(update.loss, ()), *names)
        for path in ordered:
            leaf = self.leaves[path] = untracked[path]
            following = source.step.outputs[f"{path}.next"]
            gradient = source.gradient.outputs[f"{path}.grad"]
            self.outputs[_output("weight", path)] = norm(leaf)
            self.outputs[_output("gradient", path)] = norm(gradient)
            self.outputs[_output("update", path)] = norm(following - leaf)
        for name, units in hidden_units(loss, self._locations, recipe.model.name).items():
            if all(units.value is not tracked.value for tracked in self.hidden.values()):
                self.hidden[unused_name(name, self.hidden)] = units

    @cached_property
    def _location_texts(self) -> dict[str, str]:
        locations = {path: self._locations.location(leaf) for path, leaf in self.leaves.items()}
        return {path: location.place if location else "" for path, location in locations.items()}

    def measurement(self, outputs: Mapping[str, Array], step: int) -> Measurement:
        norms = ("weight", "gradient", "update")
        parameters = {
            path: LayerFigures(
                path, self._location_texts[path], *(float(outputs[_output(n, path)]) for n in norms)
            )
            for path in self.leaves
        }
        members: dict[str, list[LayerFigures]] = {}
        for path, figures in parameters.items():
            members.setdefault(_layer(path), []).append(figures)
        layers = {
            layer: LayerFigures(
                layer,
                several[0].place,
                *(math.hypot(*(getattr(x, n) for x in several)) for n in norms),
            )
            for layer, several in members.items()
        }
        activations = {
            name: ActivationFigures(
                name,
                units.place,
                units.formula,
                float(outputs[_output("mean", name)]),
                math.sqrt(max(float(outputs[_output("variance", name)]), 0.0)),
                float(outputs[_output("zeros", name)]),
                np.asarray(outputs[_output("dead", name)]),
            )
            for name, units in self.hidden.items()
        }
        return Measurement(step, layers, parameters, activations, self.losses)


@suggests_options
class Monitor:
    """A callback that measures how the training is, at the end of each epoch or after each `every`
    steps, on the batch of the last step.

    `measurements` holds all that was measured, `last` the latest. What is wrong (see
    `Measurement.warnings`, which takes the same bounds) is reported once for each kind and layer,
    as a `TrainingWarning`; with `warn=False` only on request. The training computes the same bits
    with and without a monitor.
    """

    may_add_metrics = False

    def __init__(
        self,
        every: int | None = None,
        warn: bool = True,
        vanishing: float = VANISHING,
        exploding: float = EXPLODING,
        dead: float = DEAD,
    ) -> None:
        self.every = None if every is None else whole_number("every", every, 1)
        self.warn = warn
        self.bounds = {"vanishing": vanishing, "exploding": exploding, "dead": dead}
        self.measurements: list[Measurement] = []
        self._probe: Probe | None = None
        self._warned: set[str] = set()

    @property
    def last(self) -> Measurement:
        """The latest measurement. Raises `ModelError` before the first."""
        if not self.measurements:
            raise ModelError("nothing was measured yet", hint="fit(..., callbacks=[monitor])")
        return self.measurements[-1]

    def measure(
        self, trainer: Any, batch: Mapping[str, Any], state: Mapping[str, Any] | None = None
    ) -> Measurement:
        """Measures the trainer as it is now, or at another state of it, on a batch; without
        warnings."""
        if self._probe is None or self._probe.compiled is not trainer.compiled:
            self._probe = Probe(trainer.compiled, trainer.providers, trainer.threads)
        state = trainer.state if state is None else state
        self.measurements.append(self._probe.measure(state, batch))
        return self.last

    def wants_step(self, step: int) -> bool:
        """Whether it measures after that step."""
        return self.every is not None and step % self.every == 0

    def on_step(self, event: Event) -> None:
        if self.wants_step(event.step):
            self._measure(event)

    def on_epoch(self, event: Event) -> None:
        if self.every is None:
            self._measure(event)

    def state_dict(self) -> dict[str, Any]:
        """What was measured and reported so far."""
        return {
            "measurements": [m.stored() for m in self.measurements],
            "warned": sorted(self._warned),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on with what `state_dict` gave."""
        self.measurements = [Measurement.restored(x) for x in state["measurements"]]
        self._warned = set(state["warned"])

    def _measure(self, event: Event) -> None:
        measurement = self.measure(event.trainer, event.batch)
        for kind, message in measurement.warnings(**self.bounds).items():
            if self.warn and kind not in self._warned:
                self._warned.add(kind)
                warn(f"step {event.step}: {message}", TrainingWarning)


def norm(x: Value) -> Value:
    """√Σx², which neither overflows nor underflows where the result does not."""
    result: Value
    if x.dtype is not f64:  # whose squares are no larger than double has them
        wide = cast(x, f64)
        result = sqrt((wide * wide).sum())
        return result
    if 0 in x.shape:  # there is no largest
        result = sqrt((x * x).sum())
        return result
    largest = abs(x).max()
    unit = where(largest > 0, largest, 1)
    relative = x / unit
    result = unit * sqrt((relative * relative).sum())
    return result


def _output(figure: str, name: str) -> str:
    """No output of a model nor leaf is called so."""
    return f"{figure} of {name}"


def _layer(path: str) -> str:
    return path.rpartition(".")[0] or path
