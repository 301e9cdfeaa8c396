"""Two runs side by side: how much faster or slower each row of ours became, and what of it is
noise."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.table import Table

from benchmarks.figures import Figure
from benchmarks.rows import Row
from benchmarks.sides import OURS, OWN
from benchmarks.tables import table_with

FIGURE_NOISE = 0.1  # of what is measured once


@dataclass(frozen=True)
class Change:
    """One row of two runs, in milliseconds or whatever its unit is. `machine` is the ratio now by
    then of the peers of both runs, their median: what the machine itself changed."""

    key: str
    now: float
    then: float
    machine: float | None
    noise: float

    @property
    def ratio(self) -> float:
        """Our figure now by that of then: below 1 is better."""
        return self.now / self.then

    @property
    def verdict(self) -> str:
        """Better or worse; noise where the change is within that of the rows, or within it when
        the peers' own change is taken out."""
        beside = self.ratio / self.machine if self.machine else self.ratio
        if any(1 - self.noise <= ratio <= 1 + self.noise for ratio in (self.ratio, beside)):
            return "noise"
        if (self.ratio < 1) != (beside < 1):
            return "noise"  # ours and the peers' changed alike
        return "better" if self.ratio < 1 else "worse"


def changes(
    now: Sequence[Row | Figure], then: Sequence[Row | Figure]
) -> tuple[list[Change], list[str]]:
    """The rows of both runs, and the keys of those that only one has."""
    before = {row.key: row for row in then}
    after = {row.key: row for row in now}
    found = [
        change
        for key, row in after.items()
        if key in before and (change := _change(row, before[key])) is not None
    ]
    return found, sorted(before.keys() ^ after.keys())


def _change(now: Row | Figure, then: Row | Figure) -> Change | None:
    a, b = _values(now), _values(then)
    if not a.get(OURS) or not b.get(OURS):
        return None
    peers = [a[p] / b[p] for p in a if p in b and p not in OWN and b[p]]
    machine = statistics.median(peers) if peers else None
    return Change(now.key, a[OURS], b[OURS], machine, max(_noise(now), _noise(then)))


def _values(row: Row | Figure) -> Mapping[str, float]:
    if isinstance(row, Figure):
        return row.sides
    return {name: side.milliseconds for name, side in row.sides.items()}


def _noise(row: Row | Figure) -> float:
    return FIGURE_NOISE if isinstance(row, Figure) else row.noise


def table_of(found: Sequence[Change]) -> Table:
    """The rows, in their order."""
    title = "Now by then: below 1 is better; `peers` is how much the machine itself changed"
    table = table_with(title, ["row"], ("then", "now", "now/then", "peers", "noise", ""))
    for c in found:
        machine = "–" if c.machine is None else f"{c.machine:.2f}"
        figures = (f"{c.then:.3f}", f"{c.now:.3f}", f"{c.ratio:.2f}", machine)
        table.add_row(c.key, *figures, f"±{100 * c.noise:.0f} %", c.verdict)
    return table
