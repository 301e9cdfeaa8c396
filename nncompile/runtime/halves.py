"""Training steps whose state is held once, by two runs to a step.

The first computes metrics and gradients at the state, the second the next state in its place, when
the next step begins or the state is asked for. So a step can be undone: its gradients are given up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import BackendError
from nncompile.ir.types import Array
from nncompile.program.first_row import FIRST_ROW
from nncompile.runtime.buffers import buffer_of, view_of
from nncompile.runtime.feeds import Port, check_feeds
from nncompile.runtime.native import Library
from nncompile.runtime.position import Position
from nncompile.runtime.providers import Provider
from nncompile.runtime.runner import Shapes, State, StepRunner
from nncompile.runtime.session import Model, Session
from nncompile.runtime.stopping import Stop

LARGE = 2**26
"""Bytes of a state that is held once. A second run to a step takes some microseconds, and what
passes over as many bytes takes milliseconds."""
NUMBER = "step"
"""The state that counts the steps."""


class HalvesRunner(StepRunner):
    """A runner of the `gradient` and the `update` of a step. `ports` are the inputs of the step
    that are no state, `results` its outputs that are none. See `StepRunner`, also for the other
    options; of a state whose next value nothing reads later in the update there is one copy."""

    _shares_memory = True  # the runs of the two halves take turns
    _takes_examples = False  # but gradients, which parameters of no elements have, too
    _lost: BackendError | None = None  # where an update failed while it wrote the state
    _given: Mapping[str, Array] = {}  # what takes the place of states after the last step
    # The runner before this one, which has the state before the last step, and what else this has.
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
        alike: dict[str, Any] = {"providers": providers, "threads": threads, "native": native}
        super().__init__(update, state, after=after, in_place=True, **alike)
        alike |= {"reuse": reuse, "check": check, "instead": instead}
        self._gradient = _Gradient(self, gradient, results, **alike)
        for name, buffer in self._gradient.bound.items():
            for binding in self._bindings:
                binding.bind_ortvalue_input(name, buffer)
        self._batch_ports = [p for p in self._batch_ports if p.name not in self._gradient.bound]
        known = {port.name for port in self._gradient.ports}
        self._others = [port for port in ports if port.name not in known]

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

    def step(self, batch: Mapping[str, Any]) -> None:
        """The update of the step before, and the gradients of one on `batch`; see
        `StepRunner.step`."""
        self._catch_up()
        if self._others and isinstance(batch, Mapping):
            names = {port.name for port in self._others}
            check_feeds(self._others, {n: x for n, x in batch.items() if n in names})
            batch = {name: x for name, x in batch.items() if name not in names}
        number = self._number_in(self._at.current) + 1
        self._earlier = None
        self._gradient.stop = self.stop
        self._gradient.step(batch)
        self._at = self._at._replace(due=number)

    def _catch_up(self) -> None:
        """Makes the update of the last step, if that is still to be made, and then goes on from
        what was given in its place."""
        if self._lost is not None:
            raise self._lost
        if self._is_due:
            try:
                super().step(self._gradient.handed(port.name for port in self._batch_ports))
            except BackendError as error:
                self._lost = BackendError(
                    f"{error.problem}: this was while the state was written, which is lost",
                    rows=error.rows,
                    hint="go on from a checkpoint: runner.load(state), trainer.load(path)",
                )
                raise self._lost from error
        elif self._at.due is not None:  # an interrupt came between its run and the position
            self._at = Position(self._at.steps + 1, self._turns[self._turn][1])
        if self._given:
            for side in range(len(self._sets)):
                self._fill(side, self._given)
            self._given = {}

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
        return self._is_due or self._earlier is not None

    def undo(self) -> bool:
        """Gives up the last step, whose metrics stay available. False where its update is made."""
        at = self._at
        if self._is_due:
            self._at, self._given = at._replace(due=None, read=at.current), {}
            return True
        if self._earlier is None:
            return False
        other, own = self._earlier
        self._at = at._replace(steps=at.steps - 1, read=at.current)
        self._earlier, self._given = None, {**other.before(), **own}
        self._catch_up()
        return True

    @property
    def knows_before(self) -> bool:
        """Whether `before` has the state before the last step."""
        return self.can_undo or self._at.read >= 0

    def before(self) -> dict[str, Array]:
        """A copy of the state before the last step; see `knows_before`."""
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

    def look(self, names: Iterable[str]) -> dict[str, Array]:
        """Copies of those parts of the state after the last step, which can be undone then."""
        names = list(names)
        if not self._is_due:
            self._catch_up()
            return super().look(names)
        changed = [n for n in names if n in self.state_map and n not in self._given]
        feeds = {**super().views(), **self._gradient.handed()}
        results = self.session.run(feeds, [self.state_map[name] for name in changed])
        found = {name: results[self.state_map[name]] for name in changed}
        found |= super().look(n for n in names if n not in found and n not in self._given)
        return {n: found[n] if n in found else self._given[n].copy() for n in names}

    def views(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """The state after the last step, or those parts of it; see `StepRunner.views`. A step is
        not undone after that, unless it changes none of them."""
        names = list(self._sets[0] if names is None else names)
        if any(name in self.state_map or name in self._given for name in names):
            self._catch_up()
        return super().views(names)

    def put(self, arrays: Mapping[str, Any]) -> None:
        """Goes on with these values of parts of the state that no step changes, after the last
        one; see `StepRunner.put`."""
        ports = [port for port in self._state_ports if port.name in arrays]
        self._given = {
            **self._given,
            **{name: x.copy() for name, x in check_feeds(ports, arrays).items()},
        }
        if not self._is_due:
            self._catch_up()

    def load(self, state: Mapping[str, Any]) -> None:
        """Goes on from another state of the same shapes. Raises `FeedError`."""
        self._given = check_feeds(self._state_ports, state)
        # An interrupt from here on leaves what it takes to go on with the filling.
        self._at = self._at._replace(due=None, read=-1)
        self._lost = self._earlier = None
        self._catch_up()

    def _following(self, other: StepRunner, state: Mapping[str, Array]) -> Position:
        """The position that takes the place of the other runner's, whose state this one has."""
        if isinstance(other, HalvesRunner) and other.can_undo:
            own = {name: x.copy() for name, x in state.items() if name not in other._sets[0]}
            self._earlier = other, own
        return Position(other.steps)


