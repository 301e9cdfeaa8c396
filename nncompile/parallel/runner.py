"""Repeated training steps of several processes, each of which computes its rows of every batch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.op import described
from nncompile.ir.types import Array
from nncompile.parallel.bound import BoundHalf
from nncompile.parallel.meeting import Meeting
from nncompile.parallel.overlapped import OverlappedHalf
from nncompile.parallel.reducing import Reducing
from nncompile.parallel.staged import StagedHalf
from nncompile.program.first_row import FIRST_ROW, unnumbered
from nncompile.program.gradient_stages import buckets_of
from nncompile.program.half_stages import stages_of
from nncompile.program.shared_statistics import shares_statistics
from nncompile.program.stages import Stage
from nncompile.program.step import Step
from nncompile.program.update_sections import Section
from nncompile.runtime.feeds import Port, check_feeds
from nncompile.runtime.providers import Provider
from nncompile.runtime.runner import State, StepRunner
from nncompile.runtime.session import Session
from nncompile.runtime.step_session import step_session
from nncompile.train.sums import Sums


def share(count: int, rank: int, size: int) -> tuple[int, int]:
    """The first row and the one after the last of those that a process computes of so many."""
    return count * rank // size, count * (rank + 1) // size


class ReducedStepRunner(StepRunner):
    """A runner of steps whose gradients are those of all processes. It is given whole batches, the
    same in each process, and computes its share of the rows. Raises `ModelError` for a step that no
    reduction makes right, and what `StepRunner` does."""

    _takes_examples = False  # but gradients, which parameters of no elements have, too
    _takes_turns = True  # with that of the gradients
    _sections: tuple[Section, ...] = ()  # what a process owns a part of alone

    def __init__(
        self,
        processes: Meeting,
        compiled: CompiledStep,
        state: Mapping[str, Any],
        providers: Provider | Sequence[Provider] = "cpu",
        threads: int | None = None,
        after: StepRunner | None = None,
        native: bool | None = None,
        in_place: bool = False,
    ) -> None:
        source = compiled.source
        _check_reducible(source)
        self._processes, self._source = processes, source
        about: dict[str, Any] = {"threads": threads, "native": native, "takes_turns": True}

        def start(model: bytes) -> Session:
            return step_session(model, providers, **about)

        self._new_session = start
        stages, half = self._stages_of(source), None
        self._half: Session | StagedHalf | OverlappedHalf
        self._early = self._buckets(source, stages)
        if stages:
            self._half = StagedHalf(processes, compiled, stages, start)
        elif self._early:
            self._half = OverlappedHalf(compiled, self._early, start)
        else:
            self._half = half = start(compiled.content("gradient"))
        self._reducing = self._reducers(source, shares_statistics(source))
        options: dict[str, Any] = {"after": after, "native": native, "in_place": in_place}
        super().__init__(self._update(compiled), state, providers, threads, **options)
        self._bound = None if half is None else BoundHalf(half, self._states_of_half, self._direct)
        if isinstance(self._half, OverlappedHalf):
            self._half.bind(self._states_of_half, self._direct)
        self._whole: dict[str, Array] = {}

    def _stages_of(self, source: Step) -> list[Stage]:
        """The stages of the gradient half, if it has any."""
        return stages_of(source)

    @property
    def _parts(self) -> list[list[Port]]:
        """The outputs of the half, of each part that is reduced before the next one is computed;
        with what they weigh, which may be of an earlier part."""
        half, rules = self._half, self._source.reductions.by_name
        parts = half.parts if isinstance(half, StagedHalf) else [half.outputs]
        every = {port.name: port for part in parts for port in part}
        own = [dict.fromkeys(port.name for port in part) for part in parts]
        weights = [[rules[n].weight for n in names if n in rules] for names in own]
        return [
            [every[n] for n in names | dict.fromkeys(filter(None, weighing))]
            for names, weighing in zip(own, weights, strict=True)
        ]

    def _reducers(self, source: Step, are_weighted: bool) -> list[Reducing]:
        """What reduces each part of the outputs of the half, whose gradients may be given times
        their weight; and where they are to be computed."""
        rules, first = source.reductions.by_name, source.reductions.gradients
        about = first, first if are_weighted else (), self._sections, self._early
        found = [Reducing(self._processes.group, rules, part, *about) for part in self._parts]
        self._places: list[Mapping[str, Array]] = [reducing.direct for reducing in found]
        return found

    @property
    def _direct(self) -> Mapping[str, Array]:
        """Where outputs of a half of one part are computed."""
        return self._places[0]

    def _buckets(self, source: Step, stages: Sequence[object]) -> Sequence[Sequence[str]]:
        """The gradients that are reduced while others are computed, in buckets."""
        most = self._processes.overlap
        if most is None or stages or self._sections:
            return ()
        buckets = buckets_of(source, most)
        return buckets if len(buckets) > 1 else ()

    def _update(self, compiled: CompiledStep) -> bytes:
        """The file of what this process computes of what was reduced."""
        return compiled.content("following")

    @property
    def _states_of_half(self) -> Sequence[State]:
        """The states that the gradient half is computed at."""
        return self._sets

    def _reduced(self, part: int, given: Mapping[str, Array] | None) -> dict[str, Array]:
        """What a part is of all processes, of the outputs of the half that are not computed in
        place."""
        return self._reducing[part].reduced(given, self._old)

    def _reduce(self, part: int, known: Mapping[str, Array] | None) -> dict[str, Array]:
        """What the next part takes of this one, of all that was computed for it."""
        self._place(part, known)
        self._processes.meet()
        self._whole |= self._reduced(part, known)
        return self._whole

    def _place(self, part: int, known: Mapping[str, Array] | None) -> None:
        """Copies what stages gave to where it is reduced."""
        for name, view in self._places[part].items():
            if known is not None:
                view[...] = known[name]

    @property
    def ports(self) -> list[Port]:
        """The inputs that are no state: of the whole batch, and also those that no gradient and no
        metric needs, as a step of one process has them."""
        inputs = self._source.recipe.trained_model.inputs.items()
        every = {n: Port(n, v.dtype.numpy, tuple(map(_size, v.shape))) for n, v in inputs}
        return list((every | {port.name: port for port in self._data_of_half}).values())

    @property
    def _data_of_half(self) -> list[Port]:
        return [
            p for p in self._half.inputs if p.name not in self._source.state and p.name != FIRST_ROW
        ]

    def step(self, batch: Mapping[str, Any]) -> None:
        """One step of all processes on `batch`, which each of them has."""
        cut = {*self._source.recipe.trained_model.cut}
        count = self._count(batch)
        span = self._span(count) if cut else (0, 1)
        self._whole = {}
        # Gradients of a loss that is scaled may be infinite, and are taken back then.
        with np.errstate(over="ignore", invalid="ignore"):
            given = self._given(batch, cut, *span)
            losses = self._losses(given)
            self._processes.meet()
            self._whole |= self._reduced(len(self._reducing) - 1, given)
        self._locate(losses, span)
        names = {f"{path}.next": f"{path}.reduced" for path in self._source.state}
        whole = {names.get(name, name): x for name, x in self._whole.items()}
        super().step({p.name: whole[p.name] for p in self._batch_ports})
        if self._needs_parts:
            self._whole |= self._composed(batch, count)

    def _count(self, batch: Mapping[str, Any]) -> int:
        """The rows of a batch."""
        cut = self._source.recipe.trained_model.cut
        return next((len(batch[n]) for n in cut if n in batch), 1)

    def _span(self, count: int) -> tuple[int, int]:
        """The rows that this process computes of so many."""
        return share(count, self._processes.rank, self._processes.size)

    def metrics(self) -> dict[str, Array]:
        """The metrics of the last step on the whole batch, and what they are computed of."""
        names = {*self._source.model.metrics, *self._source.accumulation.parts}
        return {name: np.array(x) for name, x in self._whole.items() if name in names}

    @property
    def _needs_parts(self) -> bool:
        return not self._source.model.metrics.keys() <= self._source.reductions.by_name.keys()

    def _composed(self, batch: Mapping[str, Any], count: int) -> dict[str, Any]:
        """The metrics that are computed of several parts."""
        sums = Sums(self._source.accumulation, self._source.model.inputs)
        sums.add(batch, self._whole, count)
        results = sums.results()
        return {n: results[n] for n in self._source.model.metrics if n not in self._whole}

    def _old(self, name: str) -> Array:
        """The state that a change is added to."""
        path = name.removesuffix(".next").removesuffix(".assigned")
        return self.look([path])[path]

    def _given(
        self, batch: Mapping[str, Any], cut: set[str], first: int, last: int
    ) -> dict[str, Array] | None:
        """The outputs of the gradient half that are not computed in place; None without rows."""
        rows = {n: x[first:last] if n in cut else x for n, x in batch.items()}
        needed = self._data_of_half
        shard = check_feeds(needed, {port.name: rows[port.name] for port in needed})
        if any(port.name == FIRST_ROW for port in self._half.inputs):
            shard[FIRST_ROW] = np.array(first, np.int64)
        if isinstance(self._half, StagedHalf):
            feeds = {**self._views_of_half(), **shard} if last > first else None
            found = self._half.run(feeds, self._reduce) or None
            self._place(len(self._places) - 1, found)
            return found
        if isinstance(self._half, OverlappedHalf):
            given = shard if last > first else None
            return self._half.run(self._at.current, given, self._begin(given)) or None
        assert self._bound is not None
        return self._bound.run(self._at.current, shard) if last > first else None

    def _begin(self, shard: object) -> Callable[[int, Mapping[str, Array]], None]:
        def made(number: int, known: Mapping[str, Array]) -> None:
            self._processes.meet()  # so that no process waits for one that failed
            self._reducing[0].begin(number, None if shard is None else known)

        return made

    def _views_of_half(self) -> dict[str, Array]:
        names = {port.name for port in self._half.inputs}
        return self.views(n for n in self._source.state if n in names)

    def _losses(self, given: Mapping[str, Array] | None) -> bool:
        """Whether the losses of this process are finite."""
        if given is None:
            return True
        every = {**self._direct, **given}
        return all(np.isfinite(every[n]).all() for n in self._source.recipe.losses if n in every)

    def _locate(self, is_finite: bool, span: tuple[int, int]) -> None:
        """Says of which process's rows a loss is not finite."""
        self.trouble = ()
        losses = [self._whole[n] for n in self._source.recipe.losses if n in self._whole]
        if all(np.isfinite(x).all() for x in losses):
            return
        mine = np.array([is_finite, *span], np.int64)
        every = self._processes.group.allgather(mine).reshape(-1, 3)
        self.trouble = tuple(
            (f"process {rank}", f"rows {first} to {last - 1} of the batch")
            for rank, (finite, first, last) in enumerate(every.tolist())
            if not finite
        )


def _size(size: Any) -> int | str:
    return size if isinstance(size, int) else str(size)


def _check_reducible(step: Step) -> None:
    for name, reason in step.reductions.irreducible.items():
        raise ModelError(
            f"several processes cannot train {step.recipe.model.name}: of {name!r}, {reason}",
            hint="one process trains it",
        )
    for v in unnumbered(step.gradient, step.recipe.trained_model.examples):
        raise ModelError(
            f"several processes cannot draw the random numbers of {v.type}: the examples are not "
            "its first axis",
            rows=[("drawn", *described(v))],
            hint="move the axis of the examples to the front before it: moveaxis(x, 1, 0)",
            location=step.model.graph.locations.location(v),
        )
