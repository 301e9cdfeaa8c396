"""Networks of texts and series in jax."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.nn import relu

from benchmarks.networks import sizes
from benchmarks.networks.in_jax.layers import (
    Scope,
    attention,
    conv,
    dense,
    feed_forward,
    layer_norm,
    recur,
)


def gpt(
    p: Scope,
    x: Any,
    tokens: int = sizes.TOKENS,
    length: int = sizes.LENGTH,
    width: int = sizes.WIDTH,
    heads: int = sizes.HEADS,
    blocks: int = sizes.BLOCKS,
) -> Any:
    """`in_dsl.gpt`."""
    x = p["tokens.weight"][x] + p["places.weight"]
    for name in (f"block{i}" for i in range(blocks)):
        normal = layer_norm(p, f"{name}.attention_norm", x)
        x = x + attention(p, f"{name}.attention", normal, heads)
        x = x + feed_forward(p, f"{name}.feed", layer_norm(p, f"{name}.feed_norm", x))
    return dense(p, "head", layer_norm(p, "norm", x))


def encoder(p: Scope, x: Any, mask: Any) -> Any:
    """`in_dsl.encoder`."""
    seen = (mask == 1)[:, None, None, :]
    x = layer_norm(p, "norm", p["tokens.weight"][x] + p["places.weight"])
    for name in (f"block{i}" for i in range(sizes.BLOCKS)):
        y = x + attention(p, f"{name}.attention", x, sizes.HEADS, seen)
        x = layer_norm(p, f"{name}.attention_norm", y)
        x = layer_norm(p, f"{name}.feed_norm", x + feed_forward(p, f"{name}.feed", x))
    return dense(p, "head", jnp.tanh(dense(p, "pooled", x[:, 0])))


def recurrent(
    p: Scope,
    x: Any,
    kind: str,
    layers: int = 1,
    bidirectional: bool = False,
    width: int = sizes.HIDDEN,
) -> Any:
    """`in_dsl.recurrent`."""
    for layer in range(layers):
        passes = [recur(p, "cell", x, kind, f"l{layer}")]
        if bidirectional:
            passes.append(recur(p, "cell", x, kind, f"l{layer}_reverse", reverse=True))
        x = jnp.concatenate(passes, -1)
    return dense(p, "head", x.mean(1) if bidirectional else x[:, -1])


def temporal(p: Scope, x: Any, channels: int = 64, blocks: int = 4) -> Any:
    """`in_dsl.temporal`."""
    x = conv(p, "stem", x)
    for i in range(blocks):
        y = x
        for part in ("first", "second"):
            name, dilation = f"block{i}_{part}", 2**i
            y = relu(conv(p, name, y, padding=[(2 * dilation, 0)], dilation=dilation))
        x = relu(x + y)
    return dense(p, "head", x.mean(1))
