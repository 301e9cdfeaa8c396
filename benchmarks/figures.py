"""Rows of one figure a side, such as seconds or megabytes: of which less is better."""

from __future__ import annotations

from dataclasses import dataclass, field

from benchmarks.sides import OURS, OWN


@dataclass(frozen=True)
class Figure:
    """What one number was on each side. `lacking` says which sides it has none of, and why;
    `others` are figures of the same sides that no target is set for."""

    part: str  # what `--only` takes
    subject: str
    what: str
    unit: str
    sides: dict[str, float]
    lacking: dict[str, str] = field(default_factory=dict)
    target: float | None = 1.0  # the least ratio of the best peer's to ours

    @property
    def key(self) -> str:
        """What a row of another run is compared by."""
        return f"{self.part} {self.subject}: {self.what}"

    @property
    def best(self) -> str | None:
        """The peer with the least, if there is any."""
        peers = {name: value for name, value in self.sides.items() if name not in OWN}
        return min(peers, key=lambda name: peers[name]) if peers else None

    @property
    def ratio(self) -> float | None:
        """The figure of the best peer by ours."""
        if self.best is None or not self.sides.get(OURS):
            return None
        return self.sides[self.best] / self.sides[OURS]

    @property
    def is_short(self) -> bool:
        """Whether the ratio is below its target."""
        return self.target is not None and self.ratio is not None and self.ratio < self.target
