"""Attention: scaled dot products with masks, several heads, rotary positions.

A truth value in a mask says that a query may look at a key (as in torch's functional form and in
Keras; torch's `nn.MultiheadAttention` means the opposite). A real mask is added to the scores.
"""

from __future__ import annotations

import math
from typing import Any

from dsl.building import active
from dsl.initializers import glorot_uniform, zeros
from dsl.layers.base import Layer
from dsl.layers.dense import Dense
from dsl.layers.embedding import rotary
from dsl.layers.known_sizes import known_size
from dsl.layers.noise import probability_of
from nncompile.diagnostics.errors import DTypeError, ModelError, ShapeError, whole_number
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import maximum, where
from nncompile.ir.basic import as_value
from nncompile.ir.dims import broadcasts_to, is_one, same, same_shape
from nncompile.ir.op import Value
from nncompile.ir.types import DType, boolean
from nncompile.ops import any as any_of
from nncompile.ops import cast, dropout, expand_dims, iota, matmul, reshape, softmax, swapaxes
from nncompile.ops.core.assertions import LENGTHS, in_range

# Added to the scores of hidden keys. Not −∞: a row of hidden keys alone stays finite.
HIDDEN = -1e30


@suggests_names
def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    is_causal: bool = False,
    scale: float | None = None,
    dropout_p: float = 0.0,
) -> Value:
    """softmax(scale·q·kᵀ + mask)·v (Vaswani et al. 2017): `[..., t, d]`, `[..., s, d]` and
    `[..., s, e]` to `[..., t, e]`; the leading axes broadcast, t and s may be symbolic.

    `attn_mask` broadcasts to `[..., t, s]`: bool is true where a query may look at a key, real
    numbers (−∞ included) are added to the scores. `is_causal` hides the keys behind the query's own
    place, counted from the start of both, as torch's. A query to which all keys are hidden gets 0,
    and gradients 0. `scale` is 1/√d by default; `dropout_p` is the probability with which weights
    are dropped while training. Raises `ShapeError` and `DTypeError` where the arguments do not fit
    each other.
    """
    q, k, v = as_value(query), as_value(key), as_value(value)
    _check_fit(q, k, v)
    if scale is None:
        message = f"attention needs a known number of features, query is {q.type}"
        hint = "or give the factor of the scores itself: scale=0.125"
        width = known_size(message, q, -1, hint)
        if width == 0:
            raise ShapeError(message, hint=hint)
        scale = 1 / math.sqrt(width)
    allowed, bias = _mask_of(attn_mask, is_causal, q, k)
    # The query is the smallest of what could be scaled.
    scores = matmul(q * scale, swapaxes(k, -1, -2))
    if bias is not None:
        _check_mask(bias, scores)
        scores = scores + bias
    result = matmul(_dropped(softmax(scores), dropout_p), v)
    if allowed is not None:
        result = where(any_of(allowed, -1, keepdims=True), result, 0)
    return result


def _dropped(weights: Value, p: float) -> Value:
    probability_of("dropout_p of attention", p)
    if p == 0:
        return weights
    return dropout(weights, p, salt=active("dropout of attention").salt())


def _rows(q: Value, k: Value, v: Value) -> list[tuple[str, ...]]:
    return [("query", str(q.type)), ("key", str(k.type)), ("value", str(v.type))]


def _check_fit(q: Value, k: Value, v: Value) -> None:
    rows = _rows(q, k, v)
    if not q.dtype.is_float or not q.dtype is k.dtype is v.dtype:
        raise DTypeError("attention needs floating-point values of one element type", rows=rows)
    if min(q.rank, k.rank, v.rank) < 2:
        raise ShapeError(
            "attention: query, key and value need axes for positions and for features",
            rows=rows,
            hint="[batch, time, features]",
        )
    if same(q.shape[-1], k.shape[-1]) is not True:
        raise ShapeError("attention: query and key have different numbers of features", rows=rows)
    if same(k.shape[-2], v.shape[-2]) is not True:
        raise ShapeError(
            "attention: the numbers of keys and values are not known to be equal",
            rows=rows,
            hint="give both axes one name",
        )


def _check_mask(mask: Value, scores: Value) -> None:
    if not broadcasts_to(mask.shape, scores.shape):
        raise ShapeError(
            "attention: the mask does not fit the scores of queries and keys",
            rows=[("mask", str(mask.type)), ("scores", str(scores.type))],
            hint="[..., queries, keys]; axes of size 1 broadcast",
        )


