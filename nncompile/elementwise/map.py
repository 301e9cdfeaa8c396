"""`Map`: every elementwise op is this one, with a sympy expression as payload.

Its gradient is the derivative of the expression, its numpy meaning and its lowerings are walks
over it, and its print-out is mathematics.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import Any

import numpy as np
import sympy as sp

from nncompile.elementwise.derivative import differentiate, may_be_infinite, times
from nncompile.elementwise.expressions import digest, symbols_of
from nncompile.elementwise.lowering import dtype_of_expression
from nncompile.elementwise.numpy_target import evaluate
from nncompile.elementwise.printing import text
from nncompile.elementwise.samples import examples
from nncompile.elementwise.sympy_functions import TARGETS, cast, placeholder, where
from nncompile.ir.basic import const
from nncompile.ir.broadcasting import broadcast_to, unbroadcast
from nncompile.ir.dims import Dim, broadcast, is_one
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.lazy import lazy
from nncompile.ir.op import Backward, Mask, Op, Sample, Value, apply
from nncompile.ir.types import DType, Type

MaskOf = Callable[[Value], Mask | None]
_digest_of = attrgetter("digest")


class Map(Op):
    """`body` of `count` arguments, elementwise with broadcasting.

    `derivatives` declares derivatives (one an argument) in place of those of `body`.
    """

    body: sp.Expr
    count: int
    derivatives: tuple[sp.Expr, ...] | None = None

    label = "elementwise"

    @lazy
    def is_identity(self) -> bool:
        """Whether it gives its argument."""
        return not self.derivatives and self.body == placeholder(0)

    @lazy
    def has_all(self) -> bool:
        """Whether its type follows from its body: that has all arguments, or they are declared."""
        return bool(self.derivatives) or len(symbols_of(self.body)) == self.count

    @lazy
    def digest(self) -> bytes:
        parts = b"".join(map(digest, (self.body, *(self.derivatives or ()))))
        return hashlib.blake2b(b"map" + parts, digest_size=8).digest()

    def rebuild(self, *args: Value) -> Value:
        return mapped(self.body, args, self.derivatives)

    def ordered(self, args: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]] | None:
        if len(args) == 1:
            return self, args
        digests = [a.digest for a in args]
        if len(set(digests)) < len(args):
            return None
        if sorted(digests) == digests:
            return self, args
        arranged = tuple(sorted(args, key=_digest_of))
        index = {a: j for j, a in enumerate(arranged)}
        return _canonical(self.body, self.derivatives, tuple(index[a] for a in args)), arranged

    def at(self, sizes: Mapping[sp.Symbol, Dim]) -> Map:
        return self  # the names in a body are its arguments, not sizes

    def converting_to(self, change: Mapping[DType, DType]) -> Map:
        targets = tuple(change.items())
        body = _converting_to(self.body, targets)
        derivatives = self.derivatives and tuple(
            _converting_to(derivative, targets) for derivative in self.derivatives
        )
        same = body == self.body and derivatives == self.derivatives
        return self if same else dataclasses.replace(self, body=body, derivatives=derivatives)

    def expression(self, operands: Sequence[str]) -> str:
        return text(self.body, operands)

    def infer(self, *arguments: Type) -> Type:
        dtypes = {placeholder(i): t.dtype for i, t in enumerate(arguments)}
        return Type(
            dtype_of_expression(self.body, dtypes),
            broadcast(*[t.shape for t in arguments]),
        )

    def pullback(self, g: Value, y: Value, *args: Value) -> Sequence[Value | None]:
        return self._cotangents(g, y, lambda _: None)

    def pullback_by(self, backward: Backward, g: Value, y: Value) -> Sequence[Value | None]:
        return self._cotangents(g, y, backward.mask_of)

    def _cotangents(self, g: Value, y: Value, mask_of: MaskOf) -> Sequence[Value | None]:
        if not y.dtype.is_float:
            return [None] * len(y.args)
        return [self._cotangent(i, g, y.args, mask_of) for i in range(self.count)]

    def _cotangent(
        self, i: int, g: Value, args: tuple[Value, ...], mask_of: MaskOf
    ) -> Value | None:
        x = args[i]
        if not x.dtype.is_float:
            return None
        derivative = self.derivatives[i] if self.derivatives else _derivative(self.body, i)
        if derivative == 0:
            return None
        above = placeholder(self.count)
        mask = mask_of(g) if may_be_infinite(derivative) else None
        if mask is None:
            product = mapped(times(above, derivative), (*args, g))
        else:
            first = self.count + 1
            renamed = {placeholder(j): placeholder(first + j) for j in range(len(mask.args))}
            condition = mask.condition.xreplace(renamed)
            body = where(condition, times(above, derivative), sp.Integer(0))
            product = mapped(body, (*args, mask.inside, *mask.args))
        if product.dtype is not x.dtype:
            product = product.astype(x.dtype)
        return unbroadcast(product, x)

    def rowwise(self, row_axes: Sequence[int | None], *types: Type) -> int | None:
        from_end = {p - t.rank for p, t in zip(row_axes, types, strict=True) if p is not None}
        if len(from_end) != 1:
            return None
        (axis,) = from_end
        shared = (t for p, t in zip(row_axes, types, strict=True) if p is None)
        if any(t.rank >= -axis and not is_one(t.shape[axis]) for t in shared):
            return None
        return axis + max(t.rank for t in types)

    def numpy(self, *arrays: np.ndarray) -> np.ndarray:
        values = {placeholder(i): a for i, a in enumerate(arrays)}
        return evaluate(self.body, values)

    def onnx(self, o: OnnxEmitter, *args: str) -> str:
        return o.formula(self.body, args)

    def torch(self, t: TorchEmitter, *args: str) -> str:
        return t.formula(self.body, args)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        shapes: tuple[tuple[Any, ...], ...] = (("n", 3), (3,), ("n", 1))  # they broadcast
        for example in examples():
            types = tuple(d[s] for d, s in zip(example.dtypes, shapes, strict=False))
            op = cls(example.body, len(types))
            yield Sample(op, types, example.integers, example.floats, order=example.order)


@functools.lru_cache(maxsize=4096)
def _converting_to(body: sp.Expr, change: tuple[tuple[DType, DType], ...]) -> sp.Expr:
    """A formula with conversions to other element types."""
    targets = dict(change)
    if not body.has(*(head for head, to in TARGETS.items() if to in targets)):
        return body
    return body.replace(
        lambda x: TARGETS.get(type(x)) in targets,
        lambda x: cast(x.args[0], targets[TARGETS[type(x)]]),
    )


@functools.lru_cache(maxsize=4096)
def _derivative(body: sp.Expr, i: int) -> sp.Expr:
    return differentiate(body, placeholder(i))


@functools.lru_cache(maxsize=4096)
def _canonical(
    body: sp.Expr, derivatives: tuple[sp.Expr, ...] | None, order: tuple[int, ...]
) -> Map:
    """The Map of `body` with argument `i` renamed to `order[i]`, without those that go to -1."""
    pairs = [(i, j) for i, j in enumerate(order) if j >= 0]
    renamed = {placeholder(i): placeholder(j) for i, j in pairs if i != j}
    count = max(order, default=-1) + 1
    if not renamed and len(pairs) == len(order):
        return Map(body, count, derivatives)
    if derivatives is not None:
        by_index: dict[int, sp.Expr] = {}
        for i, j in pairs:
            by_index[j] = by_index.get(j, sp.Integer(0)) + derivatives[i].xreplace(renamed)
        derivatives = tuple(by_index[j] for j in range(count))
    return Map(body.xreplace(renamed), count, derivatives)


def mapped(
    body: sp.Expr, args: Sequence[Value], derivatives: tuple[sp.Expr, ...] | None = None
) -> Value:
    """The Map of `body` over `args`, in canonical form: no argument twice or unused, and all in
    one order, so that `b + a` is `a + b`."""
    used = symbols_of(body)
    if derivatives:
        used = used.union(*map(symbols_of, derivatives))
    distinct = dict.fromkeys(args)
    if len(used) < len(args):
        distinct = {a: None for i, a in enumerate(args) if placeholder(i) in used}
    ordered = sorted(distinct, key=_digest_of)
    index = {a: j for j, a in enumerate(ordered)}
    op = _canonical(body, derivatives, tuple([index.get(a, -1) for a in args]))
    if op.is_identity:
        return ordered[0]
    if op.has_all:
        return apply(op, *ordered)
    # Equal arguments cancelled out, as in x − x: what is left, in the type and shape of all.
    dtype = dtype_of_expression(body, {placeholder(i): a.dtype for i, a in enumerate(args)})
    if symbols_of(op.body):
        left = mapped(op.body, ordered).astype(dtype)
    else:
        left = const(evaluate(op.body, {}, dtype), dtype)
    shape = broadcast(*(a.shape for a in ordered))
    return broadcast_to(left, shape)


def is_plain(value: Value) -> bool:
    """Whether the value is a Map whose derivatives are those of its body."""
    return isinstance(value.op, Map) and value.op.derivatives is None


def body_of(value: Value) -> sp.Expr:
    """The formula of a Map."""
    assert isinstance(value.op, Map)
    return value.op.body


def over(body: sp.Expr, args: Sequence[Value], like: Value) -> Value | None:
    """The Map of `body`, where it still has the type of `like`: an argument that cancelled out may
    have given it its shape or element type."""
    if not any(body.has(placeholder(i)) for i in range(len(args))):
        return None
    result = mapped(body, args)
    return result if result.type == like.type else None
