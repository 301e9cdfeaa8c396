"""What a loss or rule adds up: terms that data are in, and a rest that is the same for all data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import sympy as sp

from nncompile.elementwise.map import body_of, is_plain
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.basic import Cast, SizeOf
from nncompile.ir.dims import Dim, symbols
from nncompile.ir.graph import Input, Item, between, toposort
from nncompile.ir.op import Value
from nncompile.ir.transform import dependent
from nncompile.ir.types import Type
from nncompile.ops.core.annotations import Annotation
from nncompile.ops.loops.scan import Scan
from nncompile.ops.reduction.sums import Sum
from nncompile.ops.reduction.totals import Average, SumState


class LinearTerms(NamedTuple):
    """A value as Σ a·x + b: `terms` are the x, values that data are in; no data are in a and b.
    `rest` is b, a formula of the values `known` by its symbols; 0 where there is none."""

    terms: list[Value]
    rest: sp.Expr
    known: dict[sp.Symbol, Value]

    @property
    def leaves_of_rest(self) -> list[Value]:
        """The inputs, parameters and states that the rest is computed of."""
        values = [self.known[x] for x in self.rest.free_symbols]
        return [v for v in toposort(values) if isinstance(v.op, Input)]

    def is_beside(self, path: str) -> bool:
        """Whether the rest is the parameter or state of that path, as it is."""
        v = self.known.get(self.rest)
        return v is not None and isinstance(v.op, Input) and v.op.name == path


def linear_terms(value: Value, examples: Dim | None) -> LinearTerms:
    """The terms of a value. A mean or a total is one; so is what is not linear in data. What has
    rows of `examples`, such as random numbers, are data, too."""
    data = _Data(examples)
    waiting, terms, linear = [value], dict[Value, None](), set[Value]()
    while waiting:
        v = waiting.pop()
        if v in data and (_is_total(v) or not _is_linear_in(v, data)):
            terms[v] = None
        elif v in data and v not in linear:
            linear.add(v)
            waiting += v.args
    known: dict[sp.Symbol, Value] = {}
    rests: dict[Value, sp.Expr] = dict.fromkeys(terms, sp.Integer(0))
    around = {a for v in linear for a in v.args if a not in linear}
    for v in between([value], around) if linear else ():
        if v in linear:
            rests[v] = _rest(v, [rests.get(a, _symbol(a, known)) for a in v.args], known)
    return LinearTerms(list(terms), rests.get(value, _symbol(value, known)), known)


def divisor_of_mean(v: Value) -> Dim | None:
    """The number of elements where the value is a sum divided by it, as `mean` makes it."""
    if not is_plain(v) or len(v.args) != 2:
        return None
    for i, (dividend, size) in enumerate((v.args, v.args[::-1])):
        if isinstance(dividend.op, Sum) and isinstance(size.op, SizeOf):
            quotient = placeholder(i) / placeholder(1 - i)
            return size.op.size if body_of(v) == quotient else None
    return None


def divides_by_data(term: Value, examples: Dim | None) -> bool:
    """Whether a number is computed of totals by a division by one that data are in."""
    if _is_total(term) or not is_plain(term) or term.rank:
        return False
    data = _Data(examples)
    names = [placeholder(i) for i, a in enumerate(term.args) if a in data]
    powers = body_of(term).atoms(sp.Pow)
    is_quotient = any(p.exp.is_negative and p.base.has(*names) for p in powers)
    return is_quotient or any(divides_by_data(a, examples) for a in term.args if a in data)


def is_data(v: Value) -> bool:
    """Whether the value is an input of data."""
    return isinstance(v.op, Input) and v.op.kind == "input"


def depending(order: Sequence[Value], is_so: Callable[[Value], bool]) -> set[Value]:
    """The nodes that are so, or depend on one that is."""
    found = list(filter(is_so, order))
    return dependent(order, found) if found else set()


class _Data:
    """The values that depend on data, or have rows of `examples`, or depend on what has. Most are
    found to be so by a few nodes; no node is looked at twice."""

    def __init__(self, examples: Dim | None) -> None:
        self._rows = _rows(examples)
        self._known: dict[Value, bool] = {}

    def __contains__(self, value: Value) -> bool:
        if not self._is_known(value):
            path = [(value, iter(value.args))]  # each is an argument of the one before it
            while path:
                v, args = path[-1]
                a = next(args, None)
                if a is None:
                    self._known[v] = False
                    path.pop()
                elif not self._is_known(a):
                    path.append((a, iter(a.args)))
                elif self._known[a]:
                    self._known.update((v, True) for v, _ in path)
                    break
        return self._known[value]

    def _is_known(self, v: Value) -> bool:
        if v not in self._known and (is_data(v) or _has(self._rows, v)):
            self._known[v] = True
        return v in self._known


def _rows(examples: Dim | None) -> set[sp.Symbol]:
    return symbols([] if examples is None else [examples])


def of_batch(order: Sequence[Value], examples: Dim | None) -> set[Value]:
    """The nodes that depend on data, or have as many rows and what depends on these."""
    rows = _rows(examples)
    found: set[Value] = set()
    for v in order:
        if not found.isdisjoint(v.args) or is_data(v) or _has(rows, v):
            found.add(v)
    return found


def _has(rows: set[sp.Symbol], v: Value) -> bool:
    """Whether such a size is in the shape of a value."""
    static = not rows or not isinstance(v.type, Type) or v.type.is_static
    return not static and rows <= symbols(v.shape)


def _is_total(v: Value) -> bool:
    return isinstance(v.op, Average | SumState) or divisor_of_mean(v) is not None


def _is_linear_in(v: Value, data: _Data) -> bool:
    """Whether the value is linear in those of its arguments."""
    if not isinstance(v.type, Type) or not v.dtype.is_float:
        return False
    if not is_plain(v):
        is_moved = v.op.moves and not isinstance(v.op, Scan | Input | Item)
        return is_moved and v.args[0].dtype.is_float and not any(a in data for a in v.args[1:])
    names = [placeholder(i) for i, a in enumerate(v.args) if a in data]
    body = body_of(v)
    return bool(body.is_polynomial(*names)) and sp.Poly(body, *names).total_degree() <= 1


def _rest(v: Value, rests: Sequence[sp.Expr], known: dict[sp.Symbol, Value]) -> sp.Expr:
    """What a linear value is without its terms, where its arguments are `rests`."""
    if is_plain(v):
        inner = {placeholder(i): x for i, x in enumerate(rests)}
        return sp.expand(body_of(v).xreplace(inner))
    is_same = isinstance(v.op, Cast | Annotation) or not rests[0]
    return rests[0] if is_same else _symbol(v, known)


def _symbol(v: Value, known: dict[sp.Symbol, Value]) -> sp.Symbol:
    symbol = sp.Symbol(f"v{id(v)}")
    known[symbol] = v
    return symbol