def _mask_of(mask: Any, is_causal: bool, q: Value, k: Value) -> tuple[Value | None, Value | None]:
    """What may be looked at, where that could be nothing; and what is added to the scores."""
    ahead = causal_mask(q.shape[-2], k.shape[-2]) if is_causal else None
    if mask is None:
        return None, None if ahead is None else _bias(ahead, q.dtype)
    mask = as_value(mask, q)
    if mask.dtype is boolean:
        allowed = mask if ahead is None else mask & ahead
        return allowed, _bias(allowed, q.dtype)
    if not mask.dtype.is_float:
        raise DTypeError(
            f"attention: a mask must be boolean or real, got {mask.type}",
            hint="mask != 0, or mask.astype(boolean)",
        )
    bias = maximum(cast(mask, q.dtype), HIDDEN)
    allowed = bias > HIDDEN
    if ahead is None:
        return allowed, bias
    return allowed & ahead, bias + _bias(ahead, q.dtype)


def _bias(allowed: Value, dtype: DType) -> Value:
    """A sum costs half of a choice among scores, forward and backward."""
    return cast(where(allowed, 0.0, HIDDEN), dtype)


@suggests_names
def causal_mask(queries: Any, keys: Any = None) -> Value:
    """bool[queries, keys], true where the key is not behind the query: what attention from left to
    right may look at. Sizes are numbers or symbolic, `keys` as many as queries by default."""
    keys = queries if keys is None else keys
    mask: Value = expand_dims(iota(queries), 1) >= expand_dims(iota(keys), 0)
    return mask


@suggests_names
def padding_mask(lengths: Any, size: Any) -> Value:
    """bool[..., size], true before the length of each sequence: the `key_mask` of sequences that
    are filled up to one size. Raises `DTypeError` for lengths that are not integers. A length of 0
    leaves nothing to look at; other lengths than 0 … size are a `FeedError` where the data are fed
    (`ModelError` here where they are known)."""
    lengths = as_value(lengths)
    if not lengths.dtype.is_integer:
        raise DTypeError(f"lengths must be integers, got {lengths.type}", hint="x.astype(i64)")
    lengths = in_range(lengths, 0, size, "the lengths of padding_mask must be", LENGTHS)
    mask: Value = iota(size, lengths.dtype) < expand_dims(lengths, -1)
    return mask


