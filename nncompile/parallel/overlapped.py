"""A gradient half that runs in stages, each of whose gradients are reduced while the next one is
computed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial

from nncompile.compiler.compile import CompiledStep
from nncompile.compiler.stages import Target
from nncompile.ir.types import Array
from nncompile.parallel.bound import BoundHalf, State
from nncompile.program.gradient_stages import HANDED, gradient_stages
from nncompile.runtime.feeds import Port
from nncompile.runtime.session import Session


class OverlappedHalf:
    """The stages of a gradient half in onnxruntime, each started by `start`, that give the
    gradients of `buckets`."""

    def __init__(
        self,
        compiled: CompiledStep,
        buckets: Sequence[Sequence[str]],
        start: Callable[[bytes], Session],
    ) -> None:
        graphs = gradient_stages(compiled.source, buckets)
        self._sessions = []
        for i, graph in enumerate(graphs):
            name = f"gradient {i}"
            optimized = partial(compiled.optimized, name, graph)
            target = Target(name, graph, optimized, kernels=compiled.kernels)
            self._sessions.append(start(compiled.made(target).content))
        self._bound: list[BoundHalf] = []

    @property
    def inputs(self) -> list[Port]:
        """What it takes: state and data."""
        return _ports(port for session in self._sessions for port in session.inputs)

    @property
    def outputs(self) -> list[Port]:
        """What it gives."""
        return _ports(port for session in self._sessions for port in session.outputs)

    def bind(self, states: Sequence[State], direct: Mapping[str, Array]) -> None:
        """Reads these states, and writes outputs where they are reduced."""
        self._bound = [BoundHalf(session, states, direct) for session in self._sessions]

    def run(
        self,
        side: int,
        shard: Mapping[str, Array] | None,
        made: Callable[[int, Mapping[str, Array]], None],
    ) -> dict[str, Array]:
        """The outputs for these rows, of the state of that number; nothing where there are none.
        After each stage `made` is called with its number and all that is known."""
        known: dict[str, Array] = {}
        for number, (session, bound) in enumerate(zip(self._sessions, self._bound, strict=True)):
            if shard is not None:
                given = {**shard, **known}
                names = [port.name for port in session.inputs]
                known |= bound.run(side, {n: given[n] for n in names if n in given})
            made(number, known)
        return known


def _ports(ports: Iterable[Port]) -> list[Port]:
    """Those that are not only between stages."""
    return list({p.name: p for p in ports if not p.name.startswith(HANDED)}.values())
