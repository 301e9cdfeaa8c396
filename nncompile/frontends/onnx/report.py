"""What was made of a file: which of its tensors are trained, and what was assumed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class ImportReport:
    """What an import did. `trained` and `states` are types by path; `constants` the float tensors
    of several numbers that stay as they are, with the reason; `ties` are the tensors of the file
    that are one parameter; `renames` says what a tensor of the file is called here; `operators`
    counts the nodes of the file."""

    file: str
    producer: str
    opset: int
    nodes: int
    values: int
    trained: Mapping[str, str] = field(default_factory=dict)
    states: Mapping[str, str] = field(default_factory=dict)
    constants: Mapping[str, str] = field(default_factory=dict)
    ties: Mapping[str, Sequence[str]] = field(default_factory=dict)
    assumptions: Sequence[str] = ()
    renames: Mapping[str, str] = field(default_factory=dict)
    operators: Mapping[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.text()

    def text(self, most: int | None = None) -> str:
        """The report, with at most so many lines of each part."""
        by = f" by {self.producer}" if self.producer else ""
        head = f"{self.file}: {self.nodes:,} nodes of opset {self.opset}{by}"
        lines = [f"{head}, {self.values:,} here"]
        for title, rows in (
            ("trained", self.trained),
            ("states", self.states),
            ("constant", self.constants),
            ("ties", {path: " = ".join(names) for path, names in self.ties.items()}),
            ("renamed", {new: f"was {old}" for new, old in self.renames.items()}),
        ):
            if rows:
                width = max(map(len, rows))
                lines.append(f"{title} ({len(rows)}):")
                shown = [f"  {name:<{width}}  {text}".rstrip() for name, text in rows.items()]
                lines += _first(shown, most)
        if self.assumptions:
            lines.append(f"assumed ({len(self.assumptions)}):")
            lines += _first([f"  {text}" for text in self.assumptions], most)
        return "\n".join(lines)


def _first(lines: list[str], most: int | None) -> list[str]:
    """The first lines, and how many there are beside them."""
    if most is None or len(lines) <= most:
        return lines
    return [*lines[:most], f"  ... {len(lines) - most:,} more"]