class MultiHeadAttention(Layer):
    """Attention of several heads, each on its own projection (Vaswani et al. 2017): `[..., t, n]`
    to `[..., t, embed_dim]`, of the query to itself unless `key` is given, and to `key` unless
    `value` is.

    `embed_dim` is the query's by default, of which each head has its equal part (`head_dim`).
    `num_key_value_heads` fewer than `num_heads` share keys and values among them (grouped queries,
    Ainslie et al. 2023). `rotary_base` turns queries and keys by their places (see `rotary`).
    `mask` is `[t, s]`, `[..., t, s]` with the leading axes of the query, or has an axis of the
    heads before the last two; `key_mask` `[..., s]` is true for keys that are there (not padding).

    Parameters are those of dense layers: `query`, `key`, `value`, `output`. Raises `ModelError`
    where num_heads does not divide embed_dim or num_key_value_heads num_heads, `ShapeError` where
    query, key and masks do not fit.
    """

    num_heads: int
    embed_dim: int | None = None
    head_dim: int | None = None
    is_causal: bool = False
    dropout: float = 0.0
    num_key_value_heads: int | None = None
    rotary_base: float | None = None
    bias: bool = True
    init: Any = glorot_uniform
    bias_init: Any = zeros

    def __post_init__(self) -> None:
        whole_number("num_heads of MultiHeadAttention", self.num_heads, 1)
        if self.num_key_value_heads is not None:
            whole_number("num_key_value_heads of MultiHeadAttention", self.num_key_value_heads, 1)
            if self.num_heads % self.num_key_value_heads:
                raise ModelError(
                    f"MultiHeadAttention: num_key_value_heads={self.num_key_value_heads} does not "
                    f"divide num_heads={self.num_heads}"
                )
        probability_of("the dropout of MultiHeadAttention", self.dropout)

    def __call__(
        self, query: Any, key: Any = None, value: Any = None, mask: Any = None, key_mask: Any = None
    ) -> Value:
        query = as_value(query)
        key = query if key is None else as_value(key)
        value = key if value is None else as_value(value)
        self._check(query, key, value)
        width = self.embed_dim
        if width is None:
            message = f"MultiHeadAttention needs a known number of features, query is {query.type}"
            width = known_size(message, query, -1)
        size = self._head_size(width)
        shared = self.num_heads if self.num_key_value_heads is None else self.num_key_value_heads
        groups = self.num_heads // shared
        q = self._headed(query, "query", self.num_heads, size)
        k = self._headed(key, "key", shared, size)
        v = self._headed(value, "value", shared, size)
        if self.rotary_base is not None:
            q, k = rotary(q, base=self.rotary_base), rotary(k, base=self.rotary_base)
        allowed = self._mask(mask, key_mask, query, key)
        if groups > 1:  # [..., heads, t, d] as [..., shared, groups, t, d], and one group of keys
            lead = q.shape[:-3]
            q = reshape(q, (*lead, shared, groups, *q.shape[-2:]))
            k, v = expand_dims(k, -3), expand_dims(v, -3)
            allowed = None if allowed is None else self._grouped(allowed, shared, groups)
        y = scaled_dot_product_attention(
            q, k, v, attn_mask=allowed, is_causal=self.is_causal, dropout_p=self.dropout
        )
        if groups > 1:
            y = reshape(y, (*query.shape[:-2], self.num_heads, *y.shape[-2:]))
        y = swapaxes(y, -2, -3)
        y = reshape(y, (*y.shape[:-2], self.num_heads * size))
        return self._dense(width, "output")(y)

    def _check(self, query: Value, key: Value, value: Value) -> None:
        rows = _rows(query, key, value)
        if min(query.rank, key.rank, value.rank) < 2:
            raise ShapeError(
                "MultiHeadAttention needs axes for positions and for features",
                rows=rows,
                hint="[batch, time, features]; an Embedding turns token ids into features",
            )
        leads = [x.shape[:-2] for x in (query, key, value)]
        if not all(same_shape(leads[0], lead) is True for lead in leads):
            raise ShapeError(
                "MultiHeadAttention: query, key and value have different leading axes", rows=rows
            )
        if same(key.shape[-2], value.shape[-2]) is not True:
            raise ShapeError(
                "MultiHeadAttention: the numbers of keys and values are not known to be equal",
                rows=rows,
                hint="give both axes one name",
            )

    def _head_size(self, width: int) -> int:
        if self.head_dim is not None:
            return self.head_dim
        if width % self.num_heads:
            raise ModelError(
                f"MultiHeadAttention: num_heads={self.num_heads} does not divide a width of "
                f"{width}",
                hint="choose a multiple, or give the features of each head: head_dim=32"
                if self.num_heads <= width
                else "the number of heads comes first; the width follows from the query of "
                f"width {width}",
            )
        return width // self.num_heads

    def _dense(self, width: int, name: str) -> Dense:
        return Dense(width, None, self.bias, self.init, self.bias_init, name=name)

    def _headed(self, x: Value, name: str, heads: int, size: int) -> Value:
        """`[..., t, n]` projected to `[..., heads, t, size]`."""
        y = self._dense(heads * size, name)(x)
        return swapaxes(reshape(y, (*y.shape[:-1], heads, size)), -2, -3)

    def _mask(self, attn_mask: Any, key_mask: Any, query: Value, key: Value) -> Value | None:
        """Both masks as one that broadcasts to `[..., heads, t, s]`."""
        mask = None if attn_mask is None else as_value(attn_mask)
        if mask is not None:
            if mask.rank > query.rank + 1:
                raise ShapeError(
                    "MultiHeadAttention: the mask has more axes than heads of queries and keys",
                    rows=[("mask", str(mask.type)), ("query", str(query.type))],
                )
            if 2 < mask.rank == query.rank:
                mask = expand_dims(mask, -3)
        if key_mask is None:
            return mask
        key_mask = as_value(key_mask)
        expected = (*query.shape[:-2], key.shape[-2])
        if key_mask.dtype is not boolean or same_shape(key_mask.shape, expected) is not True:
            raise ShapeError(
                "MultiHeadAttention: the key_mask needs one truth value for each key",
                rows=[("key_mask", str(key_mask.type)), ("key", str(key.type))],
                hint="bool[batch, time], true where a token is: tokens != padding",
            )
        visible = expand_dims(key_mask, (-2, -3))
        if mask is None:
            return visible
        if mask.dtype is boolean:
            return mask & visible
        # Not a sum of both: of a real mask gradients are taken.
        return where(visible, mask, HIDDEN)

    def _grouped(self, mask: Value, shared: int, groups: int) -> Value:
        """The mask's axis of the heads as one of those that share keys, and one of their groups."""
        if mask.rank < 3:
            return mask
        if is_one(mask.shape[-3]):
            return expand_dims(mask, -3)
        if same(mask.shape[-3], self.num_heads) is not True:
            raise ShapeError(
                f"MultiHeadAttention: the mask {mask.type} has an axis of {mask.shape[-3]} "
                "heads, but "
                f"there are {self.num_heads}"
            )
        return reshape(mask, (*mask.shape[:-3], shared, groups, *mask.shape[-2:]))


__all__ = [
    "MultiHeadAttention",
    "causal_mask",
    "padding_mask",
    "scaled_dot_product_attention",
]
