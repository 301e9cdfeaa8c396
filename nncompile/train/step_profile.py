"""Where the time of a training step goes: microseconds by the user's lines."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from nncompile.backends.onnx import from_bytes
from nncompile.diagnostics.errors import FeedError, whole_number
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.locations import Location
from nncompile.diagnostics.tables import columns, html_table
from nncompile.ir.types import Array
from nncompile.runtime.profiling import node_times, original_name, profile_prefix
from nncompile.runtime.runner import StepRunner
from nncompile.train.data import Data, Feeder
from nncompile.train.evaluation import ports_of
from nncompile.train.trainer import Trainer

_OVERHEAD = 5.0  # microseconds, at most, that it takes to measure a node
_NEGLIGIBLE = 0.02  # of a step
_SHOWN = 20
_FORWARD, _BACKWARD, _UPDATE, _OTHER = "forward", "backward", "update", "other"
_KIND = tuple[str, str]  # a line and a direction, or "" and what else it is


@dataclass(frozen=True)
class LineTime:
    """The microseconds of a step that a line of the user's file takes: what it computes, and what
    the gradient of it does."""

    place: str
    text: str
    forward: float
    backward: float

    @property
    def total(self) -> float:
        """Both directions together."""
        return self.forward + self.backward


@dataclass(frozen=True)
class Profile:
    """Where the time of a step goes, in microseconds; printed, it is a table.

    `step` is what a step takes without being measured within, the quickest of `steps`. `lines` are
    those of the model, the longest first; `update` is the optimizer, with what is computed of whole
    gradients (clipping, averages of weights). `other` are nodes of no line: casts and changes of
    layout that onnxruntime adds. What is left, `between`, passes outside of nodes: calls of the
    runtime, and copies of the batch.
    """

    model: str
    provider: str
    batch: Mapping[str, tuple[int, ...]]
    steps: int
    step: float
    lines: tuple[LineTime, ...]
    update: float
    other: float

    @property
    def nodes(self) -> float:
        """The microseconds of all nodes."""
        return sum(line.total for line in self.lines) + self.update + self.other

    @property
    def between(self) -> float:
        """The microseconds of a step in which no node runs."""
        return max(0.0, self.step - self.nodes)

    def rows(self, count: int = _SHOWN) -> Iterator[tuple[str, ...]]:
        """A title, the `count` longest lines, and what belongs to no line."""
        whole = max(self.step, self.nodes, 1e-9)
        yield "line", "forward µs", "backward µs", "share", ""
        for line in self.lines[:count]:
            times = _microseconds(line.forward), _microseconds(line.backward)
            yield line.place, *times, f"{line.total / whole:.1%}", line.text
        rest = self.lines[count:]
        total = sum(line.total for line in rest)
        kinds = {
            f"{len(rest)} more lines": total if rest else None,
            "update of the weights": self.update,
            "other nodes": self.other,
            "outside of nodes": self.between,
        }
        for name, microseconds in kinds.items():
            if microseconds is not None:
                yield name, "", _microseconds(microseconds), f"{microseconds / whole:.1%}", ""

    @property
    def title(self) -> str:
        """What was measured."""
        return (
            f"{self.model}: {self.step:,.0f} µs a step on {self.provider}, "
            f"the quickest of {self.steps}"
        )

    def __str__(self) -> str:
        return f"{self.title}\n{columns(list(self.rows()), right=(1, 2, 3))}"

    def __repr__(self) -> str:
        return f"<Profile of {self.title}>"

    def _repr_html_(self) -> str:
        return html_table(list(self.rows()), (1, 2, 3), caption=self.title)


@suggests_names
def profile(
    trainer: Trainer,
    data: Data,
    steps: int = 30,
    batch_size: int | None = None,
    seconds: float = 5.0,
) -> Profile:
    """Measures where the time of a training step goes, by the lines of the model: on the first
    batch of `data`, `steps` times, or as often as `seconds` allow, twice if it has to be.

    The steps are made on a copy of the state, with the options of the trainer: the training goes on
    as if nothing was measured. Of a node the median counts. To measure it takes a few microseconds
    itself, of each node the same: where that is more than 2 % of a step, steps are also made
    without, and so much is taken off that all nodes together take no longer than such a step.
    Raises `FeedError` for data that do not fit.
    """
    whole_number("steps", steps, 1)
    state, compiled = trainer.state, trainer.compiled
    with profile_prefix() as prefix:
        measured = compiled.runner(
            state, trainer.providers, trainer.threads, prefix, native=trainer.native
        )
        batch = _first_batch(trainer, measured, data, batch_size)
        durations = list(_run(measured, batch, steps, seconds))
        runs = node_times(measured.session.onnxruntime.end_profiling())[-len(durations) :]
        lines = _Lines(trainer, from_bytes(measured.model))
        del measured  # and its copy of the state
    nodes = _medians(runs)
    if len(nodes) * _OVERHEAD > _NEGLIGIBLE * 1e6 * min(durations):
        plain = compiled.runner(state, trainer.providers, trainer.threads, native=trainer.native)
        durations = list(_run(plain, batch, steps, seconds))
        del plain
    step = 1e6 * min(durations)
    times = lines.times(_without_overhead(nodes, step))
    return Profile(
        trainer.model.name,
        str(trainer.providers),
        {name: tuple(x.shape) for name, x in batch.items()},
        len(durations),
        step,
        tuple(lines.sorted(times)),
        times.get(("", _UPDATE), 0.0),
        times.get(("", _OTHER), 0.0),
    )


def _medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = {name: None for run in runs for name in run}
    return {name: float(np.median([run.get(name, 0.0) for run in runs])) for name in names}


def _without_overhead(nodes: Mapping[str, float], step: float) -> dict[str, float]:
    """The times of nodes without what it took to measure them: where they add up to more than a
    step, they are that much too long, each by the same, or by all that it is. What is more than
    measuring takes was other work on the machine, of which each node has its share."""
    ordered = sorted(nodes.values())
    total, overhead = sum(ordered), 0.0
    for i, shortest in enumerate(ordered):  # of those that are left, after the i shorter ones
        left = len(ordered) - i
        overhead = max(0.0, (total - step) / left)
        if overhead <= shortest:
            break
        total -= shortest
    overhead = min(overhead, _OVERHEAD)
    own = {name: max(0.0, microseconds - overhead) for name, microseconds in nodes.items()}
    left_over = sum(own.values())
    share = min(1.0, step / left_over) if left_over else 1.0
    return {name: microseconds * share for name, microseconds in own.items()}


def _first_batch(
    trainer: Trainer, runner: StepRunner, data: Data, batch_size: int | None
) -> dict[str, Array]:
    model = trainer.model
    size = trainer.recipe.batch_size if batch_size is None else batch_size
    ports = ports_of(model, runner.session)
    feeder = Feeder(data, model, ports, size, trainer.compiled.sizes, prefetch=0)
    for batch in feeder.epoch():
        return dict(batch)
    raise FeedError("no batch to profile a step on")


def _run(
    runner: StepRunner, batch: Mapping[str, Array], steps: int, seconds: float
) -> Iterator[float]:
    """The seconds of so many steps, after two that are not counted, as the first makes buffers.
    None begins after `seconds`: where those are over before, the last that was made counts."""
    end = time.perf_counter() + seconds
    for i in range(-2, steps):
        start = time.perf_counter()
        runner.step(batch)
        now = time.perf_counter()
        if i >= 0 or now > end:
            yield now - start
        if now > end:
            return


class _Lines:
    """The lines of the user's files that the nodes of a step were made of."""

    def __init__(self, trainer: Trainer, step: Any) -> None:
        self._trainer = trainer
        self._kinds: dict[str, _KIND] = {}
        self._add(step.graph.node)
        self._find = original_name(self._kinds)

    def times(self, nodes: Mapping[str, float]) -> dict[_KIND, float]:
        """The microseconds of nodes by line and direction."""
        found: dict[_KIND, float] = {}
        for name, microseconds in nodes.items():
            original = self._find(name)
            kind = ("", _OTHER) if original is None else self._kinds[original]
            found[kind] = found.get(kind, 0.0) + microseconds
        return found

    def sorted(self, times: Mapping[_KIND, float]) -> list[LineTime]:
        """The lines, the longest first."""
        places = {place: None for place, _ in times if place}
        lines = [
            LineTime(
                place,
                self._locations[place].text if place in self._locations else "",
                times.get((place, _FORWARD), 0.0),
                times.get((place, _BACKWARD), 0.0),
            )
            for place in places
        ]
        return sorted(lines, key=lambda line: -line.total)

    def _add(self, nodes: Any) -> None:
        for node in nodes:
            props = {entry.key: entry.value for entry in node.metadata_props}
            self._kinds[node.name] = self._kind(props)
            for attribute in node.attribute:
                self._add(attribute.g.node)

    def _kind(self, props: Mapping[str, str]) -> _KIND:
        if not props.get("scope"):  # what is made of whole gradients, outside of the model
            return "", _UPDATE
        return props["source"], props.get("direction", _FORWARD)

    @cached_property
    def _locations(self) -> dict[str, Location]:
        """Of each place a line, whose text can be read."""
        graph = self._trainer.compiled.step
        several = (x for v in graph.nodes for x in graph.locations.all_locations(v))
        return {location.place: location for location in several}


def _microseconds(x: float) -> str:
    return f"{x:,.0f}" if x >= 10 or x == 0 else f"{x:.1f}"
