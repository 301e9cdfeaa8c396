"""Repeated training steps of several processes that share the update, too: each holds the state of
the optimizer for its part of the parameters, and computes their next values (ZeRO, stage 1)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompile.compiler.compile import CompiledStep
from nncompile.compiler.stages import Target
from nncompile.diagnostics.errors import ModelError
from nncompile.ir.graph import Graph
from nncompile.ir.types import Array
from nncompile.parallel.collected import CollectedStepRunner
from nncompile.parallel.layout import Layout
from nncompile.parallel.meeting import Collecting
from nncompile.parallel.vectors import LINE, vector_of
from nncompile.program.update_sections import Section, sections
from nncompile.program.update_shares import Share, SharedUpdate
from nncompile.runtime.buffers import bits_of, buffer_at, view_of
from nncompile.runtime.feeds import Port
from nncompile.runtime.runner import State
from nncompile.runtime.session import Session


class ShardedStepRunner(CollectedStepRunner):
    """A runner of steps of which each process makes a part of the update, and all give each other
    the parameters."""

    def __init__(
        self, processes: Collecting, compiled: CompiledStep, state: Mapping[str, Any], *options: Any
    ) -> None:
        source = compiled.source
        if source.in_turn is not None:
            raise ModelError(
                f"{source.reductions.later[0]!r} sees what an earlier update of the same step "
                "changed: each process computes that update, and cannot have a part of it alone",
                hint="mpi() without shard_optimizer",
            )
        graph = source.following_of_sums if source.sums else source.following
        shared = SharedUpdate(source, graph)
        self._sections: tuple[Section, ...] = tuple(sections(shared.components, processes.size))
        self._share: Share = shared.share(processes.rank, self._sections)
        self._section_of = {n: s for s in self._sections for c in s.components for n in c.states}
        self._rows = {
            name: slice(first, last) if component.rows else slice(None)
            for section in self._sections
            for component, first, last in section.spans(processes.rank)
            for name in component.states
        }
        super().__init__(processes, compiled, state, *options)
        if self.session.device[0] != "cpu":
            raise ModelError(
                "the state of an optimizer is shared by processes on the CPU alone",
                hint="mpi() without shard_optimizer",
            )
        self._stages = [
            self._started_stage(compiled, i, g) for i, g in enumerate(self._share.stages)
        ]

    def _mine(self) -> dict[str, Array]:
        leaves = self._share.update.leaves
        return {n: self._part(n, x) for n, x in self._initial.items() if n in leaves}

    def _part(self, name: str, array: Array) -> Array:
        """The rows of a state that this process has."""
        return array[self._rows[name]] if name in self._rows else array

    def _update(self, compiled: CompiledStep) -> bytes:
        return _made(compiled, "part", self._share.update, is_step=True)

    def _started_stage(self, compiled: CompiledStep, number: int, graph: Graph) -> Session | None:
        if not graph.outputs:
            return None
        session: Session = self._new_session(_made(compiled, f"numbers {number}", graph))
        return session

    def _buffers(self, first: Mapping[str, Array]) -> tuple[State, State]:
        read_by_half = {port.name for port in self._half.inputs}
        self._kept = [n for n in self._section_of if n not in read_by_half]
        types = self._port_of
        lengths = {n: _bytes(types[n]) for n in self._section_of if n in read_by_half}
        self._params: tuple[dict[str, Array], dict[str, Array]] = ({}, {})
        self._vectors = []
        for section in self._sections:
            layout = Layout(section, lengths, LINE)
            if not layout.starts:
                continue
            pair = [vector_of(self._all.group, layout.count, np.uint8) for _ in range(2)]
            self._vectors.append((pair, layout.bounds))
            for params, vector in zip(self._params, pair, strict=True):
                for name, start in layout.starts.items():
                    flat = vector.array[start : start + lengths[name]].view(types[name].dtype)
                    params[name] = flat.reshape(self._initial[name].shape)
        for name, array in self._params[0].items():
            array[...] = self._initial[name]
        self._shared = self._shared - self._params[0].keys()
        rest = {n: x for n, x in first.items() if n not in lengths}
        read, other = super()._buffers(rest)
        for name in first.keys() & lengths.keys():
            read[name], other[name] = (buffer_at(self._part(name, x[name])) for x in self._params)
        return read, other

    @property
    def _states_of_half(self) -> tuple[State, State]:
        first, second = (
            {n: x for n, x in buffers.items() if n not in self._section_of}
            | {n: buffer_at(x) for n, x in params.items()}
            for buffers, params in zip(self._sets, self._params, strict=True)
        )
        return first, second

    def step(self, batch: Mapping[str, Any]) -> None:
        """One step of all processes on `batch`, which each of them has."""
        super().step(batch)
        side = self._at.current
        for pair, bounds in self._vectors:
            if self._closes:
                pair[side].gather(bounds)
            else:  # the parameters are what they were
                np.copyto(pair[side].array, pair[1 - side].array)

    def _reduced(self, part: int, given: Mapping[str, Array] | None) -> dict[str, Array]:
        """What was reduced, with the numbers that the processes compute of it together."""
        whole = super()._reduced(part, given)
        for session, names in zip(self._stages, self._share.shared, strict=True):
            numbers = dict.fromkeys(names, 0.0)
            if session is not None and self._closes:
                state = {n: view_of(x) for n, x in self._sets[self._at.current].items()}
                known = {**state, **whole}
                found = session.run({port.name: known[port.name] for port in session.inputs})
                numbers |= {n: float(x) for n, x in found.items()}
            vector = np.array([numbers[n] for n in names])
            if self._closes:
                self._all.group.allreduce(vector)
            for name, number in zip(names, vector, strict=True):
                type_ = self._share.types[name]
                whole[name] = np.full(type_.shape, number).astype(type_.dtype.numpy)
        return whole

    def _gathered(self, name: str, side: int) -> Array:
        if name not in self._section_of:
            return super()._gathered(name, side)
        port = self._port_of[name]
        count = _bytes(port)
        bounds = Layout(self._section_of[name], {name: count}, 1).bounds
        content = np.empty(count, np.uint8)
        if name in self._rows:
            rows = np.ascontiguousarray(view_of(self._sets[side][name]))
            first, last = bounds[self._all.rank], bounds[self._all.rank + 1]
            content[first:last] = rows.reshape(-1).view(np.uint8)
        self._all.group.gather_parts(content, bounds)
        return content.view(port.dtype).reshape([int(n) for n in port.shape if n is not None])

    def _here(self, name: str, side: int) -> Array:
        if name not in self._params[side]:
            return super()._here(name, side)
        view = self._params[side][name].view()
        view.flags.writeable = False
        return view

    def _take(self, side: int, name: str, array: Array) -> None:
        if name in self._params[side]:
            self._params[side][name][...] = array
        elif name in self._sets[side]:
            self._sets[side][name].update_inplace(bits_of(self._part(name, array)))


def _made(compiled: CompiledStep, name: str, graph: Graph, is_step: bool = False) -> bytes:
    source = compiled.source
    depends = [source.digest, source.state_map, dict(source.model.metadata)]

    def optimized() -> Graph:
        return compiled.optimized(name, graph)

    metadata = compiled.metadata if is_step else None
    target = Target(name, graph, optimized, depends, metadata, kernels=compiled.kernels)
    return compiled.made(target).content


def _bytes(port: Port) -> int:
    return int(np.prod([n for n in port.shape if isinstance(n, int)])) * port.dtype.itemsize
