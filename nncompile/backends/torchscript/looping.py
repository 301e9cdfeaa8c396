"""Loops in TorchScript source: what is written before, in and behind a `for`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from nncompile.backends.torchscript.writing import Closing, Opening, Statement, Variable, token
from nncompile.ir.dims import Dim
from nncompile.ir.emitters import TorchEmitter
from nncompile.ir.graph import toposort
from nncompile.ir.op import Value
from nncompile.ir.types import Type


class Writer(TorchEmitter, Protocol):
    """What a loop needs of an emitter: it writes statements round those of the body."""

    statements: list[Statement]
    depth: int

    def within(self) -> Writer: ...
    def node(self, value: Value, args: Sequence[Any]) -> Any: ...


class Loop:
    """A `for` over `length` places in time, from the last if `reverse`, whose variables `carried`
    start at `initial`. Its body is written by `row` and `lower`, and ended by `finished`."""

    def __init__(self, outer: Writer, length: Dim, initial: Sequence[str], reverse: bool) -> None:
        self.outer, self.inner = outer, outer.within()
        self.reverse = reverse
        count = outer.dim(length)
        steps = f"{count} - 1, -1, -1" if reverse else count
        self.opening = Opening(f"range({steps})", False, "time", initial=list(initial))
        self._add(self.opening)
        self.opening.time = self._variable("time")
        self.carried = [self._variable("carry") for _ in initial]
        self.opening.variables = list(self.carried)

    def _add(self, statement: Statement) -> str:
        statement.depth = self.outer.depth
        self.outer.statements.append(statement)
        return token(len(self.outer.statements) - 1)

    def _variable(self, hint: str) -> str:
        return self._add(Variable("", False, hint))

    def row(self, x: str) -> str:
        """The row of a sequence at that place."""
        return self.inner.emit(f"{x}[{self.opening.time}]", "row")

    def lower(self, known: Mapping[Value, Any], results: Sequence[Value]) -> list[Any]:
        """The results of the body, where those of its leaves are known."""
        found = dict(known)
        for v in toposort(results):
            if v not in found:
                found[v] = self.inner.node(v, [found[a] for a in v.args])
        return [found[v] for v in results]

    def finished(
        self, following: Sequence[str], rows: Sequence[str], types: Sequence[Type]
    ) -> tuple[str, ...]:
        """The variables after the loop, and the stacks of rows of the given types."""
        lists = [self._variable("rows") for _ in rows]
        self.opening.lists = lists
        self._ended(following, rows)
        stacks = [self._stack(x, t) for x, t in zip(lists, types, strict=True)]
        return (*self.carried, *stacks)

    def _ended(self, following: Sequence[str], rows: Sequence[str]) -> None:
        """Writes the end of the body."""
        closing = Closing(
            ", ".join((*following, *rows)),
            False,
            "",
            opening=self.opening,
            following=list(following),
            rows=list(rows),
        )
        self._add(closing)
        closing.depth = self.inner.depth

    def _stack(self, rows: str, type_: Type) -> str:
        t = self.outer
        stack = f"torch.stack({rows})"
        if self.reverse:
            stack = f"torch.flip({stack}, [0])"
        shape = t.shape((0, *type_.shape))
        empty = f"torch.zeros({shape}, dtype={t.dtype(type_.dtype)}, device={t.device})"
        return t.emit(f"({stack} if len({rows}) > 0 else {empty})", "stack")


class Scanning(Loop):
    """A loop as a call of `torch._higher_order_ops.scan`, whose body is a function within the
    function; it has one iteration or more."""

    def __init__(self, outer: Writer, length: Dim, initial: Sequence[str], reverse: bool) -> None:
        self.outer, self.inner = outer, outer.within()
        self.reverse = reverse
        # torch's scan carries something in any case.
        start = list(initial) or [outer.call("torch.zeros", [])]
        self.opening = Opening(str(reverse), False, "body", initial=start, scans=True)
        self._add(self.opening)
        self.opening.time = self._variable("body")
        self.opening.variables = [self._inside("carry") for _ in start]
        self.carried = self.opening.variables[: len(initial)]

    def _inside(self, hint: str) -> str:
        name = self._variable(hint)
        self.outer.statements[-1].depth = self.inner.depth
        return name

    def row(self, x: str) -> str:
        if x not in self.opening.rows:
            self.opening.rows.append(x)
            self.opening.taken.append(self._inside("row"))
        return self.opening.taken[self.opening.rows.index(x)]

    def finished(
        self, following: Sequence[str], rows: Sequence[str], types: Sequence[Type]
    ) -> tuple[str, ...]:
        self.opening.last = [self._variable("carry") for _ in self.opening.variables]
        self.opening.lists = [self._variable("rows") for _ in rows]
        self._ended(following or self.opening.variables, rows)
        return (*self.opening.last[: len(following)], *self.opening.lists)
