"""Convolutions that take the bias after them along."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nncompile.ir.dims import Shape, is_one, same
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.ops.convolution.convolve import Conv
from nncompile.ops.shape.reshape import Reshape, reshape
from nncompile.passes.rewriter import Changes, Steps, rule, rules, uses


@rules
def convolutions() -> Changes:
    """A convolution and one number for each channel that is added to it are one node."""
    return [add_into_convolution]


@rule(f32[1, 4, 9, 9], f32[6, 2, 2, 2], f32[6, 1, 1], (2, 3), (0, 1, 2, 3), (3, 2), 2)
def add_into_convolution(
    x: Value,
    w: Value,
    c: Value,
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    groups: int,
) -> Steps:
    """The bias of a convolution is part of it."""
    convolution = Conv(strides, pads, dilations, groups)
    y = convolution(x, w)
    yield y + c
    if uses(y) != 1:
        return "the convolution is also used without the sum"
    if c.dtype is not y.dtype or not _is_one_each(c.shape, w.shape[0], y.rank):
        return f"{c.type} does not have one number for each channel of {y.type}"
    numbers = c.args[0] if isinstance(c.op, Reshape) else c
    yield convolution(x, w, reshape(numbers, (w.shape[0],)))


@add_into_convolution.refuses(f32[1, 2, 5, 5], f32[4, 2, 2, 2], f32[4, 1, 1], f32[4, 4])
def _(x: Value, w: Value, bias: Value, other: Value) -> Iterator[Any]:
    y = Conv((1, 1), (0, 0, 0, 0), (1, 1), 1)(x, w)
    yield y + bias, y
    yield y + other  # a number for each place
    yield y + bias[:1]  # one for all channels
    yield y + bias[0]
    yield y + bias.reshape((1, 4, 1))  # for each row
    yield y + bias.reshape((1, 1, 4, 1))
    yield y + bias[:, :, 0]


def _is_one_each(shape: Shape, channels: object, rank: int) -> bool:
    """Whether the shape is one element for each channel, all other axes of size one."""
    if len(shape) not in (rank - 1, rank):
        return False
    at = len(shape) - rank + 1
    is_flat = all(is_one(size) for i, size in enumerate(shape) if i != at)
    return is_flat and same(shape[at], channels) is True
