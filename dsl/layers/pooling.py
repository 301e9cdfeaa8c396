"""Pooling and upsampling layers, over [batch, channels, *space]."""

from __future__ import annotations

from typing import Any, ClassVar

from dsl.layers.base import Layer
from nncompile.ir.op import Value
from nncompile.ops import (
    adaptive_average_pool,
    adaptive_max_pool,
    average_pool,
    global_average_pool,
    global_max_pool,
    lp_pool,
    max_pool,
    max_pool_with_indices,
    max_unpool,
    resize,
)
from nncompile.ops.images.resize import check_mode
from nncompile.ops.pooling.norms import check_norm_type
from nncompile.ops.windows.pooling import options


class MaxPool1d(Layer):
    """The greatest of each window along [batch, channels, length].

    `kernel_size`, `stride` (the kernel by default), `padding` (on both sides, a pair (before,
    after) for each axis, or "same") and `dilation` are one number, or one for each axis. With
    `ceil_mode` a window may hang over the end. As in torch, the first of equal elements gets the
    gradient, and with `return_indices` its places come second, for `MaxUnpool1d`; integers are
    pooled, too. Raises `ShapeError` where the kernel is larger than x with its padding, or the
    padding more than half of the kernel (as a pair, all of it).
    """

    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    dilation: Any = 1
    ceil_mode: bool = False
    return_indices: bool = False

    _axes: ClassVar[int] = 1

    def __post_init__(self) -> None:
        window = self.kernel_size, self.stride, self.padding, self.dilation
        options(type(self).__name__, self._axes, *window)

    def __call__(self, x: Any) -> Any:
        options = self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        pool = max_pool_with_indices if self.return_indices else max_pool
        return pool(x, *options, rank=self._axes, what=type(self).__name__)


class MaxPool2d(MaxPool1d):
    """The greatest of each window over [batch, channels, height, width]; as `MaxPool1d`."""

    _axes: ClassVar[int] = 2


class MaxPool3d(MaxPool1d):
    """The greatest of each window over [batch, channels, depth, height, width]; as `MaxPool1d`."""

    _axes: ClassVar[int] = 3


class MaxUnpool1d(Layer):
    """The inverse of `MaxPool1d(…, return_indices=True)`, called with its two results (and
    `output_size`, the size of what was pooled, where the default is another): elements at their
    places, zeros elsewhere. Raises `ShapeError` where x and indices do not fit."""

    kernel_size: Any
    stride: Any = None
    padding: Any = 0

    _axes: ClassVar[int] = 1

    def __post_init__(self) -> None:
        options(type(self).__name__, self._axes, self.kernel_size, self.stride, self.padding, 1)

    def __call__(self, x: Any, indices: Any, output_size: Any = None) -> Value:
        options = self.kernel_size, self.stride, self.padding, output_size
        return max_unpool(x, indices, *options, rank=self._axes, what=type(self).__name__)


class MaxUnpool2d(MaxUnpool1d):
    """`MaxUnpool1d` over [batch, channels, height, width]."""

    _axes: ClassVar[int] = 2


class MaxUnpool3d(MaxUnpool1d):
    """`MaxUnpool1d` over [batch, channels, depth, height, width]."""

    _axes: ClassVar[int] = 3


class AveragePool1d(Layer):
    """The mean of each window along [batch, channels, length].

    Options are those of `MaxPool1d`. Zeros of the padding count as elements, as in torch, unless
    `count_include_pad` is false or the padding is "same". Raises `ShapeError` where the kernel is
    larger than x with its padding.
    """

    kernel_size: Any
    stride: Any = None
    padding: Any = 0
    ceil_mode: bool = False
    count_include_pad: bool = True
    dilation: Any = 1

    _axes: ClassVar[int] = 1

    def __post_init__(self) -> None:
        window = self.kernel_size, self.stride, self.padding, self.dilation
        options(type(self).__name__, self._axes, *window)

    def __call__(self, x: Any) -> Value:
        args = self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        kind = type(self).__name__
        return average_pool(x, *args, self.dilation, rank=self._axes, what=kind)


class AveragePool2d(AveragePool1d):
    """The mean of each window over [batch, channels, height, width]; as `AveragePool1d`."""

    _axes: ClassVar[int] = 2


class AveragePool3d(AveragePool1d):
    """The mean of each window over [batch, channels, depth, height, width]; as `AveragePool1d`."""

    _axes: ClassVar[int] = 3


