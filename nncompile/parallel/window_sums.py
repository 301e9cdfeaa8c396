"""Gradients that each process adds up over a window of batches, before all add them up once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np

from nncompile.ir.types import Array
from nncompile.parallel.group import Group
from nncompile.parallel.reducing import Reducing, is_long
from nncompile.parallel.vectors import multiply
from nncompile.program.reductions import SUM, Reduction
from nncompile.program.update_sections import Section
from nncompile.runtime.feeds import Port


class WindowSums:
    """The sums of the gradients that this process computed since the last update, times their
    weights: what the tensors of `slots`, by the gradient, are of all processes. Gradients are of
    those types (`ports`), and follow from those of parts of a batch by these `rules`; those that
    are `weighted` are given times their weight.

    There are two sets of sums, as there are of the state: a step reads those of one side, and
    writes the other."""

    def __init__(
        self,
        group: Group,
        slots: Mapping[str, Port],
        rules: Mapping[str, Reduction],
        ports: Iterable[Port],
        first: Iterable[str] = (),
        weighted: Collection[str] = (),
        sections: Sequence[Section] = (),
        early: Sequence[Sequence[str]] = (),
    ) -> None:
        self._group, self._weighted = group, weighted
        self._slots = slots
        self._gradient_of = {port.name: name for name, port in slots.items()}
        self._rules = {name: rules[name] for name in slots}
        given = {port.name: port for port in ports if port.name in slots}
        sums = dict.fromkeys(given, SUM)
        single, double = np.dtype(np.float32), np.dtype(np.float64)
        wide = [Port(p.name, single if is_long(p) else double, p.shape) for p in given.values()]
        self._reducing = Reducing(group, sums, wide, first, (), sections, early)
        self._views = self._reducing.direct
        self._direct = {n: x for n, x in self._views.items() if x.dtype == given[n].dtype}
        self._sides = [{n: np.zeros(x.shape, x.dtype) for n, x in self._views.items()}
                       for _ in range(2)]  # fmt: skip
        self._are_there = [False, False]  # or they are zeros, whatever lies there
        self._infinite = [False, False]  # of any process, as far as is known
        self._begun: set[str] = set()

    @property
    def direct(self) -> Mapping[str, Array]:
        """Where gradients are to be computed; they need not be given."""
        return self._direct

    @property
    def slots(self) -> Collection[str]:
        """The names of the sums in the state."""
        return self._gradient_of.keys()

    def are_there(self, side: int) -> bool:
        """Whether sums of that side are of any batch."""
        return self._are_there[side]

    def add(self, given: Mapping[str, Array] | None, side: int) -> dict[str, Array]:
        """Adds the gradients of a batch, or nothing for no rows, to the sums of that side, and
        gives what stands where the sums of all are to stand."""
        for name, view in self._views.items():
            self._weigh(name, given)
            new = self._sides[1 - side][name]
            if self._are_there[side]:
                np.add(self._sides[side][name], view, out=new)
            else:
                new[...] = view
        self._are_there[1 - side] = True
        return self._of_slots(self._reducing.present())

    def begin(self, number: int, given: Mapping[str, Array] | None, side: int) -> None:
        """Begins to add up the sums of all processes, with this batch, of those early tensors."""
        names = self._reducing.names_of(number)
        self._complete(names, given, side)
        self._begun |= {*names}
        self._reducing.begin(number, {})

    def close(self, given: Mapping[str, Array] | None, side: int) -> dict[str, Array]:
        """The sums of all processes, with this batch; of those of sections, the rows that are
        owned. None are left on the other side."""
        self._complete([n for n in self._views if n not in self._begun], given, side)
        self._begun = set()
        self._are_there[1 - side] = False
        self._infinite[1 - side] = False
        return self._of_slots(self._reducing.reduced({}, _none))

    def is_finite(self, side: int) -> bool:
        """Whether the sums of this process on that side are."""
        sums = self._sides[side].values() if self._are_there[side] else ()
        return all(np.isfinite(np.abs(x).sum(dtype=np.float64)) for x in sums)

    def note(self, is_infinite: bool, side: int) -> bool:
        """Notes whether those of any process are not finite with the batch after that side, and
        says whether they are not: what is not finite stays so in a window."""
        self._infinite[1 - side] = self._infinite[side] or is_infinite
        return self._infinite[1 - side]

    def gathered(self, slot: str, side: int) -> Array:
        """The sum of all processes, which call this together."""
        if not self._are_there[side]:
            return self.nothing(slot)
        name = self._gradient_of[slot]
        whole = self._sides[side][name].copy()
        self._group.allreduce(whole)
        return whole.astype(self._slots[name].dtype)

    def settle(self, side: int) -> None:
        """Makes the sum of all processes that of the first, as where a training goes on from a
        file, which so comes to the same bits. All call this together."""
        if self._are_there[side]:
            self.put(
                {port.name: self.gathered(port.name, side) for port in self._slots.values()}, side
            )

    def nothing(self, slot: str) -> Array:
        """The sum of no batch."""
        own = self._views[self._gradient_of[slot]]
        return np.zeros(own.shape, self._slots[self._gradient_of[slot]].dtype)

    def put(self, arrays: Mapping[str, Array], side: int) -> None:
        """Goes on with these sums of all processes, beside those that are there."""
        if not self._are_there[side] or arrays.keys() >= self._gradient_of.keys():
            for own in self._sides[side].values():
                own[...] = 0
            self._are_there[side] = self._infinite[side] = False
        for slot, array in arrays.items():
            own = self._sides[side][self._gradient_of[slot]]
            own[...] = array if self._group.rank == 0 else 0
            self._are_there[side] |= bool(array.any())
            self._infinite[side] |= not np.isfinite(array).all()

    def _weigh(self, name: str, given: Mapping[str, Array] | None) -> None:
        """Makes a gradient what it adds to the sum."""
        view = self._views[name]
        if given is None:
            view[...] = 0
            return
        if name not in self._direct:
            view[...] = given[name]
        multiply(view, self._factor(name, given))

    def _factor(self, name: str, given: Mapping[str, Array]) -> float:
        rule = self._rules[name]
        if rule.kind != "mean":
            return 1.0
        if rule.weight is None:
            return 1 / self._group.size
        return 1.0 if name in self._weighted else float(given[rule.weight])

    def _complete(self, names: Iterable[str], given: Mapping[str, Array] | None, side: int) -> None:
        for name in names:
            self._weigh(name, given)
            if self._are_there[side]:
                self._views[name] += self._sides[side][name]

    def _of_slots(self, sums: Mapping[str, Array]) -> dict[str, Array]:
        """In the types of the state."""
        return {n: x.astype(self._slots[n].dtype, copy=False) for n, x in sums.items()}


def _none(name: str) -> Array:
    raise AssertionError(f"{name} is no change of a state")
