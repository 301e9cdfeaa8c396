"""What a model claims of its data: sizes that are limited, and numbers that lie in a range.

A claim is the value itself. That it holds is checked on the data that are fed, before anything
runs; see `nncompile.sizes` and `nncompile.train.indices`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import field
from typing import Any

from nncompile.dims import Dim, dim, symbol
from nncompile.errors import DTypeError, ModelError, ShapeError
from nncompile.graph import Sample, Value
from nncompile.ops.basic import Constant
from nncompile.ops.marks import Mark
from nncompile.types import Type, f32, f64, i32, i64

LENGTHS = "a length counts the elements of a row that are there: np.clip(lengths, {low}, {high})"
"""The way out of lengths that are none."""


class Limited(Mark):
    """x itself; `size` is `limit` at most. Both are told in `claim` and `way_out` as {size} and
    {limit}, and {x} is the type of x."""

    size: Dim
    limit: Dim
    claim: str = field(repr=False)
    way_out: str = field(default="", repr=False)

    def infer(self, x: Type) -> Type:
        both = {"size": self.size, "limit": self.limit, "x": x}
        if isinstance(self.size, int) and isinstance(self.limit, int) and self.size > self.limit:
            hint = self.way_out.format(**both) or None
            raise ShapeError(self.claim.format(**both), hint=hint)
        return x

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(symbol("n"), 8, "{size} rows are more than {limit}"), (f32["n", 3],))
        yield Sample(cls(3, 3, "{x}", "{limit}"), (f64[3],))


class InRange(Mark):
    """x itself, of integers from `low` to `high`, both included. `what` begins the message about
    others and `way_out` is its hint; see `in_range`."""

    low: Dim
    high: Dim
    what: str = field(repr=False)
    way_out: str = field(default="", repr=False)

    def infer(self, x: Type) -> Type:
        if not x.dtype.is_integer:
            raise DTypeError(f"{self.what} integers, got {x}", hint="x.astype(i64) converts")
        return x

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(0, symbol("n"), "lengths"), (i64["n"],))
        yield Sample(cls(-1, dim(symbol("n") + 1), "places"), (i32[2, "n"],))


def limited(x: Value, size: Any, limit: Any, claim: str, way_out: str = "") -> Value:
    """`x`, which is impossible where `size` is more than `limit`; either may be symbolic.

    Where the size is known to be too large, `ShapeError` is raised here, and otherwise `FeedError`
    for data that make it so. `claim` is its message and `way_out` its hint, in which {size},
    {limit} and {x} stand for the numbers and the type of `x`.
    """
    return Limited(dim(size), dim(limit), claim, way_out)(x)


def in_range(x: Value, low: Any, high: Any, what: str, way_out: str = "") -> Value:
    """`x`, integers from `low` to `high`, which may be symbolic.

    Data that are fed as x and hold others are a `FeedError`, which says `what` they are ("the
    lengths of LSTM are") and gives `way_out` as the hint, with the numbers for {low} and {high}.

    Raises `DTypeError` where x is not of integers, `ModelError` where it holds known others.
    """
    low, high = dim(low), dim(high)
    known = x.op.value.ravel() if isinstance(x.op, Constant) else ()
    for number in known:
        below = isinstance(low, int) and number < low
        if below or (isinstance(high, int) and number > high):
            hint = way_out.format(low=low, high=high) or None
            raise ModelError(f"{what} from {low} to {high}, got {number}", hint=hint)
    return InRange(low, high, what, way_out)(x)
