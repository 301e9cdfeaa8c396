"""Training steps whose state is held once, by two runs to a step.

The first computes metrics and gradients at the state, the second the next state in its place, when
the next step begins or the state is asked for. So a step can be undone: its gradients are given up.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, wraps
from typing import Any, TypeVar, cast

import numpy as np
import onnx

from nncompile.diagnostics.errors import BackendError, CompileError
from nncompile.ir.types import Array
from nncompile.runtime.buffers import (
    array_of,
    bits_of,
    buffer_at,
    buffer_like,
    buffer_of,
    view_of,
)
from nncompile.runtime.feeds import Port, check_feeds
from nncompile.runtime.native import Library
from nncompile.runtime.position import Position
from nncompile.runtime.providers import Provider
from nncompile.runtime.runner import Shapes, State, StepRunner
from nncompile.runtime.session import RUN_ERRORS, Model, Session
from nncompile.runtime.stopping import Stop
from nncompile.runtime.tiled_session import update_session

LARGE = 2**24
"""Bytes of a state that is held once. A smaller one is little beside the rest of a process, and a
second run would be seen in the time of its steps."""
NUMBER = "step"
"""The state that counts the steps."""

_LEAST = "least (int64 x) => (int64 y) { y = Identity (x) }"

M = TypeVar("M", bound=Callable[..., Any])


def _alone(method: M) -> M:
    """A method that no other thread is in, or in another of these: who looks at the state while it
    is trained makes no update of its own."""

    @wraps(method)
    def called(self: HalvesRunner, *args: Any, **options: Any) -> Any:
        with self._lock:
            return method(self, *args, **options)

    return cast(M, called)


class HalvesRunner(StepRunner):
    """A runner of the `gradient` and the `update` of a step. `ports` are the inputs of the step
    that are no state, `results` its outputs that are none. See `StepRunner`, also for the other
    options; of a state whose next value nothing reads later in the update there is one copy."""

    _shares_memory = _takes_turns = True
    _takes_examples = False  # but gradients, which parameters of no elements have, too
    _session_of = staticmethod(update_session)
    _lost: BackendError | None = None  # where an update failed while it wrote the state
    _unfilled: Mapping[str, Array] = {}  # what was put, once the update is made that goes before
    # The runner before this one, which has the state before the last step, and the states that
    # only this one has.
    _earlier: tuple[HalvesRunner, Mapping[str, Array]] | None = None

    def __init__(
        self,
        gradient: Model,
        update: Model,
        ports: Sequence[Port],
        results: Sequence[str],
        state: Mapping[str, Any],
        providers: Provider | Sequence[Provider] = "cpu",
        threads: int | None = None,
        reuse: bool = True,
        check: Callable[[Shapes], object] | None = None,
        instead: Callable[[Shapes], Model | None] | None = None,
        after: StepRunner | None = None,
        native: bool | None = None,
    ) -> None:
        self._lock = threading.RLock()
        alike: dict[str, Any] = {"providers": providers, "threads": threads, "native": native}
        super().__init__(update, state, after=after, in_place=True, **alike)
        weakref.finalize(self, _give_back).atexit = False
        alike |= {"reuse": reuse, "check": check, "instead": instead}
        self._gradient = _Gradient(self._sets, gradient, **alike)
        self._gradient.hand_over(self._batch_ports, results)
        for name, buffer in self._gradient.bound.items():
            for binding in self._bindings:
                binding.bind_ortvalue_input(name, buffer)
        self._batch_ports = [p for p in self._batch_ports if p.name not in self._gradient.bound]
        known = {port.name for port in self._gradient.ports}
        self._others = [port for port in ports if port.name not in known]

    def _buffers(self, first: Mapping[str, Array]) -> tuple[State, ...]:
        read = {name: buffer_of(x) for name, x in first.items()}
        apart = (self.state_map.keys() - self._shared) & first.keys()
        other = {name: buffer_like(first[name]) for name in apart}
        if NUMBER in other:  # which tells whether an update was made
            other[NUMBER].update_inplace(bits_of(first[NUMBER]))
        return read, {**read, **other}

    @property
    def ports(self) -> list[Port]:
        """The inputs that are no state; some of them no result may need."""
        return [*self._gradient.ports, *self._others]

    @property
    def library(self) -> Library | None:
        """The native kernels that steps call; None where they call none."""
        return self._gradient.library or self.session.library

    @property
    def steps(self) -> int:
        """The number of steps made, without those that were undone."""
        return self._at.steps + (self._at.due is not None)

    @_alone
    def step(self, batch: Mapping[str, Any]) -> None:
        """The update of the step before, and the gradients of one on `batch`; see
        `StepRunner.step`."""
        if self._others and isinstance(batch, Mapping):
            arrays = check_feeds(self.ports, batch)
            batch = {port.name: arrays[port.name] for port in self._gradient.ports}
        self._catch_up()
        self._earlier = None
        side = self._gradient.side = self._at.current
        self._gradient.stop = self.stop
        self._gradient.step(batch)
        self._at = self._at._replace(due=self._number_in(side) + 1)

    def _catch_up(self) -> None:
        """Makes the update of the last step, if that is still to be made, and then goes on from
        what was put in its place."""
        self._check_state()
        at = self._at
        if at.due is not None:
            self._unfilled = at.put
        if self._is_due:
            try:
                super().step(self._gradient.handed(port.name for port in self._batch_ports))
            except Exception as error:
                about = error if isinstance(error, CompileError) else None
                self._lost = BackendError(
                    f"{about.problem if about else error}: this was while the state was written, "
                    "which is lost",
                    rows=about.rows if about else (),
                    hint="go on from a checkpoint: runner.load(state), trainer.load(path)",
                )
                raise self._lost from error
        elif at.due is not None:  # an interrupt came between its run and the position
            self._at = Position(at.steps + 1, self._turns[self._turn][1])
        if put := {**self._unfilled, **self._at.put}:
            self._fill_all(put)
            self._unfilled, self._at = {}, self._at._replace(put={})

    def _check_state(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _fill_all(self, arrays: Mapping[str, Array]) -> None:
        self._fill(0, arrays)
        apart = [n for n in arrays if self._sets[0][n] is not self._sets[1][n]]
        self._fill(1, {name: arrays[name] for name in apart})

    @property
    def _is_due(self) -> bool:
        """Whether an update is still to be made: its run is all or nothing to Python, and writes
        the number of the step."""
        due = self._at.due
        return due is not None and self._number_in(self._turns[self._turn][1]) != due

    def _number_in(self, side: int) -> int:
        """The number of the step that a set of buffers is of."""
        return int(self._sets[side][NUMBER].numpy())

    def _compute(self, turn: int, stop: Stop | None) -> None:
        super()._compute(turn, None)  # an update that is begun is made

    @property
    def can_undo(self) -> bool:
        """Whether `undo` can go back to the state before the last step."""
        return self._lost is None and (self._is_due or self._earlier is not None)

    @_alone
    def undo(self) -> bool:
        """Gives up the last step, whose metrics stay available. False where its update is made."""
        at = self._at
        if not self.can_undo:
            return False
        if self._is_due:
            self._at = at._replace(due=None, read=at.current, put={})
            self._unfilled = {}
            return True
        before = self.before()
        self._earlier = None  # before, for an interrupt: a step is not undone twice
        self._at = at._replace(steps=at.steps - 1, read=at.current, put=before)
        self._catch_up()
        return True

    @property
    def knows_before(self) -> bool:
        """Whether `before` has the state before the last step."""
        return self.can_undo or (self._lost is None and self._at.read >= 0)

    @_alone
    def before(self) -> dict[str, Array]:
        """A copy of the state before the last step; see `knows_before`."""
        self._check_state()
        if self._earlier is None:
            return super().before()
        other, own = self._earlier
        return {**other.before(), **own}

    def metrics(self) -> dict[str, Array]:
        """The outputs of the last step that are not state; nothing before the first."""
        return self._gradient.metrics()

    def state(self) -> dict[str, Array]:
        """A copy of the state after the last step."""
        return self.look(self._sets[0])

    @_alone
    def look(self, names: Iterable[str]) -> dict[str, Array]:
        """Copies of those parts of the state after the last step, which can be undone then."""
        names = list(names)
        if not self._is_due:
            self._catch_up()
            return super().look(names)
        self._check_state()
        put = self._at.put
        changed = [n for n in names if n in self.state_map and n not in put]
        found = self._next(changed) if changed else {}
        found |= super().look(n for n in names if n not in found and n not in put)
        return {n: found[n] if n in found else put[n].copy() for n in names}

    def _next(self, names: Sequence[str]) -> dict[str, Array]:
        """Those states after the update that is still to be made."""
        binding = self.session.io_binding()
        rest = self._gradient.handed(port.name for port in self._batch_ports)
        inputs = {**self._sets[self._at.current], **self._gradient.bound}
        inputs |= {name: buffer_of(x) for name, x in rest.items()}
        for name, buffer in inputs.items():
            binding.bind_ortvalue_input(name, buffer)
        dtypes = {port.name: port.dtype for port in self._state_ports}
        found = {name: np.empty(self._sets[0][name].shape(), dtypes[name]) for name in names}
        for name, array in found.items():
            binding.bind_ortvalue_output(self.state_map[name], buffer_at(array))
        try:
            self.session.run_first(binding)  # which leaves nothing in the memory that is shared
        except RUN_ERRORS as error:
            raise self.session.failure(error, rest, self.model) from error
        return found

    @_alone
    def views(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """The state after the last step, or those parts of it; see `StepRunner.views`. A step is
        not undone after that, unless it changes none of them."""
        names = list(self._sets[0] if names is None else names)
        if any(name in self.state_map for name in names):
            self._catch_up()
            self._earlier = None
        put = self._at.put
        found = super().views(n for n in names if n not in put)
        return {n: found[n] if n in found else put[n].copy() for n in names}

    @_alone
    def put(self, arrays: Mapping[str, Any]) -> None:
        """Goes on with these values of parts of the state that no step changes, after the last
        one; see `StepRunner.put`."""
        ports = [port for port in self._state_ports if port.name in arrays]
        given = {name: x.copy() for name, x in check_feeds(ports, arrays).items()}
        self._at = self._at._replace(put={**self._at.put, **given})
        if not self._is_due:
            self._catch_up()

    @_alone
    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from another state of the same shapes. Raises `FeedError`."""
        arrays = check_feeds(self._state_ports, state)
        self._earlier = None
        # In one assignment: what an interrupt leaves after it is the new state.
        self._at = self._at._replace(steps=self.steps, due=None, read=-1, put=arrays)
        self._unfilled, self._lost = {}, None
        self._catch_up()

    def _following(self, other: StepRunner, state: Mapping[str, Array]) -> Position:
        """The position that takes the place of the other runner's, whose state this one has."""
        if isinstance(other, HalvesRunner) and other.can_undo:
            own = {name: x.copy() for name, x in state.items() if name not in other._sets[0]}
            self._earlier = other, own
        return Position(other.steps)


