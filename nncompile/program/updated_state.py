"""The state of a training step as its updates change it, one after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import NamedTuple

from nncompile.elementwise import where
from nncompile.ir.broadcasting import zeros_like
from nncompile.ir.graph import Input
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ops.random.generator import step_leaf


class Window(Enum):
    """Which of the steps that are accumulated together is made: one of them, the last of which
    updates (`EACH`); one that updates, whichever it is (`CLOSING`); one that does not (`OPEN`); or
    the update alone, of what was accumulated (`APPLY`)."""

    EACH = "each"
    CLOSING = "closing"
    OPEN = "open"
    APPLY = "apply"

    @property
    def is_whole(self) -> bool:
        """Whether accumulation and update are one step."""
        return self in (Window.EACH, Window.CLOSING)


class Forms(NamedTuple):
    """Values in two forms: `whole`, of state and batch, and `in_turn`, of these and of what was
    handed over for earlier updates. The same where no earlier update was seen."""

    whole: Sequence[Value]
    in_turn: Sequence[Value]


@dataclass
class UpdatedState:
    """The state after the updates so far: `now` as values of state and batch, `split` as values of
    state and `leaves`, the inputs of the update half that the gradient half computes: as `handed`,
    of state and batch, and as `in_turn`, of these and of leaves that earlier updates took.
    `slots` are the states that updates keep; `first` has their first values other than zeros.
    `accumulators` are those of sums since the last update, `skipped` counts updates left out.
    `sums` are, by what the gradient half hands over, the slot of such a sum and the sum with it.

    One of `accumulate` steps updates; `window` says which of them this is.
    """

    accumulate: int
    window: Window = Window.EACH
    now: dict[Value, Value] = field(default_factory=dict)
    split: dict[Value, Value] = field(default_factory=dict)
    handed: dict[str, Value] = field(default_factory=dict)
    in_turn: dict[str, Value] = field(default_factory=dict)
    leaves: list[Value] = field(default_factory=list)
    slots: dict[str, Value] = field(default_factory=dict)
    first: dict[str, Value] = field(default_factory=dict)
    accumulators: set[Value] = field(default_factory=set)
    sums: dict[str, tuple[str, Value]] = field(default_factory=dict)
    skipped: Value | None = None
    _are_zeros: dict[Value, bool] = field(default_factory=dict, init=False)

    @property
    def accumulates(self) -> bool:
        """Whether gradients are added up in slots."""
        return self.accumulate > 1 or not self.window.is_whole

    @cached_property
    def number(self) -> Value:
        """How many updates were made before this step."""
        due = step_leaf() // self.accumulate if self.accumulate > 1 else step_leaf()
        return due if self.skipped is None else due - self.skipped

    @property
    def accumulated(self) -> Value:
        """How many batches were accumulated before this step."""
        remainder: Value = step_leaf() % self.accumulate
        return remainder

    def due(self, new: Value, old: Value) -> Value:
        """`new` in a step that updates, `old` in one that only accumulates."""
        if self.window is Window.OPEN:
            return old
        if self.accumulate == 1 or self.window is not Window.EACH:
            return new
        chosen: Value = where((step_leaf() + 1) % self.accumulate == 0, new, old)
        return chosen

    def follow(self, following: Mapping[Value, Value], values: Mapping[Value, Value]) -> None:
        """Makes an update: all of `following` at once, where `values` are the leaves that the
        gradient half hands over."""
        targets, new = list(following), list(following.values())
        split = replace(new, self.split)
        now = replace(new, {**self.now, **values})
        self.split.update(zip(targets, split, strict=True))
        self.now.update(zip(targets, now, strict=True))

    def present(self, values: Sequence[Value]) -> Forms:
        """The values at the state after the updates so far."""
        if not self.now:
            return Forms(values, values)
        return Forms(replace(values, self.now), replace(values, self.split))

    def hand_over(self, name: str, value: Value, in_turn: Value | None = None) -> Value:
        """`value` as an input of the update half, of that name or one like it; `in_turn` is its
        other form where it has one."""
        name = unused_name(name, self.handed)
        leaf = Input(name, value.type, "input")()
        self.handed[name] = value
        self.in_turn[name] = value if in_turn is None else in_turn
        self.leaves.append(leaf)
        return leaf

    def slot(self, path: str, slot: str, start: Value) -> Value:
        """A state of its own for the parameter, which begins with `start`."""
        name = unused_name(f"{path}.{slot}", self.slots)
        self.slots[name] = Input(name, start.type, "state")()
        if start not in self._are_zeros:
            self._are_zeros[start] = start is zeros_like(start)
        if not self._are_zeros[start]:
            self.first[name] = start
        return self.slots[name]
