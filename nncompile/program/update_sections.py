"""Which process has which part of the state that an update computes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Component:
    """States that an update computes of each other, and what it takes from the gradient half for
    them, by name. Their first axes all have `rows` where it can be cut along them; `size` is the
    number of elements of the states."""

    states: tuple[str, ...]
    handed: tuple[str, ...]
    rows: int | None
    size: int


@dataclass(frozen=True)
class Section:
    """Components side by side, of which each process has a part. The part of process i begins at
    `cuts[i]`, a component and a row of it, and ends at `cuts[i + 1]`."""

    components: tuple[Component, ...]
    cuts: tuple[tuple[int, int], ...]

    def spans(self, rank: int) -> Iterator[tuple[Component, int, int]]:
        """The components that a process has rows of: from one to before another. What is not cut
        has one row here."""
        (first, start), (last, stop) = self.cuts[rank], self.cuts[rank + 1]
        for i in range(first, min(last + 1, len(self.components))):
            component = self.components[i]
            low = start if i == first else 0
            high = stop if i == last else (component.rows or 1)
            if low < high:
                yield component, low, high


def sections(components: Sequence[Component], size: int) -> list[Section]:
    """The components in two sections, those that can be cut and those that cannot, so that all
    processes have about as many elements."""
    loads = [0] * size
    owned: list[list[Component]] = [[] for _ in loads]
    for component in sorted((c for c in components if c.rows is None), key=lambda c: -c.size):
        least = loads.index(min(loads))
        owned[least].append(component)
        loads[least] += component.size
    whole = tuple(component for own in owned for component in own)
    ends = [0]
    for own in owned:
        ends.append(ends[-1] + len(own))
    cut = tuple(c for c in components if c.rows is not None)
    shares = _filled(loads, sum(c.size for c in cut))
    found = Section(cut, _cuts(cut, shares)), Section(whole, tuple((end, 0) for end in ends))
    return [section for section in found if section.components]


def _filled(loads: Sequence[int], amount: int) -> list[float]:
    """How much each gets of an amount so that all have as much as possible of the same."""
    level = 0.0
    for count in range(1, len(loads) + 1):
        lowest = sorted(loads)[:count]
        level = (sum(lowest) + amount) / count
        if count == len(loads) or level <= sorted(loads)[count]:
            break
    return [max(0.0, level - load) for load in loads]


def _cuts(components: Sequence[Component], shares: Sequence[float]) -> tuple[tuple[int, int], ...]:
    cuts = [(0, 0)]
    ends, total = [], 0
    for component in components:
        total += component.size
        ends.append(total)
    at = 0.0
    for share in shares[:-1]:
        at += share
        number = next((i for i, end in enumerate(ends) if at < end), len(components))
        row = 0
        if number < len(components):
            component = components[number]
            rows = component.rows or 1
            position = (at - (ends[number] - component.size)) / component.size * rows
            step = _row_step(component)
            row = min(round(position / step) * step, rows)
            if row == rows:
                number, row = number + 1, 0
        cuts.append(max((number, row), cuts[-1]))
    return (*cuts, (len(components), 0))


def _row_step(component: Component) -> int:
    """So many rows of float32 begin at a line of the cache."""
    each = component.size // (len(component.states) * (component.rows or 1))
    return 16 // math.gcd(16, max(1, each))
