"""Repeated training steps of several processes that share the update, too: each holds the state of
the optimizer for its part of the parameters, and computes their next values (ZeRO, stage 1)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from nncompile.compiler.compile import CompiledStep
from nncompile.compiler.stages import Target
from nncompile.diagnostics.errors import ModelError, ProcessError
from nncompile.ir.graph import Graph
from nncompile.ir.types import Array
from nncompile.parallel.layout import Layout
from nncompile.parallel.meeting import Collecting
from nncompile.parallel.runner import ReducedStepRunner
from nncompile.parallel.vectors import LINE, vector_of
from nncompile.program.update_sections import Section, sections
from nncompile.program.update_shares import Share, SharedUpdate
from nncompile.runtime.buffers import bits_of, buffer_at, view_of
from nncompile.runtime.feeds import Port, check_feeds
from nncompile.runtime.runner import State, StepRunner
from nncompile.runtime.session import Session


class ShardedStepRunner(ReducedStepRunner):
    """A runner of steps of which each process makes a part of the update, and all give each other
    the parameters. What it says of the state is the whole; it asks the other processes for what
    they hold, wherever they meet next."""

    def __init__(
        self, processes: Collecting, compiled: CompiledStep, state: Mapping[str, Any], *options: Any
    ) -> None:
        source = compiled.source
        shared = SharedUpdate(source)
        self._all = processes
        self._sections: tuple[Section, ...] = tuple(sections(shared.components, processes.size))
        self._share: Share = shared.share(processes.rank, self._sections)
        self._section_of = {n: s for s in self._sections for c in s.components for n in c.states}
        self._rows = {
            name: slice(first, last) if component.rows else slice(None)
            for section in self._sections
            for component, first, last in section.spans(processes.rank)
            for name in component.states
        }
        types = source.state.items()
        self._ports_of_state = [Port(n, t.dtype.numpy, tuple(map(int, t.shape))) for n, t in types]
        self._port_of = {port.name: port for port in self._ports_of_state}
        self._initial = check_feeds(self._ports_of_state, state)
        self._held: dict[int, dict[str, Array]] = {}  # by side, what the others have of the state
        leaves = self._share.update.leaves
        mine = {n: self._part(n, x) for n, x in self._initial.items() if n in leaves}
        super().__init__(processes, compiled, mine, *options)
        if self.session.device[0] != "cpu":
            raise ModelError(
                "the state of an optimizer is shared by processes on the CPU alone",
                hint="mpi() without shard_optimizer",
            )
        self._held[self._at.current] = {n: self._initial[n].copy() for n in self._kept}
        self._stages = [
            self._started_stage(compiled, i, g) for i, g in enumerate(self._share.stages)
        ]
        del self._initial
        processes.enter(self, options[2] if len(options) > 2 else None)

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
        self._state_ports = self._ports_of_state
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
        self._all.use(self)
        super().step(batch)
        side = self._at.current
        for pair, bounds in self._vectors:
            pair[side].gather(bounds)

    def _completed(self, whole: dict[str, Array]) -> dict[str, Array]:
        """What was reduced, with the numbers that the processes compute of it together."""
        self._held.pop(1 - self._at.current, None)
        for session, names in zip(self._stages, self._share.shared, strict=True):
            numbers = dict.fromkeys(names, 0.0)
            if session is not None:
                state = {n: view_of(x) for n, x in self._sets[self._at.current].items()}
                known = {**state, **whole}
                found = session.run({port.name: known[port.name] for port in session.inputs})
                numbers |= {n: float(x) for n, x in found.items()}
            vector = np.array([numbers[n] for n in names])
            self._all.group.allreduce(vector)
            for name, number in zip(names, vector, strict=True):
                type_ = self._share.types[name]
                whole[name] = np.full(type_.shape, number).astype(type_.dtype.numpy)
        return whole

    def state(self) -> dict[str, Array]:
        """A copy of the whole state after the last step."""
        return {n: np.array(x) for n, x in self._viewed(self._names, self._at.current).items()}

    def look(self, names: Iterable[str]) -> dict[str, Array]:
        """Copies of those parts of the state after the last step."""
        return {n: np.array(x) for n, x in self._viewed(names, self._at.current).items()}

    def views(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """The state after the last step, or those parts of it, to be read before the next one."""
        return self._viewed(self._names if names is None else names, self._at.current)

    def before(self) -> dict[str, Array]:
        """A copy of the state before the last step, undone or not."""
        side = self._at.read if self._at.read >= 0 else self._at.current
        return {n: np.array(x) for n, x in self._viewed(self._names, side).items()}

    def hold(self) -> None:
        """Keeps what the others have of the state until the next step, so that it can be asked for
        by one process alone. All processes call it together."""
        step, is_held = self._at.steps, self._at.current in self._held
        found = np.array([not is_held, -step], np.int64)
        self._all.group.allreduce(found, operation="max")
        step = -int(found[1])  # one may have undone its last step
        if found[0] and self._all_have(step):
            side = self._side_of(step)
            assert side is not None
            self._held[side] = {name: self._gathered(name, side) for name in self._kept}

    def collected(self, names: Iterable[str], step: int) -> dict[str, Array]:
        """Those tensors after that step, of which each process has its rows; all processes call it
        together. Raises `ProcessError` where one does not have that state any more."""
        if not self._all_have(step):
            raise ProcessError(f"the processes do not all have the state after step {step}")
        side = self._side_of(step)
        assert side is not None
        return {name: self._gathered(name, side) for name in names}

    def _all_have(self, step: int) -> bool:
        missing = np.array([self._side_of(step) is None], np.int64)
        self._all.group.allreduce(missing)
        return not missing[0]

    def _side_of(self, step: int) -> int | None:
        at = self._at
        if step == at.steps:
            return at.current
        is_before = step == at.steps - 1 and at.read not in (-1, at.current)
        return at.read if is_before else None

    def _gathered(self, name: str, side: int) -> Array:
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

    @property
    def _names(self) -> list[str]:
        return [*self._port_of]

    def _viewed(self, names: Iterable[str], side: int) -> dict[str, Array]:
        names = list(names)
        kept = set(self._kept)
        asked = [n for n in names if n in kept]
        others = (self._held.get(side) or self._asked(asked, side)) if asked else {}
        return {n: others[n] if n in kept else self._here(n, side) for n in names}

    def _here(self, name: str, side: int) -> Array:
        """What every process has."""
        if name not in self._params[side]:
            return view_of(self._sets[side][name])
        view = self._params[side][name].view()
        view.flags.writeable = False
        return view

    def _asked(self, names: list[str], side: int) -> dict[str, Array]:
        step = self._at.steps - (side != self._at.current)
        return self._all.collect(self, names, step)

    def _fill(self, side: int, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            if name in self._params[side]:
                self._params[side][name][...] = array
            elif name in self._sets[side]:
                self._sets[side][name].update_inplace(bits_of(self._part(name, array)))
        kept = {n: np.array(arrays[n]) for n in self._kept if n in arrays}
        if len(kept) == len(self._kept) or side in self._held:
            self._held[side] = self._held.get(side, {}) | kept

    def _following(self, other: StepRunner, state: Mapping[str, Array]) -> Any:
        return super()._following(other, self._initial)


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
