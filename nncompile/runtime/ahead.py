"""Training steps that are made ahead of what is read of them.

On a GPU a run can come back when its work is handed over: the device computes a step while the next
one is fed. What is read waits for it. Until then the results of each step lie in buffers of their
own, and so does each batch; and the state that the first of these steps read stays as it is, so
that all of them can be undone when one turns out to be bad.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import permutations
from typing import Any

import numpy as np
import onnxruntime as ort

from nncompile.ir.types import Array, bf16
from nncompile.runtime.batch_inputs import BatchInputs
from nncompile.runtime.buffers import array_of, buffer_like, buffer_of
from nncompile.runtime.runner import State, StepRunner
from nncompile.runtime.session import RUN_ERRORS, RUNTIME_VERSION, Session

STAY = tuple(map(int, RUNTIME_VERSION.split(".")[:2])) >= (1, 31)
"""Whether results whose sizes onnxruntime finds are those of their run for ever. Those that earlier
versions give become those of the next run of the same binding."""
_BATCHES = 2**26  # bytes of batches on the device, beyond two of them


class Held:
    """The results of a step, which stay as they are while the next few are made."""

    def __init__(
        self, runner: AheadStepRunner, results: Mapping[str, ort.OrtValue | Array]
    ) -> None:
        self._runner, self._results = runner, results

    def read(self) -> dict[str, Array]:
        """Copies of them. Raises `BackendError` where the device failed."""
        with self._runner.settled():
            return {
                name: x if isinstance(x, np.ndarray) else array_of(x)
                for name, x in self._results.items()
            }


class _Pace:
    """How far the device may be behind."""

    unfinished = 0  # runs that it may still be at
    in_a_row = 0  # runs that did not wait, one after the other


class AheadStepRunner(StepRunner):
    """A runner that makes up to `ahead` steps before any of their results is read; see
    `StepRunner`. `begin` says that all were read: `go_back` then leads there, and the results that
    `held` gives are there until so many steps were made. It has a third set of the state."""

    _turns = tuple(permutations(range(3), 2))

    def __init__(self, model: Any, *options: Any, ahead: int, **more: Any) -> None:
        self.ahead = ahead
        self._pace = _Pace()
        self._goes_on = False  # whether a step may begin while it is
        super().__init__(model, *options, **more)
        self._slots = [
            {name: buffer_of(array_of(x), self._place_of(x)) for name, x in self._fixed.items()}
            for _ in range(ahead)
        ]

    def begin(self) -> None:
        """The state after the last step is where `go_back` leads from now on."""
        self._at = self._at._replace(kept=self._at.current, since=0)

    def go_back(self) -> None:
        """Undoes all steps since `begin`."""
        at = self._at
        if at.kept >= 0:
            earlier = at._replace(steps=at.steps - at.since, current=at.kept, since=0)
            self._at = earlier._replace(read=-1, can_undo=False)

    def step(self, batch: Mapping[str, Any]) -> None:
        """One step on `batch`; see `StepRunner.step`. The device may still be at it after that."""
        if self._batch is not None and self._pace.unfinished >= self._batch.copies:
            self.wait()  # or the batch would be written over one that is read
        super().step(batch)
        if not self._goes_on:
            self.wait()

    def held(self) -> Held:
        """The results of the last step."""
        at = self._at
        results: dict[str, ort.OrtValue | Array] = {**self._slots[(at.since - 1) % self.ahead]}
        if self._free:
            values = dict(zip(self._order, at.binding.get_outputs(), strict=True))
            free = {name: values[name] for name in self._free}
            results |= free if STAY else Held(self, free).read()
        return Held(self, {port.name: results[port.name] for port in self._results})

    def wait(self) -> None:
        """Returns when the device has made all steps. Raises `BackendError` where it failed."""
        with self.settled():
            pass

    @contextmanager
    def settled(self) -> Iterator[None]:
        """A block in which the device has made all steps."""
        try:
            if self._pace.unfinished:
                self._bindings[0].synchronize_outputs()  # which waits for all that it does
                self._pace.unfinished = 0
            yield
        except RUN_ERRORS as error:
            raise self.session.failure(error, {}, self.model) from error

    def metrics(self) -> dict[str, Array]:
        """The outputs of the last step that are not state; nothing before the first."""
        return {} if self._at.binding is None else self.held().read()

    def state(self) -> dict[str, Array]:
        """A copy of the state after the last step."""
        with self.settled():
            return super().state()

    def look(self, names: Iterable[str]) -> dict[str, Array]:
        """Copies of those parts of the state after the last step."""
        with self.settled():
            return super().look(names)

    def views(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """The state after the last step, or those parts of it; see `StepRunner.views`."""
        with self.settled():
            return super().views(names)

    def before(self) -> dict[str, Array]:
        """A copy of the state before the last step; see `StepRunner.before`."""
        with self.settled():
            return super().before()

    def _buffers(self, first: Mapping[str, Array]) -> tuple[State, ...]:
        read, other = super()._buffers(first)
        third = {
            name: (buffer_like if name in self.state_map else buffer_of)(x, self._device_of(name))
            for name, x in first.items()
        }
        return read, other, third

    @property
    def _turn(self) -> int:
        at = self._at
        free = next(i for i in range(3) if i not in (at.current, at.kept))
        return self._turns.index((at.current, free))

    def _waits(self, session: Session) -> bool:
        """Whether each run ends when the device is done."""
        return session.device[0] == "cpu"

    def _run_of(self, session: Session, binding: ort.IOBinding) -> Callable[[], None]:
        waiting = session.runner(binding)
        if self._waits(session):
            return waiting
        going_on, pace, most = session.runner(binding, waits=False), self._pace, self.ahead

        def run() -> None:
            # onnxruntime frees some memory of its runs at the end of one that waits, and no other.
            if pace.in_a_row + 1 >= most:
                waiting()
                pace.unfinished = pace.in_a_row = 0
                return
            pace.unfinished += 1  # before, for an interrupt
            pace.in_a_row += 1
            going_on()

        return run

    def _fill(self, side: int, arrays: Mapping[str, Array]) -> None:
        self.wait()
        super()._fill(side, arrays)

    def _bind_results(self, binding: ort.IOBinding) -> None:
        for name, buffer in self._slots[self._at.since % self.ahead].items():
            binding.bind_ortvalue_output(name, buffer)
        for port in self._results:
            if not port.is_static:
                on_host = port.dtype == bf16.numpy  # where `array_of` can read it
                binding.bind_output(port.name, *(("cpu", 0) if on_host else self.session.device))

    def _place_of(self, buffer: ort.OrtValue) -> tuple[str, int]:
        return ("cpu", 0) if buffer.device_name().lower() == "cpu" else self.session.device

    def _allocate(self, batch: Mapping[str, Array]) -> BatchInputs:
        self.wait()  # for runs that read what is given back now, and those of another session
        inputs = super()._allocate(batch)
        states = self._sets[0].values()
        here = all(self._place_of(x) == self.session.device for x in states)
        # Of what is elsewhere onnxruntime makes copies, which it gives back when it is bound again.
        self._goes_on = here and not any(inputs.misplaced)
        return inputs

    def _copies_of(self, batch: Mapping[str, Array]) -> int:
        if self._waits(self.session):
            return 1
        size = sum(x.nbytes for x in batch.values())
        return min(self.ahead, max(2, _BATCHES // max(size, 1)))
