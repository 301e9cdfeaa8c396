"""The geometry of convolutions, `[batch, channels, *sizes]` along any number of axes: sizes, and
the padding that people ask for by name."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from nncompile.dims import Dim, Shape, dim, floordiv
from nncompile.errors import ShapeError, whole_number

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
        for name, given, count, least in (
            ("kernel", self.kernel, rank, 1),
            ("strides", self.strides, rank, 1),
            ("pads", self.pads, 2 * rank, 0),
            ("dilations", self.dilations, rank, 1),
        ):
            if len(given) != count:
                raise ShapeError(f"{name} {given} are not {count} numbers for {rank} axes")
            if any(n < least for n in given):
                raise ShapeError(f"{name} must be at least {least}, got {given}")

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
        found: list[Dim] = []
        for axis, (size, padded) in enumerate(zip(sizes, self.padded(sizes), strict=True)):
            extent, pads = self.extents[axis], self.before[axis] + self.after[axis]
            if isinstance(padded, int) and padded < extent:
                padding = f" and {pads} of padding" if pads else ""
                raise ShapeError(
                    f"a kernel that spans {extent} is larger than spatial axis {axis}, which has "
                    f"{size} elements{padding}: the result would be empty",
                    hint='a smaller kernel or dilation, or more padding (padding="same")',
                )
            found.append(dim(floordiv(dim(padded - extent), self.strides[axis]) + 1))
        return tuple(found)


def numbers(name: str, given: Any, rank: int, least: int) -> Ints:
    """One number for each of the spatial axes; a single one stands for all."""
    each = tuple(given) if isinstance(given, Sequence) and not isinstance(given, str) else None
    if each is not None and len(each) != rank:
        raise ShapeError(f"the {name} {given!r} is not a number for each of {rank} spatial axes")
    return tuple(whole_number(f"the {name}", n, least) for n in each or (given,) * rank)


def pads_of(padding: Any, sizes: Shape, extents: Ints, strides: Ints) -> Ints:
    """The zeros before each axis and then those after each.

    `padding` is a number, a number or a pair (before, after) for each axis, or a name: "valid"
    (none), "same" (⌈size/stride⌉ results; of an odd number of zeros the last one comes after, as
    in torch and Keras), or "causal" (one axis; all zeros before, so that no result sees what comes
    later). Raises `ShapeError` for other things, and for "same" where the zeros depend on a size
    that only the data tell.
    """
    rank = len(extents)
    if padding == "valid":
        return (0,) * (2 * rank)
    if padding == "causal":
        if rank != 1:
            raise ShapeError(
                f'padding="causal" is for one spatial axis, a sequence; here are {rank}',
                hint="padding=((before, after), ...) pads each axis as you say",
            )
        return (extents[0] - 1, 0)
    if padding == "same":
        totals = [_same(*axis) for axis in zip(sizes, extents, strides, strict=True)]
        return (*(total // 2 for total in totals), *(total - total // 2 for total in totals))
    if isinstance(padding, str):
        raise ShapeError(f"padding is a number or one of {', '.join(BY_NAME)}, got {padding!r}")
    if isinstance(padding, Sequence) and any(isinstance(p, Sequence) for p in padding):
        if len(padding) != rank:
            raise ShapeError(f"padding {padding!r} is not a pair for each of {rank} spatial axes")
        pairs = [numbers("padding", p, 2, 0) for p in padding]
        return (*(before for before, _ in pairs), *(after for _, after in pairs))
    return numbers("padding", padding, rank, 0) * 2


def _same(size: Any, extent: int, stride: int) -> int:
    """The zeros that make ⌈size/stride⌉ windows fit: extent less the elements that the last stride
    covers, which is size modulo stride."""
    rest = dim(size - stride * floordiv(size, stride))
    possible = [rest] if isinstance(rest, int) else range(stride)
    totals = {max(extent - (r or stride), 0) for r in possible}
    if len(totals) > 1:
        raise ShapeError(
            f'padding="same" with stride {stride} depends on the size {size}, which only the data '
            "tell",
            hint=f'name the size as a multiple, such as "{stride}*n", or give the padding',
        )
    return totals.pop()