class LPPool1d(Layer):
    """(Σ xᵖ)^(1/p) of each window along [batch, channels, length], p the `norm_type`: 1 sums,
    infinity takes the greatest. As in torch, it is xᵖ and not |x|ᵖ. Options and errors are those of
    `AveragePool1d`."""

    norm_type: float
    kernel_size: Any
    stride: Any = None
    ceil_mode: bool = False

    _axes: ClassVar[int] = 1

    def __post_init__(self) -> None:
        kind = type(self).__name__
        check_norm_type(kind, self.norm_type)
        options(kind, self._axes, self.kernel_size, self.stride, 0, 1)

    def __call__(self, x: Any) -> Value:
        options = self.norm_type, self.kernel_size, self.stride, self.ceil_mode
        return lp_pool(x, *options, rank=self._axes, what=type(self).__name__)


class LPPool2d(LPPool1d):
    """`LPPool1d` over [batch, channels, height, width]."""

    _axes: ClassVar[int] = 2


class LPPool3d(LPPool1d):
    """`LPPool1d` over [batch, channels, depth, height, width]."""

    _axes: ClassVar[int] = 3


class GlobalAveragePool(Layer):
    """The mean over space: [batch, channels, *space] to [batch, channels]; with `keepdims`, axes of
    size one stay."""

    keepdims: bool = False

    def __call__(self, x: Any) -> Value:
        return global_average_pool(x, self.keepdims)


class GlobalMaxPool(Layer):
    """The greatest over space: [batch, channels, *space] to [batch, channels]; with `keepdims`,
    axes of size one stay. Equal greatest ones share the gradient."""

    keepdims: bool = False

    def __call__(self, x: Any) -> Value:
        return global_max_pool(x, self.keepdims)


class AdaptiveAveragePool1d(Layer):
    """The means of as many windows as `output_size` says, whatever the size of [batch, channels,
    length]: one number, or one for each axis, None where it stays. Windows are torch's."""

    output_size: Any

    _axes: ClassVar[int] = 1

    def __call__(self, x: Any) -> Value:
        return adaptive_average_pool(x, self.output_size, rank=self._axes, what=type(self).__name__)


class AdaptiveAveragePool2d(AdaptiveAveragePool1d):
    """`AdaptiveAveragePool1d` over [batch, channels, height, width]."""

    _axes: ClassVar[int] = 2


class AdaptiveAveragePool3d(AdaptiveAveragePool1d):
    """`AdaptiveAveragePool1d` over [batch, channels, depth, height, width]."""

    _axes: ClassVar[int] = 3


class AdaptiveMaxPool1d(Layer):
    """The greatest of as many windows as `output_size` says; sizes and windows are those of
    `AdaptiveAveragePool1d`."""

    output_size: Any

    _axes: ClassVar[int] = 1

    def __call__(self, x: Any) -> Value:
        return adaptive_max_pool(x, self.output_size, rank=self._axes, what=type(self).__name__)


class AdaptiveMaxPool2d(AdaptiveMaxPool1d):
    """`AdaptiveMaxPool1d` over [batch, channels, height, width]."""

    _axes: ClassVar[int] = 2


class AdaptiveMaxPool3d(AdaptiveMaxPool1d):
    """`AdaptiveMaxPool1d` over [batch, channels, depth, height, width]."""

    _axes: ClassVar[int] = 3


class Upsample(Layer):
    """[batch, channels, *space] with space `scale_factor` times as large, or of the given `size`,
    by torch's conventions. Modes are "nearest", "nearest-exact", "linear" ("bilinear",
    "trilinear"), "cubic" ("bicubic") and "area"; linear and cubic ones have `align_corners` and
    `antialias`.

    Raises `ShapeError` where sizes do not fit, `ModelError` for another mode.
    """

    scale_factor: Any = None
    mode: str = "nearest"
    size: Any = None
    align_corners: bool = False
    antialias: bool = False

    def __post_init__(self) -> None:
        check_mode("Upsample", self.mode, self.align_corners, self.antialias)

    def __call__(self, x: Any) -> Value:
        options = self.size, self.scale_factor, self.mode, self.align_corners, self.antialias
        return resize(x, *options, what="Upsample")


__all__ = [
    "AdaptiveAveragePool1d",
    "AdaptiveAveragePool2d",
    "AdaptiveAveragePool3d",
    "AdaptiveMaxPool1d",
    "AdaptiveMaxPool2d",
    "AdaptiveMaxPool3d",
    "AveragePool1d",
    "AveragePool2d",
    "AveragePool3d",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "LPPool1d",
    "LPPool2d",
    "LPPool3d",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
    "Upsample",
]
