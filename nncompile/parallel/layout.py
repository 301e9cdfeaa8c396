"""Where the tensors of a section lie in a vector of which each process owns a part."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nncompile.program.update_sections import Component, Section


@dataclass
class Layout:
    """Those of the tensors of a section that `lengths` names, one after the other, each beginning
    at a multiple of `line`. `starts` are their places, `count` is the length of the vector, and
    `bounds` are where the parts of the processes begin, and the end."""

    section: Section
    lengths: Mapping[str, int]
    line: int
    starts: dict[str, int] = field(init=False, default_factory=dict)
    count: int = field(init=False, default=0)
    bounds: list[int] = field(init=False)

    def __post_init__(self) -> None:
        begins = []
        for component in self.section.components:
            begins.append(self.count)
            for name in self._names(component):
                self.starts[name] = self.count
                self.count += -(-self.lengths[name] // self.line) * self.line
        begins.append(self.count)
        self.bounds = [begins[i] + self._before(i, row) for i, row in self.section.cuts]

    def _names(self, component: Component) -> list[str]:
        return [n for n in (*component.handed, *component.states) if n in self.lengths]

    def _before(self, number: int, row: int) -> int:
        """How far from the beginning of a component a row of it is."""
        if not row:
            return 0
        component = self.section.components[number]
        return sum(self.lengths[n] // (component.rows or 1) * row for n in self._names(component))
