"""Layers in plain jax, channels last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from benchmarks.networks.sizes import IMAGES

RUNNING = ("running_mean", "running_var")
CHANNELS_LAST = (*IMAGES, "temporal")
"""The networks whose inputs have channels, which stand last here."""


class Scope:
    """The parameters of one call by their names, whether it trains, what its batch normalizations
    make of their running statistics, and a key for each of its random masks."""

    def __init__(self, values: Mapping[str, Any], training: bool, key: Any = None) -> None:
        self.values = values
        self.training = training
        self.updates: dict[str, Any] = {}
        self._key = key

    def __getitem__(self, name: str) -> Any:
        return self.values[name]

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def key(self) -> Any:
        """Another key at each call."""
        self._key, key = jax.random.split(self._key)
        return key


def stored(array: Any) -> Any:
    """A parameter as it is laid out here: kernels as [*sizes, inputs, outputs], and those of
    transposed convolutions as [*sizes, outputs, inputs]."""
    return np.moveaxis(array, (1, 0), (-2, -1)) if array.ndim > 2 else array


def fed(array: Any, network: str) -> Any:
    """A batch of that network as it is laid out here."""
    if network in CHANNELS_LAST and array.ndim > 2:
        return np.ascontiguousarray(np.moveaxis(array, 1, -1))
    return array


def dense(p: Scope, name: str, x: Any) -> Any:
    return x @ p[f"{name}.weight"] + p[f"{name}.bias"]


def conv(p: Scope, name: str, x: Any, stride: int = 1, padding: Any = 0, dilation: int = 1) -> Any:
    """A convolution of any number of axes; `padding` is a number, or pairs."""
    w = p[f"{name}.weight"]
    axes = w.ndim - 2
    pairs = [(padding, padding)] * axes if isinstance(padding, int) else padding
    y = lax.conv_general_dilated(
        *(x, w, (stride,) * axes, pairs),
        rhs_dilation=(dilation,) * axes,
        dimension_numbers=_layout(axes, "IO"),
    )
    return y + p[f"{name}.bias"] if f"{name}.bias" in p else y


def conv_transpose(p: Scope, name: str, x: Any, stride: int, padding: int) -> Any:
    w = p[f"{name}.weight"]
    axes = w.ndim - 2
    pairs = [(n - 1 - padding, n - 1 - padding) for n in w.shape[:axes]]
    y = lax.conv_general_dilated(
        *(x, jnp.flip(w, range(axes)), (1,) * axes, pairs),
        lhs_dilation=(stride,) * axes,
        dimension_numbers=_layout(axes, "OI"),
    )
    return y + p[f"{name}.bias"]


def _layout(axes: int, ends: str) -> Any:
    sizes = "DHW"[-axes:]
    return f"N{sizes}C", f"{sizes}{ends}", f"N{sizes}C"


def batch_norm(p: Scope, name: str, x: Any, eps: float = 1e-5, momentum: float = 0.1) -> Any:
    axes = tuple(range(x.ndim - 1))
    if p.training:
        mean = x.mean(axes)
        variance = jnp.square(x - mean).mean(axes)
        count = x.size // x.shape[-1]
        batch = mean, variance * (count / (count - 1))
        for kind, value in zip(RUNNING, batch, strict=True):
            now = p[f"{name}.{kind}"]
            p.updates[f"{name}.{kind}"] = (1 - momentum) * now + momentum * value
    else:
        mean, variance = (p[f"{name}.{kind}"] for kind in RUNNING)
    scale = p[f"{name}.weight"] * lax.rsqrt(variance + eps)
    return x * scale + (p[f"{name}.bias"] - mean * scale)


def layer_norm(p: Scope, name: str, x: Any, eps: float = 1e-5) -> Any:
    centred = x - x.mean(-1, keepdims=True)
    scale = lax.rsqrt((centred * centred).mean(-1, keepdims=True) + eps)
    return centred * scale * p[f"{name}.weight"] + p[f"{name}.bias"]


def max_pool(x: Any, size: int, stride: int | None = None, padding: int = 0) -> Any:
    window, strides = (1, size, size, 1), (1, *(stride or size,) * 2, 1)
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)


def average_pool(x: Any, size: int) -> Any:
    window = (1, size, size, 1)
    return lax.reduce_window(x, 0.0, lax.add, window, window, "VALID") / size**2


def dropout(p: Scope, x: Any, rate: float) -> Any:
    if not rate or not p.training:
        return x
    kept = jax.random.bernoulli(p.key(), 1 - rate, x.shape)
    return jnp.where(kept, x / (1 - rate), 0)


def flat(x: Any) -> Any:
    """Rows as the others flatten them, whose channels stand first."""
    return jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)


def attention(p: Scope, name: str, x: Any, heads: int, mask: Any = None) -> Any:
    """Attention of several heads: causal, or to what a mask leaves."""
    batch, time, width = x.shape
    q, k, v = (
        dense(p, f"{name}.{part}", x).reshape(batch, time, heads, -1)
        for part in ("query", "key", "value")
    )
    y = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=mask is None)
    return dense(p, f"{name}.output", y.reshape(batch, time, width))


def feed_forward(p: Scope, name: str, x: Any) -> Any:
    hidden = jax.nn.gelu(dense(p, f"{name}.hidden", x), approximate=False)
    return dense(p, f"{name}.output", hidden)


def recur(p: Scope, name: str, x: Any, kind: str, suffix: str, reverse: bool = False) -> Any:
    """All outputs of one pass of an LSTM or GRU over x[batch, time, features]; what x adds is one
    product before the loop."""
    weight, inner = p[f"{name}.weight_ih_{suffix}"], p[f"{name}.weight_hh_{suffix}"]
    bias, inner_bias = p[f"{name}.bias_ih_{suffix}"], p[f"{name}.bias_hh_{suffix}"]
    steps = jnp.swapaxes(x @ weight + bias, 0, 1)
    h = jnp.zeros((x.shape[0], inner.shape[0]), x.dtype)

    def lstm(state: Sequence[Any], step: Any) -> Any:
        h, c = state
        i, f, g, o = jnp.split(step + h @ inner + inner_bias, 4, -1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        return (h, c), h

    def gru(h: Any, step: Any) -> Any:
        r, z, n = jnp.split(step, 3, -1)
        inner_r, inner_z, inner_n = jnp.split(h @ inner + inner_bias, 3, -1)
        r, z = jax.nn.sigmoid(r + inner_r), jax.nn.sigmoid(z + inner_z)
        n = jnp.tanh(n + r * inner_n)
        h = n + z * (h - n)
        return h, h

    loop, start = {"LSTM": (lstm, (h, h)), "GRU": (gru, h)}[kind]
    return jnp.swapaxes(lax.scan(loop, start, steps, reverse=reverse)[1], 0, 1)
