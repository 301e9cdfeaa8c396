"""Transformer blocks: feedforward layers, encoders, decoders."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsl.activations import gelu
from dsl.initializers import glorot_uniform
from dsl.layers.attention import MultiHeadAttention
from dsl.layers.base import Layer
from dsl.layers.dense import Dense, Dropout
from dsl.layers.known_sizes import known_size
from dsl.layers.noise import probability_of
from dsl.layers.normalization import LayerNorm
from nncompile.diagnostics.errors import ModelError, whole_number
from nncompile.ir.basic import as_value, floating
from nncompile.ir.op import Value

Function = Callable[[Any], Any]


class FeedForward(Layer):
    """activation(x·W₁)·W₂ at each place: `[..., n]` to `[..., n]` by way of `[..., hidden_size]`,
    four times as wide as x by default.

    `gated` multiplies the hidden features by a second projection: with `silu` it is SwiGLU, with
    `gelu` GEGLU, with `sigmoid` GLU (Shazeer 2020). Parameters are those of the dense layers
    `hidden`, `gate` (what is not activated; where gated) and `output`.
    """

    hidden_size: int | None = None
    activation: Function = gelu
    dropout: float = 0.0
    gated: bool = False
    bias: bool = True
    init: Any = glorot_uniform

    def __post_init__(self) -> None:
        _check_feed("FeedForward", "hidden_size", self.hidden_size, self.activation, self.dropout)

    def __call__(self, x: Any) -> Value:
        x = as_value(x)
        width = _width("FeedForward", x)
        hidden = 4 * width if self.hidden_size is None else self.hidden_size

        def dense(size: int, name: str, activation: Function | None = None) -> Dense:
            return Dense(size, activation, self.bias, self.init, name=name)

        y = dense(hidden, "hidden", self.activation)(x)
        if self.gated:
            y = y * dense(hidden, "gate")(x)
        return dense(width, "output")(_dropped(y, self.dropout))


class _Block(Layer):
    """What encoder and decoder layers share: options and residual branches."""

    num_heads: int
    dim_feedforward: int | None = None
    activation: Function = gelu
    dropout: float = 0.0
    norm_first: bool = False
    is_causal: bool = False
    gated: bool = False
    num_key_value_heads: int | None = None
    rotary_base: float | None = None
    bias: bool = True
    layer_norm_eps: float = 1e-5

    def __post_init__(self) -> None:
        kind, heads = type(self).__name__, self.num_heads
        if isinstance(heads, Layer):
            raise ModelError(
                f"num_heads of {kind} must be a number, got {heads!r}",
                hint=f"it creates its own layers: {kind}(num_heads=8, num_layers=6)",
            )
        whole_number(f"num_heads of {kind}", heads, 1)
        _check_feed(kind, "dim_feedforward", self.dim_feedforward, self.activation, self.dropout)
        if self.dim_feedforward is not None and self.dim_feedforward <= heads:
            raise ModelError(
                f"{kind}({heads}, {self.dim_feedforward}) has {heads} heads but only "
                f"{self.dim_feedforward} hidden features",
                hint="the number of heads comes first, and the width follows from x: "
                f"{kind}({self.dim_feedforward})",
            )

    def branch(self, x: Value, name: str, function: Function) -> Value:
        """x + function(x), normalized before the function or after the sum."""
        norm = LayerNorm(eps=self.layer_norm_eps, bias=self.bias, name=f"{name}_norm")
        if self.norm_first:
            result: Value = x + _dropped(function(norm(x)), self.dropout)
            return result
        return norm(x + _dropped(function(x), self.dropout))

    def attend(self, name: str, is_causal: bool, rotary: bool) -> MultiHeadAttention:
        return MultiHeadAttention(
            self.num_heads,
            is_causal=is_causal,
            dropout=self.dropout,
            num_key_value_heads=self.num_key_value_heads,
            rotary_base=self.rotary_base if rotary else None,
            bias=self.bias,
            name=name,
        )

    def forward(self) -> FeedForward:
        return FeedForward(
            self.dim_feedforward, self.activation, self.dropout, self.gated, self.bias, name="feed"
        )


class TransformerEncoderLayer(_Block):
    """Self-attention and a feedforward layer, each with a residual connection and a layer
    normalization: `[..., t, n]` to the same (Vaswani et al. 2017).

    As torch's: the normalization comes after the sum, or with `norm_first` before the branch, which
    trains deep stacks more easily; `dropout` is that of attention weights, hidden features and
    branches. The activation is GELU, where torch's default is ReLU; `dim_feedforward` is 4n by
    default. `is_causal` makes it the layer of a GPT; `bias=False` leaves out all biases, those of
    the normalizations, too. `mask` and `key_mask` are `MultiHeadAttention`'s. Parameters:
    `attention`, `attention_norm`, `feed`, `feed_norm`.
    """

    def __call__(self, x: Any, mask: Any = None, key_mask: Any = None) -> Value:
        x = as_value(x)
        _width(type(self).__name__, x)
        attention = self.attend("attention", self.is_causal, rotary=True)
        x = self.branch(x, "attention", lambda y: attention(y, mask=mask, key_mask=key_mask))
        return self.branch(x, "feed", self.forward())


class TransformerDecoderLayer(_Block):
    """Causal self-attention, attention to an encoder's results (`memory`) and a feedforward layer,
    each with a residual connection and a layer normalization: `[..., t, n]` and `[..., s, m]` to
    `[..., t, n]` (Vaswani et al. 2017).

    Options are those of `TransformerEncoderLayer`, but `is_causal` is True. `mask` and `key_mask`
    are those of x itself, `memory_mask` and `memory_key_mask` those of the memory. Parameters:
    `attention`, `attention_norm`, `cross`, `cross_norm`, `feed`, `feed_norm`.
    """

    is_causal: bool = True

    def __call__(
        self,
        x: Any,
        memory: Any,
        mask: Any = None,
        key_mask: Any = None,
        memory_mask: Any = None,
        memory_key_mask: Any = None,
    ) -> Value:
        x, memory = as_value(x), as_value(memory)
        _width(type(self).__name__, x)
        attention = self.attend("attention", self.is_causal, rotary=True)
        cross = self.attend("cross", False, rotary=False)
        x = self.branch(x, "attention", lambda y: attention(y, mask=mask, key_mask=key_mask))
        x = self.branch(
            x, "cross", lambda y: cross(y, memory, mask=memory_mask, key_mask=memory_key_mask)
        )
        return self.branch(x, "feed", self.forward())


class _Stack(_Block):
    """Layers of one kind one after another; a last normalization where they normalize first."""

    num_layers: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        whole_number(f"num_layers of {type(self).__name__}", self.num_layers, 1)

    def stacked(self, kind: type[_Block], x: Any, *args: Any, **options: Any) -> Value:
        names = [n for n in _Block.__dataclass_fields__ if n != "name"]
        fields = {name: getattr(self, name) for name in names}
        y: Value = x
        for i in range(self.num_layers):
            y = kind(**fields, name=f"layer{i}")(y, *args, **options)
        if not self.norm_first:
            return y
        return LayerNorm(eps=self.layer_norm_eps, bias=self.bias, name="norm")(y)


class TransformerEncoder(_Stack):
    """`num_layers` encoder layers, `layer0`, `layer1`, …; with `norm_first` a layer normalization,
    `norm`, ends them. `TransformerEncoder(4, num_layers=6, is_causal=True, norm_first=True)` is a
    GPT between its embeddings and its logits. Options as `TransformerEncoderLayer`."""

    def __call__(self, x: Any, mask: Any = None, key_mask: Any = None) -> Value:
        return self.stacked(TransformerEncoderLayer, x, mask=mask, key_mask=key_mask)


class TransformerDecoder(_Stack):
    """`num_layers` decoder layers, `layer0`, `layer1`, …, all with the same memory; with
    `norm_first` a layer normalization, `norm`, ends them. Options as `TransformerDecoderLayer`."""

    is_causal: bool = True

    def __call__(
        self,
        x: Any,
        memory: Any,
        mask: Any = None,
        key_mask: Any = None,
        memory_mask: Any = None,
        memory_key_mask: Any = None,
    ) -> Value:
        return self.stacked(
            TransformerDecoderLayer, x, memory, mask, key_mask, memory_mask, memory_key_mask
        )


def _check_feed(kind: str, option: str, hidden: Any, activation: Any, dropout: Any) -> None:
    if hidden is not None:
        whole_number(f"{option} of {kind}", hidden, 1)
    if not callable(activation):
        raise ModelError(
            f"the activation of {kind} must be a function, got {activation!r}",
            hint=f"{kind}(..., activation=relu), with relu from dsl",
        )
    probability_of(f"the dropout of {kind}", dropout)


def _dropped(x: Any, p: float) -> Any:
    return Dropout(p)(x) if p else x


def _width(caller: str, x: Value) -> int:
    floating(caller, x, "an Embedding turns token ids into features")
    return known_size(f"{caller} needs a known number of features, x is {x.type}", x, -1)


__all__ = [
    "FeedForward",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]
