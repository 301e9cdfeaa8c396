"""A gradient half that runs in stages, each of whose gradients are reduced while the next one is
computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from nncompile.compiler.compile import CompiledStep
from nncompile.ir.types import Array
from nncompile.parallel.bound import BoundHalf, State
from nncompile.parallel.staged import contents, inputs_of
from nncompile.program.gradient_stages import gradient_stages
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
        self._sessions = [start(content) for content in contents(compiled, graphs)]
        self._bound: list[BoundHalf] = []

    @property
    def inputs(self) -> list[Port]:
        """What it takes: state and data."""
        return inputs_of(self._sessions)

    @property
    def outputs(self) -> list[Port]:
        """What it gives."""
        taken = {port.name for session in self._sessions for port in session.inputs}
        outputs = (port for session in self._sessions for port in session.outputs)
        return [port for port in outputs if port.name not in taken]

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
