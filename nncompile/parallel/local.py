"""Repeated training steps that each process makes with its own rows alone, and whose states are
averaged from time to time: local SGD, and federated averaging."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.types import Array
from nncompile.parallel.group import Group, Operation
from nncompile.parallel.meeting import Telling
from nncompile.parallel.runner import ReducedStepRunner, share
from nncompile.parallel.vectors import vector_of
from nncompile.program.shared_statistics import shares_statistics
from nncompile.train.sums import Sums


class LocalStepRunner(ReducedStepRunner):
    """A runner of steps with the gradients of this process's rows. After every so many steps of the
    training, and at the end of an epoch, each number of the state that is no integer becomes the
    mean of those of all processes, weighted by the rows that they computed since: parameters,
    running statistics and what optimizers keep. (Stich 2019, "Local SGD converges fast and
    communicates little"; McMahan et al. 2017. Of momentum the mean is taken as in Yu et al. 2019,
    "On the linear speedup analysis of communication efficient momentum SGD"; torch keeps it apart.)

    Of fewer rows than there are processes, some take a row that another one has, too. Raises
    `ModelError` for `BatchNorm(sync=True)`, whose statistics are those of all at each step."""

    def __init__(
        self, processes: Telling, every: int, compiled: CompiledStep, *options: Any
    ) -> None:
        if shares_statistics(compiled.source):
            raise ModelError(
                "BatchNorm(sync=True) takes the statistics of all processes at each step, which "
                f"meet after every {every}",
                hint="BatchNorm(): its running statistics are averaged with the parameters",
            )
        super().__init__(_Alone(processes), compiled, *options)
        self._together, self._every = processes, every
        self._rows = 0  # since the last averaging
        types = {port.name: port.dtype for port in self._state_ports}
        doubles = [n for n, kind in types.items() if kind == np.float64]
        singles = [n for n, kind in types.items() if kind.kind not in "iub" and n not in doubles]
        self._whole_numbers = [n for n, kind in types.items() if kind.kind in "iub"]
        sizes = {name: x.size for name, x in self.views().items()}
        self._vectors = [
            (names, vector_of(processes.group, count, dtype, [count]))
            for names, dtype in ((singles, np.float32), (doubles, np.float64))
            if (count := sum(sizes[n] for n in names))
        ]

    def _span(self, count: int) -> tuple[int, int]:
        rank, size = self._processes.rank, self._processes.size
        if count >= size:
            return share(count, rank, size)
        return rank % count, rank % count + 1

    def step(self, batch: Mapping[str, Any]) -> None:
        """A step of this process on its rows of `batch`; with the others, an averaging where it is
        time."""
        super().step(batch)
        first, last = self._span(self._count(batch))
        self._rows += last - first
        losses = [self._whole[n] for n in self._source.recipe.losses if n in self._whole]
        # One that is not finite ends the training, and is not for the others.
        is_due = int(self.look(["step"])["step"]) % self._every == 0
        if is_due and all(np.isfinite(x).all() for x in losses):
            self._average()

    def computed(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """Those of this process."""
        cut = self._source.recipe.trained_model.cut
        first, last = self._span(self._count(batch))
        return {n: x[first:last] if n in cut else x for n, x in batch.items()}

    def concluded(self, sums: Sums) -> Sums:
        """The sums of an epoch over the rows of all processes, whose states are averaged. Of an
        epoch that was begun by other runners, those of the first."""
        if self._rows:
            self._average()
        is_whole = sums.added.batches <= self.steps
        every = self._together.said([is_whole, sums.stored()])
        whole = all(is_whole for is_whole, _ in every)
        joined = sums.joined([stored for _, stored in (every if whole else every[:1])])
        joined.added = joined.added._replace(batches=sums.added.batches)
        return joined

    def _average(self) -> None:
        self._together.meet()
        rows = np.array([self._rows], np.int64)
        self._together.group.allreduce(rows)
        factor, self._rows = self._rows / int(rows[0]), 0
        averaged: dict[str, Array] = {}
        state = self.views()
        for names, vector in self._vectors:
            ends = np.cumsum([state[n].size for n in names])[:-1]
            parts = np.split(vector.array, ends)
            for name, part in zip(names, parts, strict=True):
                part[...] = state[name].reshape(-1)
            vector.sum([factor])
            for name, part in zip(names, parts, strict=True):
                old = state[name]
                averaged[name] = part.reshape(old.shape).astype(old.dtype)
        averaged |= self._of_first({name: state[name] for name in self._whole_numbers})
        self._fill(self._at.current, averaged)

    def _of_first(self, arrays: Mapping[str, Array]) -> dict[str, Array]:
        """Those of the first process: integers that follow a batch differ."""
        content = b"".join(np.ascontiguousarray(x).tobytes() for x in arrays.values())
        whole = np.frombuffer(content, np.uint8).copy()
        self._together.group.broadcast(whole)
        ends = np.cumsum([x.nbytes for x in arrays.values()])[:-1]
        parts = np.split(whole, ends) if arrays else []
        return {
            name: np.frombuffer(part.tobytes(), x.dtype).reshape(x.shape)
            for (name, x), part in zip(arrays.items(), parts, strict=True)
        }

    def _locate(self, is_finite: bool, span: tuple[int, int]) -> None:
        self.trouble = ()
        if not is_finite:
            first, last = span
            about = f"rows {first} to {last - 1} of the batch"
            self.trouble = ((f"process {self._processes.rank}", about),)


class _Alone:
    """Processes between two averagings: each reduces what it has with nobody."""

    overlap = None

    def __init__(self, processes: Telling) -> None:
        self.rank, self.size = processes.rank, processes.size
        self.group: Group = _OneGroup()

    def meet(self) -> None:
        """Nobody is met."""


class _OneGroup:
    """A group of one process."""

    rank, size = 0, 1

    def allreduce(self, *arrays: Array, operation: Operation = "sum") -> None:
        """They are the sum."""

    def begin_sum(self, array: Array) -> Callable[[], None]:
        """It is the sum."""
        return self.barrier

    def reduce_scatter(self, array: Array, bounds: Sequence[int]) -> None:
        """It is the sum."""

    def gather_parts(self, array: Array, bounds: Sequence[int]) -> None:
        """It has all parts."""

    def allgather(self, array: Array) -> Array:
        """One after nothing."""
        return array

    def broadcast(self, array: Array) -> None:
        """It is the first's."""

    def barrier(self) -> None:
        """All have come."""

    def agree(self, text: str) -> Sequence[str]:
        """What one says."""
        return [text]

    def apart(self) -> _OneGroup:
        """The same."""
        return self

    def abort(self, code: int) -> None:
        """The processes do it."""

    def survivors(self) -> tuple[_OneGroup, Sequence[int]]:
        """The same."""
        return self, ()
