"""What convolutions demand of their operands, and what they are tested on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.dims import Dim, Shape, same, same_shape
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.ops.shape.reshape import reshape
from nncompile.ops.windows.convolution import Ints

Example = tuple[tuple[Any, ...], tuple[Any, ...], Ints, Ints, Ints, int]


def examples() -> Iterator[tuple[Example, tuple[Any, ...]]]:
    """x, the results' sizes, strides, pads, dilations and groups; and w: what the three ops share
    as samples."""
    yield (("n", 2, "m + 4"), ("m + 4",), (1,), (4, 0), (2,), 1), (3, 2, 3)
    yield (("n", 4, 7), (3,), (2,), (0, 0), (1,), 2), (2, 2, 3)
    yield (("n", 2, "h", "m"), ("h", "m"), (1, 1), (1, 1, 1, 1), (1, 1), 1), (3, 2, 3, 3)
    yield (("n", 2, "h", "m"), ("(h+1)//2", "(m+1)//2"), (2, 2), (1,) * 4, (1, 1), 1), (3, 2, 3, 3)
    yield (("n", 3, "h", 5), ("(h+1)//2", 3), (2, 2), (0,) * 4, (1, 1), 1), (2, 3, 1, 1)
    yield (("n", 3, "h", 4), ("h", 4), (1, 1), (0,) * 4, (1, 1), 1), (2, 3, 1, 1)
    yield (("n", 3, 5, "m + 1"), (5, "m + 1"), (1, 1), (0, 1, 2, 0), (2, 1), 3), (6, 1, 2, 2)
    x, results = (2, 2, 4, 3, "m + 2"), (2, 2, "m + 1")
    yield (x, results, (2, 1, 1), (0, 1, 0, 1, 0, 0), (1, 2, 1), 2), (2, 1, 2, 2, 2)


def kernel_of(w: Type) -> Ints:
    """The sizes of the kernels in weights `[O, C/groups, *kernel]`, which must be numbers."""
    kernel = w.shape[2:]
    if not all(isinstance(k, int) for k in kernel):
        raise ShapeError(f"the sizes of a kernel must be numbers, the weights are {w}")
    return kernel


def check_operands(first: Type, *others: Type) -> None:
    """Raises `DTypeError` or `ShapeError` where elements are not real and of one type, or the first
    two are not `[…, …, *sizes]` of one rank."""
    for other in others:
        if other.dtype is not first.dtype:
            raise DTypeError(f"element types differ, {first.dtype} ≠ {other.dtype}")
    if not first.dtype.is_float:
        raise DTypeError(
            f"needs floating numbers, got {first.dtype}", hint="x.astype(f32) converts"
        )
    if first.rank < 3 or others[0].rank != first.rank:
        raise ShapeError(
            f"needs [batch, channels, *sizes] and weights of as many axes, got {first.rank} and "
            f"{others[0].rank} axes",
            hint="expand_dims(x, axis) adds an axis of size one",
        )


def check_groups(channels: Dim, groups: int) -> None:
    """Raises `ShapeError` where the channels are not a multiple of the groups."""
    if isinstance(channels, int) and channels % groups:
        raise ShapeError(f"{groups} groups do not divide {channels} channels")
    if not isinstance(channels, int) and groups > 1:
        raise ShapeError(f"{groups} groups need a number of channels, got {channels}")


def check_channels(name: str, x: Type, expected: Any, groups: int) -> None:
    """Raises `ShapeError` where x has other channels than the weights are for."""
    if same(x.shape[1], expected * groups) is not True:
        per_group = f" for each of {groups} groups" if groups > 1 else ""
        raise ShapeError(
            f"{name} has {x.shape[1]} channels, the weights are for {expected}{per_group}",
            hint="x is [batch, channels, *sizes], weights are [out, in/groups, *kernel]",
        )


def check_results(y: Type, results: Shape, sizes: Shape) -> None:
    """Raises `ShapeError` where y is not known to be of the sizes that the window makes."""
    if same_shape(y.shape[2:], results) is not True:
        after, before = ([*map(str, shape)] for shape in (results, sizes))
        raise ShapeError(
            f"sizes [{', '.join(before)}] give [{', '.join(after)}] with this window, got {y}",
            hint="write the sizes in terms of each other",
        )


def beside_axes(bias: Value, rank: int) -> Value:
    """One number for each channel, to be added to `[N, C, *sizes]`."""
    return reshape(bias, (bias.shape[0], *(1,) * rank))
