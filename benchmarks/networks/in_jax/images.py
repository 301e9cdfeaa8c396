"""Networks of images in jax."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax.nn import relu

from benchmarks.networks import sizes
from benchmarks.networks.in_jax.layers import (
    Scope,
    average_pool,
    batch_norm,
    conv,
    conv_transpose,
    dense,
    flat,
    max_pool,
)


def lenet(p: Scope, x: Any) -> Any:
    """`in_dsl.lenet`."""
    x = max_pool(relu(conv(p, "first", x, padding=2)), 2)
    x = flat(max_pool(relu(conv(p, "second", x)), 2))
    return dense(p, "head", relu(dense(p, "fourth", relu(dense(p, "third", x)))))


def vgg(
    p: Scope, x: Any, stages: tuple[tuple[int, ...], ...] = sizes.VGG, hidden: int = 256
) -> Any:
    """`in_dsl.vgg`."""
    for stage, convolutions in enumerate(stages):
        for i in range(len(convolutions)):
            x = relu(conv(p, f"stage{stage}{i}", x, padding=1))
        x = max_pool(x, 2)
    return dense(p, "head", relu(dense(p, "hidden", flat(x))))


def _normalized(p: Scope, name: str, x: Any, stride: int = 1, padding: int = 0) -> Any:
    return batch_norm(p, f"{name}_norm", conv(p, name, x, stride, padding))


def resnet(
    p: Scope,
    x: Any,
    stages: sizes.Stages = sizes.STAGES,
    depth: int = sizes.DEPTH,
    size: int = 32,
) -> Any:
    """`in_dsl.resnet`."""
    stride, padding = (2, 3) if size > 32 else (1, 1)
    x = relu(_normalized(p, "stem", x, stride, padding))
    if size > 32:
        x = max_pool(x, 3, 2, 1)
    for stage, (_, first) in enumerate(stages):
        for i in range(depth):
            name, stride = f"block{stage}{i}", first if i == 0 else 1
            shortcut = x if stride == 1 else _normalized(p, f"{name}_short", x, stride)
            x = relu(_normalized(p, f"{name}_first", x, stride, 1))
            x = relu(shortcut + _normalized(p, f"{name}_second", x, 1, 1))
    return dense(p, "head", x.mean((1, 2)))


def densenet(p: Scope, x: Any, layers: int = 12, growth: int = 12) -> Any:
    """`in_dsl.densenet`."""
    x = conv(p, "stem", x, padding=1)
    for block in range(3):
        for i in range(layers):
            name = f"block{block}_{i}"
            y = conv(p, name, relu(batch_norm(p, f"{name}_norm", x)), padding=1)
            x = jnp.concatenate([x, y], -1)
        if block < 2:
            x = relu(batch_norm(p, f"transition{block}_norm", x))
            x = average_pool(conv(p, f"transition{block}", x), 2)
    return dense(p, "head", relu(batch_norm(p, "norm", x)).mean((1, 2)))


def autoencoder(p: Scope, x: Any) -> Any:
    """`in_dsl.autoencoder`."""
    x = relu(_normalized(p, "down0", x, 2, 1))
    x = relu(_normalized(p, "down1", x, 2, 1))
    x = relu(batch_norm(p, "up0_norm", conv_transpose(p, "up0", x, 2, 1)))
    return conv_transpose(p, "up1", x, 2, 1)
