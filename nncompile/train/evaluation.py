"""Metrics and predictions over all examples of some data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Protocol

from nncompile.compiler.compile import CompiledModel, CompiledStep, compile_model
from nncompile.diagnostics.errors import FeedError
from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.program.quantization_aware import warn_of_unknown_ranges
from nncompile.runtime import Session
from nncompile.runtime.feeds import Port
from nncompile.runtime.providers import Provider
from nncompile.train.data import Batch, Data, Feeder
from nncompile.train.joining import joined
from nncompile.train.parallel import Parallel
from nncompile.train.sources.naming import Naming
from nncompile.train.sources.notes import Notes
from nncompile.train.sums import Sums

State = Mapping[str, Any]


class Evaluation:
    """Computes the metrics and the predictions of the model of a step as they are after training,
    in sessions that are made when they are first needed."""

    def __init__(
        self,
        step: CompiledStep,
        providers: Provider | Sequence[Provider],
        threads: int | None,
        notes: Notes,
        naming: Naming,
    ) -> None:
        self.step, self.providers, self.threads = step, providers, threads
        self.recipe = step.source.recipe
        self.model = self.recipe.model
        self.notes, self.naming = notes, naming  # of all feeders

    def feeder(self, data: Data, batch_size: int | None, y: Any = None, **options: Any) -> Feeder:
        """Batches of data that the metrics are computed on; `options` are those of `Feeder`.
        Raises `FeedError` for data that do not fit."""
        ports = ports_of(self.model, self._metrics)
        return Feeder(
            data,
            self.model,
            ports,
            self._size(batch_size),
            self.step.evaluation_sizes,
            y=y,
            notes=self.notes,
            naming=self.naming,
            **options,
        )

    def metrics(
        self, feeder: Feeder, state: State, parallel: Parallel | None = None
    ) -> dict[str, Any]:
        """Each metric over all batches, by name; of several processes each computes some of them.
        Raises `FeedError` where there are none."""
        state_inputs = _state_inputs(self._metrics, state)
        sums = Sums(self.step.source.evaluation, self.model.inputs)
        for i, batch in enumerate(feeder.epoch()):
            if parallel is not None and i % parallel.size != parallel.rank:
                continue
            sums.add(batch, self._metrics.run({**batch, **state_inputs}), feeder.examples(batch))
        if parallel is not None:
            sums = sums.joined(parallel.said(sums.stored()))
        if not sums.added.examples:
            raise FeedError("no batch to evaluate on")
        return sums.results()

    def predict(self, inputs: Any, batch_size: int | None, state: State) -> dict[str, Array]:
        """The predictions for all examples; see `Trainer.predict`."""
        session = self._predictions
        ports = ports_of(self.model, session)
        sizes = self._compiled_model.sizes
        feeder = Feeder(
            inputs,
            self.model,
            ports,
            self._size(batch_size),
            sizes,
            may_be_empty=True,
            notes=self.notes,
            naming=self.naming,
        )
        if feeder.whole is not None and feeder.count == 0:
            return feeder.empty_outputs(sizes.graph.outputs)
        state_inputs = _state_inputs(session, state)
        sample: Batch | None = None if feeder.whole is None else feeder.whole.sample()
        batch_outputs = []
        for examples in feeder.epoch():
            sample = examples if sample is None else sample
            batch_outputs.append(session.run({**examples, **state_inputs}))
        if not batch_outputs:
            raise FeedError("no batch to predict from")

        def probe() -> tuple[dict[str, Array], list[dict[str, Array]]]:
            assert sample is not None  # or there were no batches
            at_once = session.run({**sample, **state_inputs})
            parts = feeder.halves(sample)
            return at_once, [session.run({**examples, **state_inputs}) for examples in parts]

        return joined(sizes.graph, batch_outputs, self.model.examples, probe)

    def _size(self, batch_size: int | None) -> int:
        return self.recipe.batch_size if batch_size is None else batch_size

    @cached_property
    def _compiled_model(self) -> CompiledModel:
        return compile_model(self.model)

    @cached_property
    def _predictions(self) -> Session:
        return Session(self._compiled_model.content, self.providers, self.threads)

    @cached_property
    def _metrics(self) -> Session:
        return Session(self.step.content("evaluate"), self.providers, self.threads)


class Fed(Protocol):
    """A session or a runner, with its inputs."""

    @property
    def ports(self) -> Sequence[Port]: ...


def ports_of(model: Model, runs: Fed) -> list[Port]:
    """The inputs of a session or of a runner that are data of the model."""
    return [port for port in runs.ports if port.name in model.inputs]


def _state_inputs(session: Session, state: State) -> dict[str, Any]:
    """The part of the state that a session takes as inputs."""
    inputs = {port.name: state[port.name] for port in session.inputs if port.name in state}
    warn_of_unknown_ranges(inputs)
    return inputs
