"""What a rewriting may ask of the graph around a node, and what it asked."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from dataclasses import dataclass, field

from nncompile.ir.data_sizes import makers_of
from nncompile.ir.dims import Dim
from nncompile.ir.op import Value


@dataclass
class Surroundings:
    """How often each value of a graph is needed; and of which that was `asked`, with the answers,
    and whether anything else was."""

    uses: dict[Value, int]
    asked: dict[Value, int] = field(default_factory=dict)
    asked_else: bool = False


surroundings: ContextVar[Surroundings] = ContextVar("surroundings", default=Surroundings({}))  # noqa: B039


def uses(value: Value) -> int:
    """How many nodes and outputs of the graph that is being rewritten need the value."""
    around = surroundings.get()
    count = around.asked[value] = around.uses.get(value, 1)
    return count


def present(value: Value) -> bool:
    """Whether the graph that is being rewritten has the value."""
    around = surroundings.get()
    around.asked_else = True
    return value in around.uses


def made_by(sizes: Iterable[Dim]) -> list[Value]:
    """The nodes of the graph that is being rewritten which make sizes that depend on data."""
    surroundings.get().asked_else = True
    return makers_of(sizes)
