"""What was found: a table of errors, and what mismatches where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from nncompile.diagnostics.tables import columns
from nncompile.ir.types import Array
from nncompile.verify.error_bound import Difference
from nncompile.verify.finite_differences import GRADIENT_TOLERANCE
from nncompile.verify.inputs import Case
from nncompile.verify.locate import Place
from nncompile.verify.rounding import ROUNDINGS

COLUMNS = ("forward", "gradients", "ten steps")
VERBS = dict(
    zip(COLUMNS, ("forward mismatches", "gradients mismatch", "ten steps mismatch"), strict=True)
)
NONE = "–"
PASSES, FLOAT32, DIFFERENCES = "numpy float64, after the passes", "numpy float32", "differences"


@dataclass
class Cell:
    """What one way to compute differs by in one column, over all outputs and inputs.

    `units` is the largest error in units of float32's rounding, 2⁻²³ of the largest element of
    the tensor; `ratio` the largest part of what is allowed. Where rounding alone may move a tensor
    by a tenth of itself, its error is held to the bound, but not shown.
    """

    units: float = 0.0
    ratio: float = 0.0
    count: int = 0
    note: str = ""

    def add(self, difference: Difference) -> None:
        """Takes one output into account."""
        self.count += 1
        self.ratio = max(self.ratio, difference.ratio)
        if difference.is_decided or difference.mismatches:
            self.units = max(self.units, difference.units)

    def __str__(self) -> str:
        if self.note or not self.count:
            return self.note or NONE
        return f"{figure(self.units)} ε  {'MISMATCH' if self.ratio > 1 else 'ok'}"


@dataclass
class Fault:
    """Where one or several ways to compute mismatch: in which column, on which inputs, at which
    output (`difference`), and the first node (`place`) where one was found. `feeds` are the
    arrays that it was found with, by the names of leaves; `message` is the error of a backend
    that could not compute it."""

    backends: list[str]
    column: str
    case: Case | None
    difference: Difference | None = None
    place: Place | None = None
    feeds: Mapping[str, Array] = field(default_factory=dict)
    message: str = ""

    def lines(self) -> list[str]:
        """The fault as it is printed."""
        rows: list[tuple[str, ...]] = []
        output = self.difference.output if self.difference else ""
        title = f"{counted(self.backends)}: {VERBS[self.column]}"
        if self.message:
            rows.append(("says", self.message))
        place = self.place
        if place is not None:
            rows.append(("first at", f"{place.node}  : {place.type}"))
            if place.location is not None:
                rows += [("", str(place.location)), ("", place.location.text)]
            if place.remark:
                rows.append(("", place.remark))
        elif self.difference is not None and not self.message:
            rows.append(
                ("first at", "no single node: each computes what numpy computes from its arguments")
            )
        shown = place.difference if place is not None and place.difference else self.difference
        if shown is not None:
            index = f" at {list(shown.index)}" if shown.index else ""
            rows.append(("expected", f"{_element(shown.expected)}{index}"))
            rows.append(("got", _element(shown.got)))
            rows.append(("error", f"{figure(shown.units)} ε, {figure(shown.allowed)} are allowed"))
        if output:
            rows.append(("seen in", output))
        if self.case is not None:
            rows.append(("inputs", str(self.case)))
        return [title, *("  " + line for line in columns([r for r in rows if any(r)]).split("\n"))]


@dataclass(frozen=True)
class Gradients:
    """What is found of the gradients of one loss, on the inputs `case`: the largest relative
    `error` over `count` leaves, at the leaf `where` (None where nothing could be compared); the
    `place` of the first node whose pullback is wrong; lines of what was `skipped`, of gradients
    that are `lost`, not finite where the loss is, and of declared ones, `unchecked`."""

    case: Case
    count: int = 0
    error: float | None = None
    where: str = ""
    place: Place | None = None
    skipped: str = ""
    lost: str = ""
    unchecked: tuple[str, ...] = ()

    @property
    def mismatches(self) -> bool:
        """Whether a gradient is not a derivative."""
        return self.place is not None or (
            self.error is not None and not self.error <= GRADIENT_TOLERANCE
        )

    def fault(self, loss: str) -> Fault | None:
        """The gradient of `loss` that is not a derivative; None where all are."""
        if not self.mismatches:
            return None
        message = (
            f"the gradient of {loss} at {self.where} is not a derivative" if self.where else ""
        )
        column = COLUMNS[1]
        return Fault([DIFFERENCES], column, self.case, None, self.place, self.case.feeds, message)


@dataclass
class Report:
    """The table of a verification. `agrees` says whether every way to compute agrees with numpy
    in float64; `faults` are those that do not, `gradients` the results for each loss,
    `skipped` what was not run and why, `unchecked` what nothing can be compared with."""

    name: str
    rows: dict[str, dict[str, Cell]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    gradients: dict[str, Gradients] = field(default_factory=dict)
    cases: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    undecided: int = 0
    compared: int = 0
    seconds: float = 0.0
    options: str = ""  # that give the same inputs again

    @property
    def agrees(self) -> bool:
        """Whether no backend differs."""
        return not self.faults

    def cell(self, row: str, column: str) -> Cell:
        """The entry of a row and a column."""
        return self.rows.setdefault(row, {}).setdefault(column, Cell())

    def described(self) -> dict[str, Any]:
        """The table, in units of float32's rounding, and the faults, by name."""
        return {
            "agrees": self.agrees,
            "errors": {
                row: {column: cell.units for column, cell in cells.items() if cell.count}
                for row, cells in self.rows.items()
            },
            "faults": [
                {
                    "backends": fault.backends,
                    "column": fault.column,
                    "place": None if fault.place is None else str(fault.place),
                    "text": "\n".join(fault.lines()),
                }
                for fault in self.faults
            ],
            "skipped": self.skipped,
            "unchecked": self.unchecked,
            "compared": self.compared,
            "seconds": self.seconds,
        }

    def text(self, file: str = "FILE.py") -> str:
        """The table, what was skipped, and the faults."""
        head = ("", *COLUMNS)
        body = [
            (name, *(str(cells.get(column, Cell())) for column in COLUMNS))
            for name, cells in self.rows.items()
        ]
        lines = [
            f"{self.name}: largest error against numpy in float64, "
            "in units of float32's rounding (ε)",
            "",
            columns([head, *body], (1, 2, 3)),
            "",
            f"{len(self.cases)} sets of inputs, {self.compared:,} tensors compared, "
            f"in {self.seconds:.1f} s; allowed is what {ROUNDINGS} roundings at every node do",
        ]
        if self.undecided:
            lines.append(
                f"{self.undecided:,} of the tensors are inconclusive: "
                "rounding alone may change them by a tenth"
            )
        lines += [f"skipped: {text}" for text in self.skipped]
        lines += [f"not checked: {text}" for text in dict.fromkeys(self.unchecked)]
        for fault in self.faults:
            lines += ["", *fault.lines()]
        if self.agrees:
            lines.append("all agree")
        else:
            command = f"nncompile verify {file} {self.options}"
            lines += ["", f"the same again: {command}; the arrays: report.faults[0].feeds"]
        return "\n".join(lines)

    def __str__(self) -> str:
        return self.text()


def counted(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def figure(x: float) -> str:
    """A number of roundings as it is printed."""
    if not np.isfinite(x):
        return "∞"
    return f"{x:.2g}" if x < 10 else f"{x:,.0f}" if x < 1e5 else f"{x:.1e}"


def _element(x: object) -> str:
    return f"{float(x):.9g}" if isinstance(x, np.floating) else str(x)
