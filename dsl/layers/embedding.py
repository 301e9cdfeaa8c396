"""Embeddings: tables of vectors for numbers, and vectors for places."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsl.initializers import Fans, constant, normal
from dsl.layers.base import Layer
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError, whole_number
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.options import real
from nncompile.elementwise import cos, sin, where
from nncompile.ir.basic import Constant, as_value
from nncompile.ir.dims import Dim
from nncompile.ir.op import Value
from nncompile.ir.types import DType, Type, f32
from nncompile.ops import cast, concatenate, const, expand_dims, iota, reshape, stack, take
from nncompile.ops import split as parts
from nncompile.ops.core.assertions import limited

# The options, each declared once. A class that joins several has those of the last one first.


class TableSizes(Layer):
    """A layer with a number of vectors of one size."""

    num_embeddings: int
    embedding_dim: Dim


class Table(TableSizes):
    """A layer with a table of vectors, for numbers to look up."""

    padding_idx: int | None = None
    init: Any = normal(1.0)
    dtype: DType = f32

    def __post_init__(self) -> None:
        kind = type(self).__name__
        whole_number(f"num_embeddings of {kind}", self.num_embeddings, 1)
        whole_number(f"embedding_dim of {kind}", self.embedding_dim, 1)
        if self.padding_idx is not None and not 0 <= self.padding_idx < self.num_embeddings:
            raise ModelError(
                f"the padding_idx of {kind} must be in 0 … {self.num_embeddings - 1}, got "
                f"{self.padding_idx}"
            )

    def _table(self) -> Value:
        """The parameter `weight`, whose row of the padding starts at 0."""

        def without_padding(type_: Type, key: Value, fans: Fans) -> Value:
            init = self.init if callable(self.init) else constant(self.init)
            is_padding = expand_dims(iota(self.num_embeddings), 1) == self.padding_idx
            return where(is_padding, 0, init(type_, key, fans))

        start = self.init if self.padding_idx is None else without_padding
        return self.parameter(
            "weight", (self.num_embeddings, self.embedding_dim), start, self.dtype
        )

    def _numbers(self, x: Any) -> Value:
        """x as integers; constants are checked to have a row."""
        kind, value = type(self).__name__, as_value(x)
        if not value.dtype.is_integer:
            raise DTypeError(
                f"{kind} looks up integers, x is {value.type}", hint='tokens=i64["batch", "time"]'
            )
        constants = value.op.value if isinstance(value.op, Constant) else np.zeros(0)
        wrong = constants[(constants < 0) | (constants >= self.num_embeddings)]
        if wrong.size:
            raise ModelError(
                f"{kind}: index {wrong.flat[0]} is out of range for {self.num_embeddings} rows"
            )
        return value


class Embedding(Table):
    """The row of a trained table for each number: i64[...] to f32[..., embedding_dim].

    Parameter `weight` f32[num_embeddings, embedding_dim], normally distributed at first as torch's.
    Numbers are below `num_embeddings`: constants are checked here (`ModelError`), data by
    onnxruntime when it runs. The row of `padding_idx` is zero and stays so. Raises `DTypeError`
    where x is not of integers.
    """

    def weight(self) -> Value:
        """The table, for a layer that shares it: `x @ embedding.weight().T` gives logits."""
        return self._table()

    def __call__(self, x: Any) -> Value:
        x = self._numbers(x)
        rows = take(self._table(), x, axis=0)
        if self.padding_idx is None:
            return rows
        # Not looked up, so that its gradient is zero and decay is all that could move it.
        return where(expand_dims(x, -1) == self.padding_idx, 0, rows)


@suggests_names
def sinusoidal(
    length: Any, width: int, base: float = 10000.0, dtype: DType = f32, positions: Any = None
) -> Value:
    """Sines and cosines of the places 0 … length − 1 (or of `positions`) of falling frequency
    (Vaswani et al. 2017): column 2i is sin(p/base^(2i/width)), 2i + 1 the cosine of the same.

    f32[length, width]; the length may be symbolic. Raises `ModelError` for an odd width.
    """
    angles = _angles(_positions(length, positions, dtype), width, base, "sinusoidal")
    return reshape(stack([sin(angles), cos(angles)], -1), (*angles.shape[:-1], width))


def _positions(length: Any, positions: Any, dtype: DType) -> Value:
    steps = iota(length) if positions is None else as_value(positions)
    return cast(steps, dtype)


def _angles(positions: Value, width: int, base: float, caller: str) -> Value:
    """Each place times each frequency: `[..., width/2]`."""
    if not isinstance(width, int) or width < 2 or width % 2:
        raise ModelError(f"{caller} needs an even number of features, got {width}")
    if not real(f"the base of {caller}", base) > 0:
        raise ModelError(f"the base of {caller} must be positive, got {base}")
    rates = base ** (-np.arange(0, width, 2) / width)
    angles: Value = expand_dims(positions, -1) * const(rates, positions.dtype)
    return angles


@suggests_names
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
        raise ShapeError(f"rotary rotates features at positions, [..., t, d], x is {x.type}")
    width: Any = x.shape[-1]
    angles = _angles(_positions(x.shape[-2], positions, x.dtype), width, base, "rotary")
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
    """x + a trained vector for each place, for x of `[..., t, n]` with t at most `num_embeddings`.

    Parameter `weight` f32[num_embeddings, n]. Raises `ModelError` where x is known to be longer;
    where its length is symbolic, longer data are a `FeedError`: there is no vector for them.
    """

    num_embeddings: int
    init: Any = normal(0.02)

    def __post_init__(self) -> None:
        whole_number("num_embeddings of LearnedPositions", self.num_embeddings, 2)

    def __call__(self, x: Any) -> Value:
        x, length = _sequence(type(self).__name__, x)
        if isinstance(length, int) and length > self.num_embeddings:
            raise ModelError(
                f"LearnedPositions has vectors for {self.num_embeddings} positions, x is {x.type}",
                hint=f"LearnedPositions({length}), or cut x: x[:, :{self.num_embeddings}]",
            )
        table = self.parameter("weight", (self.num_embeddings, x.shape[-1]), self.init, x.dtype)
        claim = "LearnedPositions has vectors for {limit} positions, the data have {size}"
        hint = "LearnedPositions({size}), or cut the data to {limit} positions"
        y: Value = limited(x, length, self.num_embeddings, claim, hint) + table[:length]
        return y


def _sequence(caller: str, x: Any) -> tuple[Value, Dim]:
    x = as_value(x)
    if x.rank < 2 or not x.dtype.is_float or not isinstance(x.shape[-1], int):
        raise ShapeError(
            f"{caller} needs floating-point [..., positions, features], x is {x.type}",
            hint="an Embedding turns token ids into features",
        )
    return x, x.shape[-2]


__all__ = [
    "Embedding",
    "LearnedPositions",
    "SinusoidalPositions",
    "rotary",
    "sinusoidal",
]
