"""The geometry of convolutions, `[batch, channels, *sizes]` along any number of axes: sizes, and
the padding that people ask for by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nncompile.diagnostics.errors import ShapeError, did_you_mean, whole_number
from nncompile.ir.dims import Dim, Shape, dim, floordiv
from nncompile.ops.windows.same_padding import same_padding
from nncompile.ops.windows.space import axis_of, form_of

Ints = tuple[int, ...]
BY_NAME = ("same", "valid", "causal")


@dataclass(frozen=True)
class Window:
    """The elements that go into one result: along spatial axis `i` `kernel[i]` of them,
    `dilations[i]` apart; the next result's are `strides[i]` further on.

    `pads` are the zeros before each axis and then those after each, as ONNX has them. Raises
    `ShapeError` where these are not a number for each axis, or are out of range.
    """

    kernel: Ints
    strides: Ints
    pads: Ints
    dilations: Ints

    def __post_init__(self) -> None:
        rank = len(self.kernel)
        for name, values, count, least in (
            ("kernel", self.kernel, rank, 1),
            ("strides", self.strides, rank, 1),
            ("pads", self.pads, 2 * rank, 0),
            ("dilations", self.dilations, rank, 1),
        ):
            if len(values) != count:
                raise ShapeError(f"{name} {values} are not {count} numbers for {rank} axes")
            if any(n < least for n in values):
                raise ShapeError(f"{name} must be at least {least}, got {values}")

    @property
    def rank(self) -> int:
        """The number of spatial axes."""
        return len(self.kernel)

    @property
    def before(self) -> Ints:
        """The zeros before each axis."""
        return self.pads[: self.rank]

    @property
    def after(self) -> Ints:
        """The zeros after each axis."""
        return self.pads[self.rank :]

    @property
    def extents(self) -> Ints:
        """From the first to the last element, both included: d·(k − 1) + 1."""
        return tuple(d * (k - 1) + 1 for k, d in zip(self.kernel, self.dilations, strict=True))

    @property
    def is_symmetric(self) -> bool:
        """Whether there are as many zeros after each axis as before it."""
        return self.before == self.after

    def padded(self, sizes: Shape) -> Shape:
        """The sizes with the zeros."""
        return tuple(dim(b + n + a) for b, n, a in zip(self.before, sizes, self.after, strict=True))

    def results(self, sizes: Shape) -> Shape:
        """How often the window fits: ⌊(size + pads − extent)/stride⌋ + 1 along each axis. Raises
        `ShapeError` where it is larger than the axis with its zeros."""
        counts: list[Dim] = []
        for axis, (size, padded) in enumerate(zip(sizes, self.padded(sizes), strict=True)):
            extent, pads = self.extents[axis], self.before[axis] + self.after[axis]
            if isinstance(padded, int) and padded < extent:
                padding = f" and {pads} of padding" if pads else ""
                raise ShapeError(
                    f"a kernel that spans {extent} is larger than {axis_of(axis, self.rank)} of "
                    f"{size} elements{padding}: the result would be empty",
                    hint='a smaller kernel or dilation, or more padding (padding="same")',
                )
            counts.append(dim(floordiv(dim(padded - extent), self.strides[axis]) + 1))
        return tuple(counts)


def numbers(name: str, value: Any, rank: int, least: int | None = None) -> Ints:
    """One number for each of the spatial axes; a single one stands for all."""
    values = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else None
    if values is not None and len(values) != rank:
        raise ShapeError(f"the {name} {value!r} is not a number for each of {rank} spatial axes")
    return tuple(whole_number(f"the {name}", n, least) for n in values or (value,) * rank)


def pads_of(
    padding: Any, sizes: Shape, extents: Ints, strides: Ints, what: str = "conv"
) -> tuple[Dim, ...]:
    """The zeros before each axis and then those after each. A negative number is elements to be
    removed; "same" makes such a one where strides are larger than the extent.

    `padding` is a number, a number or a pair (before, after) for each axis, or a name: "valid"
    (none), "same" (⌈size/stride⌉ results; of an odd number of zeros the last one comes after, as
    in torch and Keras), or "causal" (one axis; all zeros before, so that no result sees what comes
    later). Those of "same" are symbolic where they depend on a symbolic size. Raises `ShapeError`,
    which begins with `what`, for other things.
    """
    rank = len(extents)
    if padding == "valid":
        return (0,) * (2 * rank)
    if padding == "causal":
        if rank != 1:
            raise ShapeError(
                f'{what}: padding="causal" is for a sequence, [batch, channels, length], and not '
                f"for {form_of(rank)}",
                hint="padding=((before, after), ...) pads each axis separately",
            )
        return (extents[0] - 1, 0)
    if padding == "same":
        axes = zip(sizes, extents, strides, strict=True)
        pairs = [same_padding(*axis)[:2] for axis in axes]
        return (*(before for before, _ in pairs), *(after for _, after in pairs))
    if isinstance(padding, str):
        raise ShapeError(
            f"{what}: padding must be a number or one of {', '.join(BY_NAME)}, got {padding!r}",
            hint=f"a full convolution has padding={_each([e - 1 for e in extents])}: what the "
            "kernel spans, less one"
            if padding.lower() == "full"
            else did_you_mean(padding.lower(), BY_NAME),
        )
    if isinstance(padding, Sequence) and any(isinstance(p, Sequence) for p in padding):
        if len(padding) != rank:
            raise ShapeError(
                f"{what}: padding {padding!r} is not a pair for each of {rank} spatial axes"
            )
        widths = [numbers(f"padding of {what}", p, 2) for p in padding]
        return (*(before for before, _ in widths), *(after for _, after in widths))
    return numbers(f"padding of {what}", padding, rank) * 2


def explicit(pads: Sequence[Dim]) -> tuple[Ints, list[Dim], list[Dim]]:
    """Pads in two parts: numbers, which a window has itself, and what is to be padded before it,
    `(before, after)` of each axis. An axis of which both are not known is of the second part, and
    so is what is to be removed."""
    rank = len(pads) // 2
    inner: list[int] = [0] * len(pads)
    outer: list[Dim] = [0] * len(pads)
    for axis in range(rank):
        sides = axis, axis + rank
        known = all(isinstance(pads[side], int) for side in sides)
        for side in sides:
            width = pads[side]
            if known and isinstance(width, int) and width >= 0:
                inner[side] = width
            else:
                outer[side] = width
    return tuple(inner), outer[:rank], outer[rank:]


def _each(numbers: Sequence[int]) -> str:
    """One number for all axes where they are equal."""
    return str(numbers[0] if len(set(numbers)) == 1 else tuple(numbers))
