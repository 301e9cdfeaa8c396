"""Repeated training steps of several processes each of which has a part of the state."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import ProcessError
from nncompile.ir.types import Array
from nncompile.parallel.meeting import Collecting
from nncompile.parallel.reducing import Reducing
from nncompile.parallel.runner import ReducedStepRunner
from nncompile.parallel.window_sums import WindowSums
from nncompile.program.half_stages import stages_of
from nncompile.program.reductions import SUM
from nncompile.program.stages import Stage
from nncompile.program.step import INFINITE, Step
from nncompile.runtime.buffers import view_of
from nncompile.runtime.feeds import Port, check_feeds
from nncompile.runtime.runner import State, StepRunner


class CollectedStepRunner(ReducedStepRunner):
    """A runner of steps of whose state no process has all. What it says of the state is the whole:
    it asks the other processes for what they have, wherever they meet next.

    Of a recipe that accumulates, each process adds up its own gradients, and all add up these sums
    once, with the last batch of a window: the sums are what it has for itself."""

    _windows: Sequence[WindowSums] = ()  # of each part of the half
    _kept: Sequence[str] = ()  # of the state, what others have a part of at any time

    def __init__(
        self, processes: Collecting, compiled: CompiledStep, state: Mapping[str, Any], *options: Any
    ) -> None:
        source = compiled.source
        self._all = processes
        self._slots = {name: slot for name, (slot, _) in source.sums.items()}
        self._sums_of_state = dict.fromkeys(self._slots.values())
        types = source.state.items()
        self._ports_of_state = [Port(n, t.dtype.numpy, tuple(map(int, t.shape))) for n, t in types]
        self._port_of = {port.name: port for port in self._ports_of_state}
        self._initial = check_feeds(self._ports_of_state, state)
        self._held: dict[int, dict[str, Array]] = {}  # by side, what the others have of the state
        self._closes = True  # whether a step updates
        super().__init__(processes, compiled, self._mine(), *options)
        side = self._at.current
        self._put({n: self._initial[n] for n in self._sums_of_state}, side)
        self._held[side] = {n: self._initial[n].copy() for n in self._spread(side)}
        del self._initial
        processes.enter(self, options[2] if len(options) > 2 else None)

    def _mine(self) -> dict[str, Array]:
        """What this process's update has of the first state."""
        return {n: x for n, x in self._initial.items() if n not in self._sums_of_state}

    def _update(self, compiled: CompiledStep) -> bytes:
        return compiled.content("following_of_sums" if self._slots else "following")

    def _reducers(self, source: Step, are_weighted: bool) -> list[Reducing]:
        if not self._slots:
            return super()._reducers(source, are_weighted)
        group, parts = self._all.group, self._parts
        rules, first = source.reductions.by_name, source.reductions.gradients
        slots = {name: self._port_of[slot] for name, slot in self._slots.items()}
        of_part = [{p.name: slots[p.name] for p in part if p.name in slots} for part in parts]
        about = first, first if are_weighted else (), self._sections, self._early
        pairs = list(zip(of_part, parts, strict=True))
        self._windows = [WindowSums(group, own, rules, part, *about) for own, part in pairs]
        others = {name: rule for name, rule in rules.items() if name not in slots}
        if source.is_finite is not None:
            others[INFINITE] = SUM
            parts[-1].append(Port(INFINITE, np.dtype(bool), ()))
        found = [Reducing(group, others, part) for part in parts]
        both = zip(found, self._windows, strict=True)
        self._places = [{**reducing.direct, **sums.direct} for reducing, sums in both]
        return found

    def _stages_of(self, source: Step) -> list[Stage]:
        return stages_of(source, of_sums=bool(self._slots))

    def _buffers(self, first: Mapping[str, Array]) -> tuple[State, ...]:
        self._state_ports = self._ports_of_state
        return super()._buffers(first)

    def step(self, batch: Mapping[str, Any]) -> None:
        """One step of all processes on `batch`, which each of them has."""
        self._all.use(self)
        if self._windows:
            number, accumulate = int(self.look(["step"])["step"]), self._source.recipe.accumulate
            self._closes = (number + 1) % accumulate == 0
        super().step(batch)

    def _reduced(self, part: int, given: Mapping[str, Array] | None) -> dict[str, Array]:
        side = self._at.current
        self._at = self._at._replace(can_undo=False)  # what the step before read is written over
        self._held.pop(1 - side, None)
        if not self._windows:
            return super()._reduced(part, given)
        every, sums = self._every(given), self._windows[part]
        whole = sums.close(every, side) if self._closes else sums.add(every, side)
        if self._source.is_finite is None or sums is not self._windows[-1]:
            return whole | super()._reduced(part, given)
        is_finite = all(own.is_finite(1 - side) for own in self._windows)
        known = None if given is None else {**given, INFINITE: np.array(not is_finite)}
        whole |= super()._reduced(part, known)
        if not self._closes:
            whole[INFINITE] = np.array(sums.note(bool(whole[INFINITE]), side))
        return whole

    def _begin(self, shard: object) -> Callable[[int, Mapping[str, Array]], None]:
        if not self._windows:
            return super()._begin(shard)

        def made(number: int, known: Mapping[str, Array]) -> None:
            if self._closes:
                self._processes.meet()
                every = self._every(None if shard is None else known)
                self._windows[0].begin(number, every, self._at.current)

        return made

    def _every(self, given: Mapping[str, Array] | None) -> Mapping[str, Array] | None:
        """All outputs of the gradient half, of which some were computed in place."""
        return None if given is None else {**self._direct, **given}

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
        step, side = self._at.steps, self._at.current
        is_held = side in self._held or not self._spread(side)
        found = np.array([not is_held, -step], np.int64)
        self._all.group.allreduce(found, operation="max")
        step = -int(found[1])  # one may have undone its last step
        if found[0] and self._all_have(step):
            found_side = self._side_of(step)
            assert found_side is not None
            names = self._spread(found_side)
            self._held[found_side] = {name: self._gathered(name, found_side) for name in names}

    def settle(self) -> None:
        """Goes on as from a file with this state. All processes call it together."""
        for sums in self._windows:
            sums.settle(self._at.current)

    def collected(self, names: Iterable[str], step: int) -> dict[str, Array]:
        """Those tensors after that step, of which each process has a part; all processes call it
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
        """What all processes have of a tensor together."""
        return self._window_of(name).gathered(name, side)

    def _window_of(self, slot: str) -> WindowSums:
        """The sums that a slot is one of."""
        return next(sums for sums in self._windows if slot in sums.slots)

    def _put(self, arrays: Mapping[str, Array], side: int) -> None:
        """Goes on with these sums of all processes."""
        for sums in self._windows:
            own = {slot: x for slot, x in arrays.items() if slot in sums.slots}
            if own:
                sums.put(own, side)

    @property
    def _names(self) -> list[str]:
        return [*self._port_of]

    def _spread(self, side: int) -> list[str]:
        """The parts of the state of that side that others have to be asked for."""
        is_open = any(sums.are_there(side) for sums in self._windows)
        return [*self._kept, *(self._sums_of_state if is_open else ())]

    def _viewed(self, names: Iterable[str], side: int) -> dict[str, Array]:
        names, spread = list(names), set(self._spread(side))
        asked = [n for n in names if n in spread]
        others = (self._held.get(side) or self._asked(asked, side)) if asked else {}
        return {n: others[n] if n in spread else self._here(n, side) for n in names}

    def _here(self, name: str, side: int) -> Array:
        """What every process has."""
        if name in self._sums_of_state:
            return self._window_of(name).nothing(name)
        return view_of(self._sets[side][name])

    def _asked(self, names: list[str], side: int) -> dict[str, Array]:
        step = self._at.steps - (side != self._at.current)
        return self._all.collect(self, names, step)

    def _fill(self, side: int, arrays: Mapping[str, Array]) -> None:
        sums = {n: arrays[n] for n in self._sums_of_state if n in arrays}
        self._put(sums, side)
        for name, array in arrays.items():
            if name not in sums:
                self._take(side, name, array)
        spread = self._spread(side)
        kept = {n: np.array(arrays[n]) for n in spread if n in arrays}
        if len(kept) == len(spread) or side in self._held:
            self._held[side] = self._held.get(side, {}) | kept

    def _take(self, side: int, name: str, array: Array) -> None:
        """Goes on with a tensor of the state, or with what this process has of it."""
        super()._fill(side, {name: array})

    def _following(self, other: StepRunner, state: Mapping[str, Array]) -> Any:
        return super()._following(other, self._initial)