class _Gradient(StepRunner):
    """The first half, which reads a state where it lies: in that of the `sets` of buffers that
    `side` is the number of."""

    _shares_memory = _takes_turns = True
    side = 0

    def __init__(self, sets: tuple[State, ...], model: Model, **options: Any) -> None:
        self._lent = sets
        state = {name: view_of(buffer) for name, buffer in sets[0].items()}
        super().__init__(model, state, metrics_on_host=True, **options)

    def hand_over(self, ports: Sequence[Port], results: Sequence[str]) -> None:
        """Says what the update takes; `results` are the metrics."""
        outputs = [port.name for port in self.session.outputs]
        passed = {name.removesuffix(".next") + ".reduced": name for name in outputs}
        self._sources = {port.name: passed.get(port.name, port.name) for port in ports}
        # By the names of the update, what it reads where it lies.
        self.bound = {n: self._fixed[x] for n, x in self._sources.items() if x in self._fixed}
        self._results = [port for port in self._results if port.name in {*results}]

    def handed(self, names: Iterable[str]) -> dict[str, Array]:
        """Of what the update takes, those parts."""
        values = dict(self._fixed)
        if self._free:
            values |= zip(self._order, self._at.binding.get_outputs(), strict=True)
        return {name: array_of(values[self._sources[name]]) for name in names}

    def _first_state(self, state: Mapping[str, Any]) -> dict[str, Array]:
        return {port.name: state[port.name] for port in self._state_ports}

    def _mapped(self, session: Session) -> dict[str, str]:
        return {}  # what it gives of the next state is handed over

    def _buffers(self, first: Mapping[str, Array]) -> tuple[State, ...]:
        return tuple({name: buffers[name] for name in first} for buffers in self._lent)

    @property
    def _turn(self) -> int:
        return self.side


def _give_back() -> None:
    """Gives the memory that the two halves shared back to the system, when their runner is gone."""
    session = _least_session()
    binding = session.onnxruntime.io_binding()
    binding.bind_cpu_input("x", np.zeros((), np.int64))
    binding.bind_output("y", "cpu")
    session.run_first(binding)


@cache
def _least_session() -> Session:
    opset = onnx.helper.make_opsetid("", 21)
    graph = onnx.parser.parse_graph(_LEAST)
    model = onnx.helper.make_model(graph, opset_imports=[opset], ir_version=10)
    return Session(model, threads=1, shares_memory=True)
