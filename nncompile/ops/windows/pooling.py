"""Windows that slide over the last axes of a tensor [batch, channels, *space]: sizes, padding, and
numpy's view of them."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import ShapeError, did_you_mean
from nncompile.ir.dims import Dim, Shape, dim, floordiv, same
from nncompile.ir.op import Value, described
from nncompile.ir.types import Array, Type
from nncompile.ops.windows.same_padding import same_padding
from nncompile.ops.windows.space import LEAD, axis_of, form_of

Ints = tuple[int, ...]


@dataclass(frozen=True, repr=False)
class Window:
    """Along each axis of space `kernel` elements, `dilations` apart; the next window is `strides`
    further. There are `pads` elements before the first and after the last one."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]

    def __repr__(self) -> str:
        """What is not as usual: `3×3 strides 2×2 pads 1×1`."""
        usual = {"strides": self.kernel, "pads": (0,) * self.rank, "dilations": (1,) * self.rank}
        named = {name: getattr(self, name) for name in usual}
        parts = [f"{name} {_times(x)}" for name, x in named.items() if x != usual[name]]
        return " ".join([_times(self.kernel), *parts])

    @property
    def rank(self) -> int:
        """The number of axes of space."""
        return len(self.kernel)

    @property
    def spans(self) -> tuple[int, ...]:
        """The sizes from the first to the last element, the gaps included."""
        pairs = zip(self.kernel, self.dilations, strict=True)
        return tuple((size - 1) * step + 1 for size, step in pairs)

    @property
    def onnx(self) -> dict[str, Any]:
        """As attributes of ONNX's operators."""
        return {
            "kernel_shape": list(self.kernel),
            "strides": list(self.strides),
            "pads": [*self.pads, *self.pads],
            "dilations": list(self.dilations),
        }

    @property
    def torch(self) -> list[list[int]]:
        """As arguments of torch's maximum pooling."""
        return [list(x) for x in (self.kernel, self.strides, self.pads, self.dilations)]

    @property
    def share(self) -> float:
        """One over the number of the kernel's elements."""
        return 1 / math.prod(self.kernel)

    @property
    def is_partition(self) -> bool:
        """Whether each element lies in one window at most, windows having no gaps."""
        plain = not any(self.pads) and set(self.dilations) == {1}
        return plain and self.strides == self.kernel

    def counts(self, space: Sequence[Dim]) -> Shape:
        """How many windows there are along each axis. Raises `ShapeError` where none fits."""
        counts = []
        for axis, size in enumerate(space):
            padded = dim(size + 2 * self.pads[axis])
            span = self.spans[axis]
            if isinstance(padded, int) and padded < span:
                pads = self.pads[axis], self.pads[axis]
                raise too_large(axis_of(axis, self.rank), span, size, *pads)
            counts.append(dim(floordiv(dim(padded - span), self.strides[axis]) + 1))
        return tuple(counts)

    def infer(self, x: Type) -> Type:
        """The type of one element for each window of `x`."""
        if x.rank != LEAD + self.rank:
            raise ShapeError(
                f"windows of {self.rank} axes slide over [batch, channels] and {self.rank} more, "
                f"got {x}"
            )
        return Type(x.dtype, (*x.shape[:LEAD], *self.counts(x.shape[LEAD:])))

    def numpy(self, x: Array, fill: float) -> Array:
        """The windows: shape of `infer`, and behind it the kernel's."""
        widths = [(0, 0)] * LEAD + [(pad, pad) for pad in self.pads]
        self.counts(x.shape[LEAD:])
        padded = np.pad(x, widths, constant_values=fill)
        axes = tuple(range(LEAD, x.ndim))
        view = np.lib.stride_tricks.sliding_window_view(padded, self.spans, axes)
        steps = [slice(None, None, step) for step in (*self.strides, *self.dilations)]
        return view[(slice(None),) * LEAD + tuple(steps)]


def _times(numbers: Sequence[int]) -> str:
    return "×".join(map(str, numbers))


def too_large(axis: str, span: int, size: Dim, before: int, after: int) -> ShapeError:
    """The error of a window that does not fit."""
    pads = f" with {before} padded on both sides" if before else ""
    if before != after:
        pads = f" with {before} padded before and {after} after it"
    return ShapeError(
        f"a window of {span} does not fit {axis} of size {size}{pads}: the result would be empty",
        hint="choose a smaller kernel, or pad",
    )


@dataclass(frozen=True)
class Slid:
    """How a window lies on one axis of a tensor: `counts` positions, the first `before` elements
    before the tensor's first, the last one's end `after` elements behind its last."""

    kernel: int
    stride: int
    dilation: int
    pads: tuple[int, int]  # what was asked for
    before: Dim
    after: Dim
    count: Dim

    @property
    def is_plain(self) -> bool:
        """Whether it is what the lowerings know: equal padding, of at most half a kernel."""
        pad = self.pads[0]
        is_equal = all(d == pad for d in (*self.pads, self.before, self.after))
        return is_equal and pad <= self.kernel // 2