class _Gradient(StepRunner):
    """The first half, which reads the state of a runner where it lies. `results` are the metrics
    among its outputs."""

    _shares_memory = True

    def __init__(
        self, owner: HalvesRunner, model: Model, results: Sequence[str], **options: Any
    ) -> None:
        self._owner = owner
        state = {**owner.views(), FIRST_ROW: np.zeros((), np.int64)}
        super().__init__(model, state, metrics_on_host=True, **options)
        outputs = [port.name for port in self.session.outputs]
        given = {name.removesuffix(".next") + ".reduced": name for name in outputs}
        self._handed = {port.name: given.get(port.name, port.name) for port in owner._batch_ports}
        # By the names of the update, what it reads where it lies.
        self.bound = {n: self._fixed[x] for n, x in self._handed.items() if x in self._fixed}
        self._results = [port for port in self._results if port.name in {*results}]

    def _first_state(self, state: Mapping[str, Any]) -> dict[str, Array]:
        return {port.name: state[port.name] for port in self._state_ports}

    def _mapped(self, session: Session) -> dict[str, str]:
        return {}  # what it gives of the next state is handed over

    def _buffers(self, first: Mapping[str, Array]) -> tuple[State, ...]:
        own = {n: buffer_of(x) for n, x in first.items() if n == FIRST_ROW}
        return tuple({n: {**buffers, **own}[n] for n in first} for buffers in self._owner._sets)

    @property
    def _turn(self) -> int:
        return self._owner._at.current

    def handed(self, names: Iterable[str] | None = None) -> dict[str, Array]:
        """What the update takes, or those parts of it."""
        values = dict(self._fixed)
        if self._free:
            values |= zip(self._order, self._at.binding.get_outputs(), strict=True)
        names = self._handed if names is None else names
        return {name: view_of(values[self._handed[name]]) for name in names}
