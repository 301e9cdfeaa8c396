"""A gradient half that runs in stages, between which processes add up what their rows share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from nncompile.compiler.compile import CompiledStep
from nncompile.compiler.stages import Target
from nncompile.ir.types import Array
from nncompile.parallel.meeting import Meeting
from nncompile.program.shared_statistics import Stage
from nncompile.runtime.feeds import Port
from nncompile.runtime.session import Session


class StagedHalf:
    """The stages of a gradient half in onnxruntime, each started by `start`."""

    def __init__(
        self,
        processes: Meeting,
        compiled: CompiledStep,
        stages: Sequence[Stage],
        start: Callable[[bytes], Session],
    ) -> None:
        self._processes = processes
        self._stages = [
            (start(_content(compiled, f"gradient {i}", stage)), stage.sums)
            for i, stage in enumerate(stages)
        ]

    @property
    def inputs(self) -> list[Port]:
        """What it takes: state and data."""
        return _ports(port for session, _ in self._stages for port in session.inputs)

    @property
    def outputs(self) -> list[Port]:
        """What it gives."""
        return _ports(port for session, _ in self._stages for port in session.outputs)

    def run(self, feeds: Mapping[str, Any] | None) -> dict[str, Array]:
        """The outputs for these rows; where there are none, nothing, but the others get their
        sums."""
        known: dict[str, Array] = dict(feeds or {})
        for session, sums in self._stages:
            if feeds is not None:
                known |= session.run({port.name: known[port.name] for port in session.inputs})
            if sums:
                self._add_up(known, sums)
        return {} if feeds is None else known

    def _add_up(self, known: dict[str, Array], sums: Mapping[str, int]) -> None:
        parts = [known[n] if n in known else np.zeros(size) for n, size in sums.items()]
        whole = np.concatenate(parts)
        self._processes.meet()
        self._processes.group.allreduce(whole)
        ends = np.cumsum(list(sums.values()))[:-1]
        known |= dict(zip(sums, np.split(whole, ends), strict=True))


def _content(compiled: CompiledStep, name: str, stage: Stage) -> bytes:
    optimized = partial(compiled.optimized, name, stage.graph)
    return compiled.made(Target(name, stage.graph, optimized, kernels=compiled.kernels)).content


def _ports(ports: Iterable[Port]) -> list[Port]:
    """Those that are not only between stages."""
    between = ("shared.", "handed.")
    return list({port.name: port for port in ports if not port.name.startswith(between)}.values())
