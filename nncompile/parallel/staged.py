"""A gradient half that runs in stages, between which processes put together what they have."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from nncompile.compiler.compile import CompiledStep
from nncompile.compiler.stages import Target
from nncompile.ir.graph import Graph
from nncompile.ir.types import Array
from nncompile.parallel.meeting import Meeting
from nncompile.program.stages import Stage
from nncompile.runtime.feeds import Port
from nncompile.runtime.session import Session

Reduce = Callable[[int, Mapping[str, Array] | None], Mapping[str, Array]]
"""Gives what the tensors of a part are of all processes; this one has these, or no rows."""


class StagedHalf:
    """The stages of a gradient half in onnxruntime, each started by `start`."""

    def __init__(
        self,
        processes: Meeting,
        compiled: CompiledStep,
        stages: Sequence[Stage],
        start: Callable[[bytes], Session],
    ) -> None:
        self._processes, self._stages = processes, stages
        graphs = [stage.graph for stage in stages]
        self._sessions = [start(content) for content in contents(compiled, graphs)]

    @property
    def inputs(self) -> list[Port]:
        """What it takes: state and data."""
        return inputs_of(self._sessions)

    @property
    def parts(self) -> list[list[Port]]:
        """What it gives: of each part, which is reduced before the stages of the next one."""
        taken = {port.name for session in self._sessions for port in session.inputs}
        results = {n for stage in self._stages for n in stage.reduced}
        found: list[list[Port]] = [[]]
        for stage, session in zip(self._stages, self._sessions, strict=True):
            found[-1] += [p for p in session.outputs if p.name in results or p.name not in taken]
            if stage.reduced:
                found.append([])
        return found

    def run(self, feeds: Mapping[str, Any] | None, reduce: Reduce) -> dict[str, Array]:
        """The outputs for these rows; where there are none, nothing, but the others get their
        sums. What a part is reduced to before the next one, `reduce` gives."""
        known: dict[str, Array] = dict(feeds or {})
        whole: dict[str, Array] = {}
        part = 0
        for session, stage in zip(self._sessions, self._stages, strict=True):
            if feeds is not None:
                given = {**known, **whole}
                known |= session.run({port.name: given[port.name] for port in session.inputs})
            if stage.sums:
                self._add_up(known, stage.sums)
            if stage.reduced:
                reduced = reduce(part, None if feeds is None else known)
                whole |= {name: reduced[name] for name in stage.reduced}
                part += 1
        return {} if feeds is None else known

    def _add_up(self, known: dict[str, Array], sums: Mapping[str, int]) -> None:
        parts = [known[n] if n in known else np.zeros(size) for n, size in sums.items()]
        whole = np.concatenate(parts)
        self._processes.meet()
        self._processes.group.allreduce(whole)
        ends = np.cumsum(list(sums.values()))[:-1]
        known |= dict(zip(sums, np.split(whole, ends), strict=True))


def contents(compiled: CompiledStep, graphs: Sequence[Graph]) -> list[bytes]:
    """The files of the stages of a gradient half."""
    found = []
    for i, graph in enumerate(graphs):
        name = f"gradient {i}"
        optimized = partial(compiled.optimized, name, graph)
        target = Target(name, graph, optimized, kernels=compiled.kernels)
        found.append(compiled.made(target).content)
    return found


def inputs_of(sessions: Iterable[Session]) -> list[Port]:
    """What stages take that no earlier one gives."""
    found: dict[str, Port] = {}
    given: set[str] = set()
    for session in sessions:
        found |= {p.name: p for p in session.inputs if p.name not in given | found.keys()}
        given |= {port.name for port in session.outputs}
    return list(found.values())
