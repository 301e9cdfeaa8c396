"""Embeddings: tables of vectors for numbers, bags of them, and vectors for places."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from dsl.initializers import Fans, constant, normal
from dsl.layer import Layer
from nncompile.dims import Dim, dim, same_shape
from nncompile.elementwise import cos, maximum, sin, where
from nncompile.errors import DTypeError, ModelError, ShapeError, whole_number
from nncompile.graph import Value
from nncompile.ops import any as any_of
from nncompile.ops import (
    cast,
    concatenate,
    const,
    cumsum,
    expand_dims,
    full,
    iota,
    pad,
    reshape,
    scan,
    scatter_add,
    stack,
    take,
)
from nncompile.ops import max as max_of
from nncompile.ops import split as parts
from nncompile.ops import sum as sum_of
from nncompile.ops.basic import Constant, as_value, size_value
from nncompile.ops.claims import in_range, limited
from nncompile.optim.schedules import real
from nncompile.types import DType, Type, boolean, f32, i64


class Embedding(Layer):
    """The row of a trained table for each number: i64[...] to f32[..., width].

    Parameter `weight` f32[count, width], normally distributed at first as torch's. Numbers are
    below `count`: constants are checked here (`ModelError`), data by onnxruntime when it runs. The
    row of `padding_index` is zero and stays so. Raises `DTypeError` where x is not of integers.
    """

    count: int
    width: int
    padding_index: int | None = None
    init: Any = normal(1.0)
    dtype: DType = f32

    def __post_init__(self) -> None:
        _check_table(self)

    def weight(self) -> Value:
        """The table, for a layer that shares it: `x @ embedding.weight().T` gives logits."""
        return _table(self)

    def __call__(self, x: Any) -> Value:
        x = _numbers(self, x)
        rows = take(self.weight(), x, axis=0)
        if self.padding_index is None:
            return rows
        # Not looked up, so that its slope is zero and decay is all that could move it.
        return where(expand_dims(x, -1) == self.padding_index, 0, rows)  # type: ignore[no-any-return]


class EmbeddingBag(Layer):
    """The sum, the mean or the greatest of the rows of a trained table for the numbers of each bag,
    as torch's: of a bag of text, the order of whose words does not count.

    Called as `bag(x)`, a bag is the last axis of x, i64[..., n] to f32[..., width]: bags of one
    size, filled up with `padding_index` where they have less. Called as `bag(x, offsets)`, x is one
    vector of all numbers, i64[n], and bag k is x[offsets[k]:offsets[k + 1]], the last one up to the
    end: i64[bags] to f32[bags, width], the offsets growing from 0. Sizes may be symbolic. What is
    `padding_index` is in no bag; a bag of nothing is 0.

    `mode` is "mean", "sum" or "max" (over offsets that is a loop over the numbers; equal greatest
    rows share the gradient). `per_sample_weights`, of the shape of x, multiply the rows of a sum.

    Parameter `weight` f32[count, width], normally distributed at first, the row of `padding_index`
    zero. Numbers are checked as those of `Embedding`, offsets are from 0 to n (a `FeedError`).
    Raises `ModelError` for another mode and for weights of a mean or a maximum, `ShapeError` and
    `DTypeError` where the arguments do not fit.
    """

    count: int
    width: int
    mode: str = "mean"
    padding_index: int | None = None
    init: Any = normal(1.0)
    dtype: DType = f32

    def __post_init__(self) -> None:
        _check_table(self)
        if self.mode not in ("mean", "sum", "max"):
            raise ModelError(
                f'the mode of EmbeddingBag is "mean", "sum" or "max", got {self.mode!r}'
            )

    def __call__(self, x: Any, offsets: Any = None, per_sample_weights: Any = None) -> Value:
        x = _numbers(self, x)
        if x.rank == 0 or (offsets is not None and x.rank != 1):
            form = "[..., n]" if offsets is None else "one vector beside its offsets"
            raise ShapeError(f"EmbeddingBag needs {form}, x is {x.type}")
        weights = self._weights(x, per_sample_weights)
        if offsets is None:
            return self._of_rows(x, weights)
        return self._of_vector(x, self._offsets(x, offsets), weights)

    def _weights(self, x: Value, given: Any) -> Value | None:
        if given is None:
            return None
        if self.mode != "sum":
            raise ModelError(
                f"EmbeddingBag: per_sample_weights are those of a sum, the mode is {self.mode!r}",
                hint='EmbeddingBag(..., mode="sum")',
            )
        weights = as_value(given)
        if weights.dtype is not self.dtype or same_shape(weights.shape, x.shape) is not True:
            expected = Type(self.dtype, x.shape)
            raise ShapeError(
                f"the per_sample_weights for {x.type} are {expected}, got {weights.type}"
            )
        return weights

    def _offsets(self, x: Value, given: Any) -> Value:
        offsets = as_value(given)
        if not offsets.dtype.is_integer or offsets.rank != 1:
            raise ShapeError(
                f"the offsets of EmbeddingBag are i64[bags], got {offsets.type}",
                hint='offsets=i64["bags"], where each bag begins in x',
            )
        what = "the first offset of EmbeddingBag is"
        is_first = iota(offsets.shape[0]) == 0
        first = where(is_first, offsets, 0)
        first = in_range(first, 0, 0, what, "the first bag begins at 0")
        what, way_out = "the offsets of EmbeddingBag are", "a bag begins within x, or at its end"
        return where(is_first, first, in_range(offsets, 0, x.shape[0], what, way_out))  # type: ignore[no-any-return]

    def _of_rows(self, x: Value, weights: Value | None) -> Value:
        """Of bags along the last axis."""
        counted = None if self.padding_index is None else x != self.padding_index
        n = x.shape[-1]
        if self.mode == "max" and not (isinstance(n, int) and n > 0):
            # One more that does not count, or there might be nothing to choose from.
            more = [(0, 0)] * (x.rank - 1) + [(0, 1)]
            counted = pad(full(x.shape, True, boolean) if counted is None else counted, more)
            x = pad(x, more)
        rows = take(_table(self), x, axis=0)
        if weights is not None:
            rows = rows * expand_dims(weights, -1)
        if counted is None:
            if self.mode == "max":
                return max_of(rows, -2)
            total = sum_of(rows, -2)
            return total if self.mode == "sum" else total / maximum(size_value(n, self.dtype), 1)
        column = expand_dims(counted, -1)
        if self.mode == "max":
            greatest = max_of(where(column, rows, -math.inf), -2)
            return where(any_of(column, -2), greatest, 0.0)  # type: ignore[no-any-return]
        total = sum_of(where(column, rows, 0.0), -2)
        return total if self.mode == "sum" else total / self._divisor(sum_of(counted, -1))

    def _of_vector(self, x: Value, offsets: Value, weights: Value | None) -> Value:
        """Of bags one after another."""
        (n,), (bags,) = x.shape, offsets.shape
        rows = take(_table(self), x, axis=0)
        rows = rows if weights is None else rows * expand_dims(weights, -1)
        column = full((n, 1), True, boolean)
        if self.padding_index is not None:
            column = expand_dims(x != self.padding_index, -1)
        begun = scatter_add(full((dim(n + 1),), 0, i64), offsets, full((bags,), 1, i64))[:n]
        bag = cumsum(begun, 0)  # from 1 on: what is before all of them is in none

        def totals(values: Value) -> Value:
            start = full((dim(bags + 1), *values.shape[1:]), 0, values.dtype)
            return scatter_add(start, bag, values)[1:]  # type: ignore[no-any-return]

        if self.mode == "max":
            end = reshape(size_value(n, offsets.dtype), (1,))
            following = concatenate([offsets, end], 0)[1:]
            masked = where(column, rows, -math.inf)
            ends = where(following > offsets, following - 1, n)
            found = take(self._running(masked, begun > 0), ends, axis=0)
            return where(totals(cast(column, i64)) > 0, found, 0.0)  # type: ignore[no-any-return]
        total = totals(where(column, rows, 0.0))
        return (
            total if self.mode == "sum" else total / self._divisor(totals(cast(column, i64))[:, 0])
        )

    def _running(self, rows: Value, begins: Value) -> Value:
        """The greatest of each bag so far, and a row of zeros."""
        first = full((self.width,), 0, rows.dtype)

        def body(before: Value, row: Value, new: Value) -> tuple[Value, Value]:
            greatest = where(new, row, maximum(before, row))
            return greatest, greatest

        _, running = scan(body, first, (rows, begins))
        return pad(running, [(0, 1), (0, 0)])

    def _divisor(self, numbers: Value) -> Value:
        return expand_dims(cast(maximum(numbers, 1), self.dtype), -1)


def _table(layer: Embedding | EmbeddingBag) -> Value:
    """The parameter `weight`, whose row of the padding starts at 0."""

    def without_padding(type_: Type, key: Value, fans: Fans) -> Value:
        init = layer.init if callable(layer.init) else constant(layer.init)
        is_padding = expand_dims(iota(layer.count), 1) == layer.padding_index
        return where(is_padding, 0, init(type_, key, fans))  # type: ignore[no-any-return]

    start = layer.init if layer.padding_index is None else without_padding
    return layer.parameter("weight", (layer.count, layer.width), start, layer.dtype)


def _check_table(layer: Embedding | EmbeddingBag) -> None:
    kind = type(layer).__name__
    whole_number(f"count of {kind}", layer.count, 1)
    whole_number(f"width of {kind}", layer.width, 1)
    if layer.padding_index is not None and not 0 <= layer.padding_index < layer.count:
        raise ModelError(
            f"the padding_index of {kind} is in 0 … {layer.count - 1}, got {layer.padding_index}"
        )


def _numbers(layer: Embedding | EmbeddingBag, x: Any) -> Value:
    """x as integers, of which those that are known already have a row."""
    kind, value = type(layer).__name__, as_value(x)
    if not value.dtype.is_integer:
        raise DTypeError(
            f"{kind} looks up integers, x is {value.type}", hint='tokens=i64["batch", "time"]'
        )
    known = value.op.value if isinstance(value.op, Constant) else np.zeros(0)
    wrong = known[(known < 0) | (known >= layer.count)]
    if wrong.size:
        raise ModelError(f"{kind} has rows 0 … {layer.count - 1}, x has {wrong.flat[0]}")
    return value


def sinusoidal(
    length: Any, width: int, base: float = 10000.0, dtype: DType = f32, positions: Any = None
) -> Value:
    """Sines and cosines of the places 0 … length − 1 (or of `positions`) of falling frequency
    (Vaswani et al. 2017): column 2i is sin(p/base^(2i/width)), 2i + 1 the cosine of the same.

    f32[length, width]; the length may be symbolic. Raises `ModelError` for an odd width.
    """
    angles = _angles(_places(length, positions, dtype), width, base, "sinusoidal")
    return reshape(stack([sin(angles), cos(angles)], -1), (*angles.shape[:-1], width))


def _places(length: Any, positions: Any, dtype: DType) -> Value:
    places = iota(length) if positions is None else as_value(positions)
    return cast(places, dtype)


def _angles(places: Value, width: int, base: float, what: str) -> Value:
    """Each place times each frequency: `[..., width/2]`."""
    if not isinstance(width, int) or width < 2 or width % 2:
        raise ModelError(f"{what} takes features in pairs, their number is {width}")
    if not real(f"the base of {what}", base) > 0:
        raise ModelError(f"the base of {what} must be positive, got {base}")
    rates = base ** (-np.arange(0, width, 2) / width)
    angles: Value = expand_dims(places, -1) * const(rates, places.dtype)
    return angles


def rotary(
    x: Any, positions: Any = None, base: float = 10000.0, interleaved: bool = False
) -> Value:
    """Pairs of features turned by angles that grow with the place, so that the scores of queries
    and keys depend on their distance alone (Su et al. 2021): `[..., t, d]` to the same.

    A pair is feature i with i + d/2, as GPT-NeoX and LLaMA have it, or neighbours 2i and 2i + 1 as
    in the paper where `interleaved`. `positions` are 0 … t − 1 by default; i64 that broadcasts to
    `[..., t]`. Raises `ModelError` for an odd number of features.
    """
    x = as_value(x)
    if x.rank < 2 or not x.dtype.is_float:
        raise ShapeError(f"rotary turns features at places, [..., t, d], x is {x.type}")
    width: Any = x.shape[-1]
    angles = _angles(_places(x.shape[-2], positions, x.dtype), width, base, "rotary")
    cosine, sine = cos(angles), sin(angles)
    if interleaved:
        pairs = reshape(x, (*x.shape[:-1], width // 2, 2))
        first, second = pairs[..., 0], pairs[..., 1]
    else:
        first, second = parts(x, 2, -1)
    turned = [first * cosine - second * sine, second * cosine + first * sine]
    if interleaved:
        return reshape(stack(turned, -1), x.shape)
    return concatenate(turned, -1)


class SinusoidalPositions(Layer):
    """x + `sinusoidal` of its places, for x of `[..., t, n]` and any length t. Nothing is trained.

    `scale` multiplies x first: √n in the paper, so that tokens outweigh places.
    """

    base: float = 10000.0
    scale: float = 1.0

    def __call__(self, x: Any) -> Value:
        x, length = _sequence(type(self).__name__, x)
        scaled = x if self.scale == 1 else x * self.scale
        y: Value = scaled + sinusoidal(length, x.shape[-1], self.base, x.dtype)
        return y


class LearnedPositions(Layer):
    """x + a trained vector for each place, for x of `[..., t, n]` with t at most `count`.

    Parameter `weight` f32[count, n]. Raises `ModelError` where x is known to be longer; where its
    length is symbolic, longer data are a `FeedError`: there is no vector for them.
    """

    count: int
    init: Any = normal(0.02)

    def __post_init__(self) -> None:
        whole_number("count of LearnedPositions", self.count, 2)

    def __call__(self, x: Any) -> Value:
        x, length = _sequence(type(self).__name__, x)
        if isinstance(length, int) and length > self.count:
            raise ModelError(
                f"LearnedPositions has vectors for {self.count} places, x is {x.type}",
                hint=f"LearnedPositions({length}), or cut x: x[:, :{self.count}]",
            )
        table = self.parameter("weight", (self.count, x.shape[-1]), self.init, x.dtype)
        claim = "LearnedPositions has vectors for {limit} places, the data have {size}"
        way_out = "LearnedPositions({size}), or cut the data to {limit} places"
        y: Value = limited(x, length, self.count, claim, way_out) + table[:length]
        return y


def _sequence(what: str, x: Any) -> tuple[Value, Dim]:
    x = as_value(x)
    if x.rank < 2 or not x.dtype.is_float or not isinstance(x.shape[-1], int):
        raise ShapeError(
            f"{what} needs floating [..., places, features], x is {x.type}",
            hint="an Embedding makes features of token numbers",
        )
    return x, x.shape[-2]
