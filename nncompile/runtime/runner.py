"""Repeated training steps whose state never leaves onnxruntime.

Two sets of state buffers change places: a step reads one and writes the other. (One set, read and
written at once, gives wrong weights: onnxruntime may write a result before it has read all of its
inputs.) Small arrays of a batch are copied into buffers that stay where they are while their shapes
do; large ones are read where they are.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from nncompile.diagnostics.errors import FeedError, Row
from nncompile.diagnostics.hints import suggests_options
from nncompile.diagnostics.kinds import shown
from nncompile.ir.graph import Graph
from nncompile.ir.types import Array, bf16
from nncompile.program.recipe import Recipe
from nncompile.program.step import Step
from nncompile.runtime.batch_inputs import BatchInputs
from nncompile.runtime.buffers import (
    array_of,
    bits_of,
    buffer_like,
    buffer_of,
    give_back,
    view_of,
)
from nncompile.runtime.feeds import Port, check_examples, check_feeds
from nncompile.runtime.in_place import overwritten
from nncompile.runtime.native import Library
from nncompile.runtime.origin import RECIPE
from nncompile.runtime.position import Position
from nncompile.runtime.providers import Provider
from nncompile.runtime.session import RUN_ERRORS, Model, Session
from nncompile.runtime.step_session import step_session
from nncompile.runtime.step_sources import Compiled, state_map, step_of
from nncompile.runtime.stopping import Stop

Shapes = Mapping[str, tuple[int, ...]]
State = dict[str, ort.OrtValue]


@suggests_options
class StepRunner:
    """Runs a training step `(state, batch) → (state', metrics)` again and again.

    `model` is a recipe, what `compose` or `compile_step` made of it, its graph, or the file of an
    exported step; `state` gives the first value of every state input, by default that which the
    recipe draws from its seed, or which was exported beside the file. It may be a file, that one or
    a later checkpoint. A model input in `state` that has no next value stays as it is.

    `check` is called with the shapes of a batch where they differ from before, and raises an error
    for wrong ones. `instead` gives, by these shapes, another model to run on such batches, of the
    same inputs and outputs, or None; the attribute `model` is the one that runs. With `after`, it
    takes the place of that runner, of a step with other states: it goes on counting its steps, and
    `undo` and `before` give the state before its last one. With `in_place`, a step writes over what
    nothing reads later in it, such as the slots of Adam, and cannot be undone: the state takes a
    third less memory, or half where gradients are clipped. On a GPU metrics stay there until they
    are asked for; with `metrics_on_host` each step ends with a copy of them, which takes less time
    where they are read after every step. The other options are those of
    `Session`. Raises `BackendError` for a model that is not a step, `FeedError` for a
    state that does not fit, `CheckpointError` for a file that says that it is of another recipe.
    """

    ahead = 1  # steps whose results it holds
    trouble: tuple[Row, ...] = ()  # what it knows of a loss that is not finite
    _turns: Sequence[tuple[int, int]] = ((0, 1), (1, 0))  # sets that a step reads, and writes
    stop: Stop | None = None  # by which another thread ends the steps made from now on
    _shares_memory = False  # of its runs with those of other sessions
    _takes_turns = False  # with other sessions, in each step
    _takes_examples = True  # what is fed to it
    _session_of: Callable[..., Session] = staticmethod(step_session)

    def __init__(
        self,
        model: Model | Step | Graph | Recipe | Compiled,
        state: Mapping[str, Any] | str | os.PathLike[str] | None = None,
        providers: Provider | Sequence[Provider] = "cpu",
        threads: int | None = None,
        reuse: bool = True,
        check: Callable[[Shapes], object] | None = None,
        instead: Callable[[Shapes], Model | None] | None = None,
        profile: str | None = None,
        after: StepRunner | None = None,
        native: bool | None = None,
        in_place: bool = False,
        metrics_on_host: bool = False,
    ) -> None:
        self.in_place = in_place
        step, given = step_of(model, state)
        state = given.arrays
        self._check = check
        self._instead = instead
        self._start = partial(
            self._session_of,
            providers=providers,
            threads=threads,
            reuse=reuse,
            profile=profile,
            native=native,
            shares_memory=self._shares_memory,
            takes_turns=self._takes_turns,
        )
        self._first: Model = step
        self.session, shared = self._started(step)
        given.check_of(self.session.name, self.session.metadata.get(RECIPE))
        self.state_map = self._mapped(self.session)
        state_names = self.state_map.keys() | state.keys()
        self._batch_ports = [p for p in self.session.inputs if p.name not in state_names]
        self._state_ports = [p for p in self.session.inputs if p.name in state_names]
        first = self._first_state(state)
        self._shared = shared
        self._sets = self._buffers(first)
        written = {*self.state_map.values()}
        self._results = [p for p in self.session.outputs if p.name not in written]
        on_host = ("cpu", 0) if metrics_on_host else self.session.device
        # Of bfloat16 they are where `array_of` can read them.
        places = {p: ("cpu", 0) if p.dtype == bf16.numpy else on_host for p in self._results}
        self._fixed = {
            p.name: buffer_like(np.empty(p.shape, p.dtype), place)
            for p, place in places.items()
            if p.is_static
        }
        self._free = [p.name for p in self._results if not p.is_static]
        # Of each model that was run: itself, its session, and a binding and a call for each order.
        self._ready: dict[int, tuple[Any, ...]] = {}
        self._add(step, self.session, shared)
        self._use(step)
        self._batch: BatchInputs | None = None  # of the last batch
        # The models and shapes that have run, of which onnxruntime has planned the memory.
        self._planned: set[tuple[int, frozenset[Any]]] = set()
        self._plan = 0, frozenset[Any]()
        self._at = Position()
        if after is not None:
            self._at = self._following(after, first)

    def _first_state(self, state: Mapping[str, Any]) -> dict[str, Array]:
        return check_feeds(self._state_ports, state)

    def _mapped(self, session: Session) -> dict[str, str]:
        """The name of each state that the session changes, with that of its next value."""
        return state_map(session)

    def _buffers(self, first: Mapping[str, Array]) -> tuple[State, ...]:
        """The sets of buffers for such a state, of which the first holds it."""
        # What a step writes before it is read need not be filled.
        written = self.state_map
        read = {n: buffer_of(x, self._device_of(n)) for n, x in first.items()}
        made = {n: buffer_like if n in written else buffer_of for n in first.keys() - self._shared}
        other = {n: make(first[n], self._device_of(n)) for n, make in made.items()}
        return read, {n: other.get(n, x) for n, x in read.items()}

    def _following(self, other: StepRunner, state: Mapping[str, Array]) -> Position:
        """The position that takes the place of the other runner's."""
        at = other._at
        if at.read < 0:
            return Position(other.steps)
        earlier = other.before()
        arrays = {name: earlier.get(name, array) for name, array in state.items()}
        self._fill(1, check_feeds(self._state_ports, arrays))
        return Position(other.steps, read=1, can_undo=at.can_undo, equal=False)

    @property
    def ports(self) -> list[Port]:
        """The inputs that are not state."""
        return self._batch_ports

    def step(self, batch: Mapping[str, Any]) -> None:
        """One step on `batch`, which holds every input that is not state. Raises `FeedError` for
        data that do not fit, `BackendError` where the model fails on them."""
        if type(batch) is not dict and not isinstance(batch, Mapping):
            raise FeedError(
                f"a step takes a dict of arrays by input name, got {shown(batch)}",
                rows=[("input", port.name, port.type) for port in self._batch_ports],
            )
        at, inputs = self._at, self._batch
        turn = self._turn
        if inputs is None or not inputs.fed(batch, turn):
            batch = check_feeds(self._batch_ports, batch)
            if inputs is None or not inputs.fed(batch, turn):
                inputs = self._allocate(batch)
                inputs.fed(batch, turn)
        if not at.equal:  # after `put`, or an interrupt within `load`
            at = self._copied(self.look(n for n in self._sets[0] if n not in self.state_map))
        binding = self._bindings[turn]
        for name, buffer in inputs.misplaced[turn]:
            binding.bind_ortvalue_input(name, buffer)
        self._bind_results(binding)
        if at.can_undo:  # the step writes over what the one before it read, also where it fails
            self._at = at._replace(can_undo=False)
        try:
            self._compute(turn, self.stop)
        except RUN_ERRORS as error:  # the state before the step is intact
            raise self.session.failure(error, batch, self.model) from error
        for target, result in self._apart:
            target.update_inplace(bits_of(array_of(result)))
        read, written = self._turns[turn]
        read = -1 if self.in_place else read
        self._at = Position(
            at.steps + 1, written, read, read >= 0, binding, True, at.kept, at.since + 1
        )

    def _compute(self, turn: int, stop: Stop | None) -> None:
        binding = self._bindings[turn]
        if self._plan not in self._planned:
            give_back()  # what the state was made of
            self.session.run_first(binding, stop)
            give_back()
            self._planned.add(self._plan)
        elif stop is None:
            self._runs[turn]()
        else:
            self.session.run_until(binding, stop)

    @property
    def _turn(self) -> int:
        """Which of the `_turns` the next step is."""
        return self._at.current

    def _bind_results(self, binding: ort.IOBinding) -> None:
        for name in self._free:  # or a result keeps the sizes of the first run
            binding.bind_output(name, "cpu")

    @property
    def steps(self) -> int:
        """The number of steps made, without those that were undone."""
        return self._at.steps

    @property
    def library(self) -> Library | None:
        """The native kernels that steps call; None where they call none."""
        return self.session.library

    @property
    def knows_before(self) -> bool:
        """Whether `before` has the state before the last step."""
        return not self.in_place

    @property
    def can_undo(self) -> bool:
        """Whether `undo` can go back to the state before the last step."""
        return self._at.can_undo

    def undo(self) -> bool:
        """Goes back to the state before the last step, whose metrics stay available. False where
        that state is gone: before the first step, after another undo, once another state was
        loaded, and after a step that failed."""
        at = self._at
        if self.can_undo:
            before = at._replace(steps=at.steps - 1, current=at.read, can_undo=False)
            self._at = before._replace(since=at.since - 1)
        return at.can_undo

    def metrics(self) -> dict[str, Array]:
        """The outputs of the last step that are not state; nothing before the first."""
        if self._at.binding is None:
            return {}
        values = dict(self._fixed)
        if self._free:
            values |= zip(self._order, self._at.binding.get_outputs(), strict=True)
        return {port.name: array_of(values[port.name]) for port in self._results}

    def computed(self, batch: Mapping[str, Any]) -> Mapping[str, Any]:
        """The rows of a batch that its metrics are those of."""
        return batch

    def concluded(self, sums: Any) -> Any:
        """What is told of the steps of an epoch, of which these are the sums."""
        return sums

    def state(self) -> dict[str, Array]:
        """A copy of the state after the last step."""
        return {n: array_of(buffer) for n, buffer in self._sets[self._at.current].items()}

    def look(self, names: Iterable[str]) -> dict[str, Array]:
        """Copies of those parts of the state after the last step."""
        buffers = self._sets[self._at.current]
        return {name: array_of(buffers[name]) for name in names}

    def views(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """The state after the last step, or those parts of it, to be read before the next one:
        without a copy where it lies in main memory."""
        buffers = self._sets[self._at.current]
        return {name: view_of(buffers[name]) for name in (buffers if names is None else names)}

    def put(self, arrays: Mapping[str, Any]) -> None:
        """Goes on with these values of parts of the state that no step changes; `undo` takes them
        back with the step. Raises `FeedError`."""
        arrays = check_feeds([p for p in self._state_ports if p.name in arrays], arrays)
        self._at = self._at._replace(equal=False)  # before, for an interrupt
        self._fill(self._at.current, arrays)

    def before(self) -> dict[str, Array]:
        """A copy of the state before the last step, undone or not, which is where its metrics are
        computed."""
        side = self._at.read if self._at.read >= 0 else self._at.current
        return {n: array_of(buffer) for n, buffer in self._sets[side].items()}

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from another state of the same shapes. Raises `FeedError`."""
        arrays = check_feeds(self._state_ports, state)
        # The set that the state is not in is written first, so that an interrupt leaves one state
        # or the other; then both, as what has no next value is read from either.
        at = self._at = self._at._replace(can_undo=False, kept=-1, since=0)
        other = int(at.current == 0)
        self._fill(other, arrays)
        self._at = at._replace(current=other, equal=False)
        self._copied(arrays)

    def _copied(self, arrays: Mapping[str, Array]) -> Position:
        """Copies the state into the sets of buffers that it is not in."""
        for side in range(len(self._sets)):
            if side != self._at.current:
                self._fill(side, arrays)
        self._at = self._at._replace(equal=True)
        return self._at

    def _fill(self, side: int, arrays: Mapping[str, Array]) -> None:
        for name, array in arrays.items():
            self._sets[side][name].update_inplace(bits_of(array))

    @property
    def _order(self) -> list[str]:
        """The outputs in the order that a binding holds them: as they were first bound."""
        return [*self.state_map.values(), *self._fixed, *self._free]

    def _started(self, model: Model) -> tuple[Session, frozenset[str]]:
        """A session, and the parts of the state that it may write over while it runs."""
        if not self.in_place:
            return self._start(model), frozenset()
        with tempfile.TemporaryDirectory() as directory:
            file = os.path.join(directory, "step.onnx")
            session = self._start(model, optimized=file)
            if session.device[0] != "cpu":
                return session, frozenset()
            written = overwritten(onnx.load(file), state_map(session))
            return session, written | session.written

    def _add(self, model: Model, session: Session, overwrites: frozenset[str]) -> None:
        # What it may not write over is written elsewhere, and then copied.
        apart = {n: (self._sets[0][n], buffer_like(array_of(self._sets[0][n])))
                 for n in self._shared - overwrites}  # fmt: skip
        results = [{**buffers, **{n: x for n, (_, x) in apart.items()}} for buffers in self._sets]
        bindings = tuple(self._bind(session, self._sets[i], results[j]) for i, j in self._turns)
        runs = tuple(self._run_of(session, binding) for binding in bindings)
        self._ready[id(model)] = model, session, bindings, runs, tuple(apart.values())

    def _use(self, model: Model) -> None:
        """Runs that model from now on."""
        if id(model) not in self._ready:
            self._add(model, *self._started(model))
        self.model, self.session, self._bindings, self._runs, self._apart = self._ready[id(model)]

    def _bind(self, session: Session, current: State, following: State) -> ort.IOBinding:
        binding = session.io_binding()
        for name, buffer in current.items():
            binding.bind_ortvalue_input(name, buffer)
        for name, result in self.state_map.items():
            binding.bind_ortvalue_output(result, following[name])
        for name, buffer in self._fixed.items():
            binding.bind_ortvalue_output(name, buffer)
        for name in self._free:
            binding.bind_output(name, "cpu")
        return binding

    def _run_of(self, session: Session, binding: ort.IOBinding) -> Callable[[], None]:
        return session.runner(binding)

    def _copies_of(self, batch: Mapping[str, Array]) -> int:
        """How many batches like this one may be on the device at once."""
        return 1

    def _device_of(self, name: str) -> tuple[str, int]:
        """Where the buffer of an input is made."""
        return self.session.device_of_input(name) or self.session.device

    def _allocate(self, batch: Mapping[str, Array]) -> BatchInputs:
        """Makes ready for batches like this one."""
        if self._takes_examples:
            check_examples(batch)
        shapes = {name: x.shape for name, x in batch.items()}
        if self._check is not None:
            self._check(shapes)
        self._batch = None  # until all is bound, so that an interrupt leaves nothing half done
        replacement = None if self._instead is None else self._instead(shapes)
        self._use(self._first if replacement is None else replacement)
        self._plan = id(self.model), frozenset(shapes.items())
        states = [self._sets[read] for read, _ in self._turns]
        about = self.session, self._bindings, states, self._device_of
        self._batch = BatchInputs(batch, *about, self._copies_of(batch))
        return self._batch