def slid(
    what: str,
    x: Value,
    rank: int | None,
    kernel: Any,
    strides: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> tuple[Slid, ...]:
    """A window on each axis of space of `x` (of which there must be `rank`, unless it is None),
    from what users write: one number for all axes or one for each, strides None for the kernel's,
    padding also a pair (before, after) for each axis, "same" (as many windows as there are strides
    in the axis) or "valid" (none).

    Raises `ShapeError`, which begins with `what`, where it does not fit.
    """
    rank = x.rank - LEAD if rank is None else rank
    if x.rank != LEAD + rank or rank < 1:
        form = form_of(rank) if rank > 0 else "axes of space behind the channels"
        raise ShapeError(
            f"{what} needs {form}, x is {x.type}",
            rows=[("x", *described(x))],
            hint="x.reshape(...) makes such axes; the channels stand before the space",
        )
    kernels, steps, gaps, widths = options(what, rank, kernel, strides, padding, dilation)
    automatic = padding == "same"
    windows = []
    for axis, size in enumerate(x.shape[LEAD:]):
        span = (kernels[axis] - 1) * gaps[axis] + 1
        try:
            bounds = (
                same_padding(size, span, steps[axis])
                if automatic
                else _padded(axis_of(axis, rank), size, span, steps[axis], *widths[axis], ceil_mode)
            )
        except ShapeError as error:
            raise ShapeError(
                f"{what}: {error.problem}", rows=[("x", *described(x))], hint=error.hint
            ) from None
        pads = widths[axis]
        if automatic and isinstance(bounds[0], int) and bounds[0] == bounds[1]:
            pads = bounds[0], bounds[0]
        windows.append(Slid(kernels[axis], steps[axis], gaps[axis], pads, *bounds))
    return tuple(windows)


def options(
    what: str, rank: int, kernel: Any, strides: Any, padding: Any, dilation: Any
) -> tuple[Ints, Ints, Ints, tuple[tuple[int, int], ...]]:
    """Kernel, strides and dilation as a number for each axis and padding as a pair, from what users
    write; of padding by name, zeros.

    Raises `ShapeError`, which begins with `what`, where they are no such numbers, and for a padding
    by which some windows would be of nothing but padding: of more than half a kernel, as torch
    refuses it, or, where it is given as a pair, of all of a kernel.
    """
    kernels = per_axis(what, "the kernel_size", kernel, rank)
    steps = kernels if strides is None else per_axis(what, "the stride", strides, rank)
    gaps = per_axis(what, "the dilation", dilation, rank)
    if padding in ("same", "valid"):
        return kernels, steps, gaps, ((0, 0),) * rank
    if isinstance(padding, str):
        raise ShapeError(
            f'{what}: padding must be a number, "same" or "valid", got {padding!r}',
            hint=did_you_mean(padding.lower(), ("same", "valid")),
        )
    if isinstance(padding, tuple | list) and any(isinstance(p, tuple | list) for p in padding):
        return kernels, steps, gaps, _uneven(what, kernels, padding)
    widths = per_axis(what, "the padding", padding, rank, least=0)
    for size, width in zip(kernels, widths, strict=True):
        if 2 * width > size:
            raise ShapeError(
                f"{what}: a padding of {width} is more than half of a kernel of {size}",
                hint=f"padding={size // 2} at most: a window must not lie in the padding alone; "
                "pad(x, ...) adds any number of elements",
            )
    return kernels, steps, gaps, tuple((width, width) for width in widths)


def _uneven(what: str, kernels: Ints, padding: Any) -> tuple[tuple[int, int], ...]:
    if len(padding) != len(kernels):
        raise ShapeError(
            f"{what}: padding {padding!r} is not a pair (before, after) for each of "
            f"{len(kernels)} spatial axes"
        )
    pairs = []
    for size, pair in zip(kernels, padding, strict=True):
        first, last = per_axis(what, "the padding before and after an axis", pair, 2, least=0)
        if max(first, last) >= size:
            raise ShapeError(
                f"{what}: a padding of {max(first, last)} is all of a kernel of {size}",
                hint=f"{size - 1} at most: a window must not lie in the padding alone; pad(x, "
                "...) adds "
                "elements of any number",
            )
        pairs.append((first, last))
    return tuple(pairs)


def _padded(
    axis: str, size: Dim, span: int, stride: int, before: int, after: int, ceil_mode: bool
) -> tuple[Dim, Dim, Dim]:
    total = dim(size + before + after)
    if isinstance(total, int) and total < span:
        raise too_large(axis, span, size, before, after)
    full_count = dim(floordiv(dim(total - span), stride) + 1)
    if not ceil_mode:
        return before, after, full_count
    # torch's rule: a window that would begin behind the tensor is left out.
    covering = floordiv(dim(total - span + 2 * stride - 1), stride)
    starting = floordiv(dim(size + before + stride - 1), stride)
    count = covering if stride <= span - after else starting
    if same(count, full_count) is True:
        return before, after, full_count
    return before, dim((count - 1) * stride + span - size - before), count


def per_axis(what: str, name: str, value: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """One whole number for each axis. Raises `ShapeError` for anything else."""
    numbers = value if isinstance(value, tuple | list) else (value,) * rank
    try:
        values = tuple(operator.index(number) for number in numbers)
    except TypeError:
        raise ShapeError(f"{what}: {name} must be whole numbers, got {value!r}") from None
    if len(values) != rank or min(values) < least:
        raise ShapeError(
            f"{what}: {name} must be one number or {rank}, at least {least}, got {value!r}"
        )
    return values
