"""Loops in TorchScript source: what is written before, in and behind a `for`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from nncompile.backends.torchscript.writing import Block, Group, Line, Statement
from nncompile.ir.dims import Dim
from nncompile.ir.emitters import TorchEmitter
from nncompile.ir.graph import toposort
from nncompile.ir.op import Value
from nncompile.ir.types import Type


class Writer(TorchEmitter, Protocol):
    """What a loop needs of an emitter: it writes statements round those of the body."""

    statements: list[Statement]

    def within(self) -> Writer: ...
    def variable(self, hint: str) -> str: ...
    def node(self, value: Value, args: Sequence[Any]) -> Any: ...


class Loop:
    """A `for` over `length` places in time, from the last if `reverse`, whose variables `carried`
    start at `initial`. Its body is written by `row` and `lower`, and ended by `finished`."""

    def __init__(self, outer: Writer, length: Dim, initial: Sequence[str], reverse: bool) -> None:
        self.outer, self.reverse, self.initial = outer, reverse, list(initial)
        count = outer.dim(length)
        self.places = f"range({count} - 1, -1, -1)" if reverse else f"range({count})"
        self.inner = outer.within()
        self.time = outer.variable("time")
        self.carried = [outer.variable("carry") for _ in initial]

    def row(self, x: str) -> str:
        """The row of a sequence at that place."""
        return self.inner.emit(f"{x}[{self.time}]", "row")

    def lower(self, leaves: Mapping[Value, Any], results: Sequence[Value]) -> list[Any]:
        """The texts of the results of the body, from those of its leaves."""
        texts = dict(leaves)
        for v in toposort(results):
            if v not in texts:
                texts[v] = self.inner.node(v, [texts[a] for a in v.args])
        return [texts[v] for v in results]

    def finished(
        self, following: Sequence[str], rows: Sequence[str], types: Sequence[Type]
    ) -> tuple[str, ...]:
        """The variables after the loop, and the stacks of rows of the given types."""
        lists = [self.outer.variable("rows") for _ in rows]
        variables = [*self.carried, *lists]
        starts = [*self.initial, *("[]" for _ in rows)]
        body = [*self.inner.statements]
        body += [Line(f"{x}.append({row})") for x, row in zip(lists, rows, strict=True)]
        if following:  # all at once: one may need what another was
            body.append(Line(f"{', '.join(self.carried)} = {', '.join(following)}"))
        loop = Block(f"for {self.time} in {self.places}: ...", body, repeated=True)
        first = [Line(f"{x} = {start}") for x, start in zip(variables, starts, strict=True)]
        self.outer.statements.append(Group(variables, [*first, loop]))
        stacks = [self._stack(x, t) for x, t in zip(lists, types, strict=True)]
        return (*self.carried, *stacks)

    def _stack(self, rows: str, type_: Type) -> str:
        t = self.outer
        stack = f"torch.stack({rows})"
        if self.reverse:
            stack = f"torch.flip({stack}, [0])"
        shape = t.shape((0, *type_.shape))
        empty = f"torch.zeros({shape}, dtype={t.dtype(type_.dtype)}, device={t.device})"
        return t.emit(f"{stack} if len({rows}) > 0 else {empty}", "stack")


class Scanning(Loop):
    """A loop as a call of `torch._higher_order_ops.scan`, whose body is a function within the
    function; it has one iteration or more."""

    def __init__(self, outer: Writer, length: Dim, initial: Sequence[str], reverse: bool) -> None:
        # torch's scan carries something in any case.
        self.initial = list(initial) or [outer.call("torch.zeros", [])]
        self.outer, self.inner, self.reverse = outer, outer.within(), reverse
        self.variables = [self.inner.variable("carry") for _ in self.initial]
        self.carried = self.variables[: len(initial)]
        self.row_names: dict[str, str] = {}  # by sequence

    def row(self, x: str) -> str:
        if x not in self.row_names:
            self.row_names[x] = self.inner.variable("row")
        return self.row_names[x]

    def finished(
        self, following: Sequence[str], rows: Sequence[str], types: Sequence[Type]
    ) -> tuple[str, ...]:
        function = self.outer.variable("body")
        last = [self.outer.variable("carry") for _ in self.variables]
        lists = [self.outer.variable("rows") for _ in rows]
        named = (("carried", self.variables), ("rows", [*self.row_names.values()]))
        first = [Line(f"[{', '.join(xs)}] = {source}") for source, xs in named if xs]
        returned = Line(f"return {_copies(following or self.variables)}, {_copies(rows)}")
        head = f"def {function}(carried: List[Tensor], rows: List[Tensor]): ..."
        body = Block(head, [*first, *self.inner.statements, returned], repeated=True)
        call = Line(
            f"[{', '.join(last)}], [{', '.join(lists)}] = scan({function}, "
            f"{_copies(self.initial)}, [{', '.join(self.row_names)}], reverse={self.reverse})"
        )
        self.outer.statements.append(Group([*last, *lists], [body, call]))
        return (*last[: len(following)], *lists)


def _copies(texts: Iterable[str]) -> str:
    """A list of what goes into torch's scan or comes out of it, which must not share memory."""
    own = "clone(memory_format=torch.contiguous_format)"
    return f"[{', '.join(f'({x}).{own}' for x in texts)}]"
