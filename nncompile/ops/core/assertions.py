"""What a model claims of its data: sizes that are limited, and numbers that lie in a range.

A claim is the value itself. That it holds is checked on the data that are fed, before anything
runs; see `nncompile.program.shape_check` and `nncompile.train.indices`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Any

from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError
from nncompile.ir.basic import Constant
from nncompile.ir.dims import Dim, dim, same, symbol
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, Type, f32, f64, i32, i64
from nncompile.ops.core.annotations import Annotation

LENGTHS = "a length counts the valid elements of a row: np.clip(lengths, {low}, {high})"
"""The hint about lengths out of range."""


class AssertAtMost(Annotation):
    """x itself; `size` is `limit` at most. `claim` and `hint` may contain {size}, {limit}
    and {x}, the type of x."""

    size: Dim
    limit: Dim
    claim: str = field(repr=False)
    hint: str = field(default="", repr=False)

    def infer(self, x: Type) -> Type:
        fields = {"size": self.size, "limit": self.limit, "x": x}
        if isinstance(self.size, int) and isinstance(self.limit, int) and self.size > self.limit:
            hint = self.hint.format(**fields) or None
            raise ShapeError(self.claim.format(**fields), hint=hint)
        return x

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(symbol("n"), 8, "{size} rows are more than {limit}"), (f32["n", 3],))
        yield Sample(cls(3, 3, "{x}", "{limit}"), (f64[3],))


class AssertEqualSizes(Op):
    """x itself, whose size along `axis` is that of `other` along `other_axis`, by the same name.
    Our own runners look at what is fed; other runtimes do not compare sizes of one name, and a
    reshape to the size of `other` fails there, in a node that is called after `claim`."""

    axis: int
    other_axis: int
    claim: str = field(repr=False)
    moves = True

    @property
    def label(self) -> str:
        """The claim, as nodes are called."""
        return re.sub(r"\W+", "_", self.claim).strip("_")

    def infer(self, x: Type, other: Type) -> Type:
        sizes = x.shape[self.axis], other.shape[self.other_axis]
        if same(*sizes) is False:
            raise ShapeError(f"{self.claim}: {sizes[0]} is not {sizes[1]}")
        return x

    def pullback(self, g: Value, y: Value, x: Value, other: Value) -> Sequence[Value | None]:
        return (g if y.dtype.is_float else None), None

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        return row_axes[0]  # the other has no part in the value

    def numpy(self, x: Array, other: Array) -> Array:
        return x

    def onnx(self, o: OnnxEmitter, x: str, other: str) -> str:
        rank = o.types[0].rank
        sizes = [o.Shape(other, start=self.other_axis, end=self.other_axis + 1)]
        if self.axis:
            sizes.insert(0, o.Shape(x, start=0, end=self.axis))
        if self.axis + 1 < rank:
            sizes.append(o.Shape(x, start=self.axis + 1, end=rank))
        return o.Reshape(x, o.Concat(*sizes, axis=0), allowzero=1)

    def torch(self, t: TorchEmitter, x: str, other: str) -> str:
        return x

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(0, 0, "x[0] is y[0]"), (f32["n", 3], f32["n"]))
        yield Sample(cls(1, 0, "x[1] is y[0]"), (i64[2, "n", 3], f32["n", "m"]))
        yield Sample(cls(0, 1, "x[0] is y[1]"), (f64["n"], f32[2, "n"]))


class AssertInRange(Annotation):
    """x itself, of numbers from `low` to `high`, both included; a `high` of None does not limit.
    `what` begins the message about others and `hint` is its hint; see `in_range`."""

    low: Dim
    high: Dim | None
    what: str = field(repr=False)
    hint: str = field(default="", repr=False)

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(0, symbol("n"), "lengths"), (i64["n"],))
        yield Sample(cls(-1, dim(symbol("n") + 1), "places"), (i32[2, "n"],))
        yield Sample(cls(0, None, "counts"), (f32["n"],))


def limited(x: Value, size: Any, limit: Any, claim: str, hint: str = "") -> Value:
    """`x`, which is impossible where `size` is more than `limit`; either may be symbolic.

    Where the size is known to be too large, `ShapeError` is raised here, and otherwise `FeedError`
    for data that make it so. `claim` is its message and `hint` its hint, in which {size},
    {limit} and {x} stand for the numbers and the type of `x`.
    """
    return AssertAtMost(dim(size), dim(limit), claim, hint)(x)


def bounds_of(low: Dim, high: Dim | None) -> str:
    """What a message says of a range."""
    return f"at least {low}" if high is None else f"from {low} to {high}"


def in_range(
    x: Value, low: Any, high: Any, what: str, hint: str = "", reals: bool = False
) -> Value:
    """`x`, integers from `low` to `high`, which may be symbolic; a `high` of None does not limit.

    Data that are fed as x and hold others are a `FeedError`, which says `what` they are ("the
    lengths of LSTM are") and gives `hint` as the hint, with the numbers for {low} and {high}.

    Data that are fed in another form, and computed in real numbers before they are `x`, are not
    looked at. Raises `DTypeError` where x is not of integers (unless they may be `reals`),
    `ModelError` where it holds known others.
    """
    if not x.dtype.is_integer and not (reals and x.dtype.is_float):
        raise DTypeError(f"{what} integers, got {x.type}", hint="x.astype(i64) converts")
    low, high = dim(low), None if high is None else dim(high)
    known = x.op.value.ravel() if isinstance(x.op, Constant) else ()
    for number in known:
        below = isinstance(low, int) and number < low
        if below or (isinstance(high, int) and number > high):
            formatted = hint.format(low=low, high=high) or None
            raise ModelError(f"{what} {bounds_of(low, high)}, got {number}", hint=formatted)
    return AssertInRange(low, high, what, hint)(x)
