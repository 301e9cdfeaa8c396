"""Bags of embeddings: sums, means and maxima of the vectors of several numbers."""

from __future__ import annotations

import math
from typing import Any

from dsl.layers.embedding import Table, TableSizes
from nncompile.diagnostics.errors import ModelError, ShapeError
from nncompile.elementwise import maximum, where
from nncompile.ir.basic import as_value, size_value
from nncompile.ir.dims import dim, same_shape
from nncompile.ir.op import Value
from nncompile.ir.types import Type, boolean, i64
from nncompile.ops import any as any_of
from nncompile.ops import (
    cast,
    concatenate,
    cumsum,
    expand_dims,
    full,
    iota,
    pad,
    reshape,
    scan,
    scatter_add,
    take,
)
from nncompile.ops import max as max_of
from nncompile.ops import sum as sum_of
from nncompile.ops.core.assertions import in_range


class _Mode(TableSizes):
    mode: str = "mean"


class EmbeddingBag(Table, _Mode):
    """The sum, the mean or the greatest of the rows of a trained table for the numbers of each bag,
    as torch's: of a bag of text, the order of whose words does not count.

    Called as `bag(x)`, a bag is the last axis of x, i64[..., n] to f32[..., embedding_dim]: bags of
    one size, filled up with `padding_idx` where they have less. Called as `bag(x, offsets)`, x is
    one vector of all numbers, i64[n], and bag k is x[offsets[k]:offsets[k + 1]], the last one up to
    the end: i64[bags] to f32[bags, embedding_dim], the offsets growing from 0. Sizes may be
    symbolic. What is `padding_idx` is in no bag; a bag of nothing is 0.

    `mode` is "mean", "sum" or "max" (over offsets that is a loop over the numbers; equal greatest
    rows share the gradient). `per_sample_weights`, of the shape of x, multiply the rows of a sum.

    Parameter `weight` f32[num_embeddings, embedding_dim], normally distributed at first, the row of
    `padding_idx` zero. Numbers are checked as those of `Embedding`, offsets are from 0 to n (a
    `FeedError`). Raises `ModelError` for another mode and for weights of a mean or a maximum,
    `ShapeError` and `DTypeError` where the arguments do not fit.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mode not in ("mean", "sum", "max"):
            raise ModelError(
                f'the mode of EmbeddingBag must be "mean", "sum" or "max", got {self.mode!r}'
            )

    def __call__(self, x: Any, offsets: Any = None, per_sample_weights: Any = None) -> Value:
        x = self._numbers(x)
        if x.rank == 0 or (offsets is not None and x.rank != 1):
            form = "[..., n]" if offsets is None else "one vector beside its offsets"
            raise ShapeError(f"EmbeddingBag needs {form}, x is {x.type}")
        weights = self._weights(x, per_sample_weights)
        if offsets is None:
            return self._bags_in_rows(x, weights)
        return self._bags_in_vector(x, self._offsets(x, offsets), weights)

    def _weights(self, x: Value, per_sample_weights: Any) -> Value | None:
        if per_sample_weights is None:
            return None
        if self.mode != "sum":
            raise ModelError(
                f"EmbeddingBag: per_sample_weights need the mode 'sum', got {self.mode!r}",
                hint='EmbeddingBag(..., mode="sum")',
            )
        weights = as_value(per_sample_weights)
        if weights.dtype is not self.dtype or same_shape(weights.shape, x.shape) is not True:
            expected = Type(self.dtype, x.shape)
            raise ShapeError(
                f"the per_sample_weights for {x.type} must be {expected}, got {weights.type}"
            )
        return weights

    def _offsets(self, x: Value, starts: Any) -> Value:
        offsets = as_value(starts)
        if not offsets.dtype.is_integer or offsets.rank != 1:
            raise ShapeError(
                f"the offsets of EmbeddingBag must be i64[bags], got {offsets.type}",
                hint='offsets=i64["bags"], where each bag begins in x',
            )
        claim = "the first offset of EmbeddingBag must be"
        is_first = iota(offsets.shape[0]) == 0
        first = where(is_first, offsets, 0)
        first = in_range(first, 0, 0, claim, "the first bag starts at 0")
        claim, hint = (
            "the offsets of EmbeddingBag must be",
            "a bag starts within x, or at its end",
        )
        return where(is_first, first, in_range(offsets, 0, x.shape[0], claim, hint))

    def _bags_in_rows(self, x: Value, weights: Value | None) -> Value:
        """Of bags along the last axis."""
        counted = None if self.padding_idx is None else x != self.padding_idx
        n = x.shape[-1]
        if self.mode == "max" and not (isinstance(n, int) and n > 0):
            # One more that does not count, or there might be nothing to choose from.
            widths = [(0, 0)] * (x.rank - 1) + [(0, 1)]
            counted = pad(full(x.shape, True, boolean) if counted is None else counted, widths)
            x = pad(x, widths)
        rows = take(self._table(), x, axis=0)
        if weights is not None:
            rows = rows * expand_dims(weights, -1)
        if counted is None:
            if self.mode == "max":
                return max_of(rows, -2)
            total = sum_of(rows, -2)
            return (
                total if self.mode == "sum" else total / cast(maximum(size_value(n), 1), self.dtype)
            )
        column = expand_dims(counted, -1)
        if self.mode == "max":
            greatest = max_of(where(column, rows, -math.inf), -2)
            return where(any_of(column, -2), greatest, 0.0)
        total = sum_of(where(column, rows, 0.0), -2)
        return total if self.mode == "sum" else total / self._divisor(sum_of(counted, -1))

    def _bags_in_vector(self, x: Value, offsets: Value, weights: Value | None) -> Value:
        """Of bags one after another."""
        (n,), (bags,) = x.shape, offsets.shape
        rows = take(self._table(), x, axis=0)
        rows = rows if weights is None else rows * expand_dims(weights, -1)
        column = full((n, 1), True, boolean)
        if self.padding_idx is not None:
            column = expand_dims(x != self.padding_idx, -1)
        starts = scatter_add(full((dim(n + 1),), 0, i64), offsets, full((bags,), 1, i64))[:n]
        bag = cumsum(starts, 0)  # from 1 on; elements before the first are in bag 0

        def totals(values: Value) -> Value:
            start = full((dim(bags + 1), *values.shape[1:]), 0, values.dtype)
            return scatter_add(start, bag, values)[1:]

        if self.mode == "max":
            end = reshape(size_value(n, offsets.dtype), (1,))
            following = concatenate([offsets, end], 0)[1:]
            masked = where(column, rows, -math.inf)
            ends = where(following > offsets, following - 1, n)
            maxima = take(self._running(masked, starts > 0), ends, axis=0)
            return where(totals(cast(column, i64)) > 0, maxima, 0.0)
        total = totals(where(column, rows, 0.0))
        return (
            total if self.mode == "sum" else total / self._divisor(totals(cast(column, i64))[:, 0])
        )

    def _running(self, rows: Value, begins: Value) -> Value:
        """The greatest of each bag so far, and a row of zeros."""
        first = full((self.embedding_dim,), 0, rows.dtype)

        def body(before: Value, row: Value, new: Value) -> tuple[Value, Value]:
            greatest = where(new, row, maximum(before, row))
            return greatest, greatest

        _, running = scan(body, first, (rows, begins))
        return pad(running, [(0, 1), (0, 0)])

    def _divisor(self, numbers: Value) -> Value:
        return expand_dims(cast(maximum(numbers, 1), self.dtype), -1)


__all__ = [
    "EmbeddingBag",
]
