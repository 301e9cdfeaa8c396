"""Layers that exchange space and channels, over [batch, channels, *space]."""

from __future__ import annotations

from typing import Any

from dsl.layers.base import Layer
from nncompile.ir.op import Value
from nncompile.ops.convolution.patches import fold, pixel_shuffle, pixel_unshuffle, unfold


class PixelShuffle(Layer):
    """Blocks of channels as blocks of pixels: [batch, channels·∏factors, *space] to
    [batch, channels, *space·factors], as torch's. The factor is one for all axes of space or one
    for each. Raises `ShapeError` where the channels are not a multiple of the block."""

    upscale_factor: Any

    def __call__(self, x: Any) -> Value:
        return pixel_shuffle(x, self.upscale_factor, what="PixelShuffle")


class PixelUnshuffle(Layer):
    """Blocks of pixels as blocks of channels, the inverse of `PixelShuffle`. Raises `ShapeError`
    where an axis of space is not known to be a multiple of its factor."""

    downscale_factor: Any

    def __call__(self, x: Any) -> Value:
        return pixel_unshuffle(x, self.downscale_factor, what="PixelUnshuffle")


class Unfold(Layer):
    """The patches that a kernel slides over as columns: [batch, channels, *space] to
    [batch, channels·∏kernel, patches] (im2col), as torch's; options as of `Conv2d`, in torch's
    order. Raises `ShapeError` where the kernel is larger than x with its padding."""

    kernel_size: Any
    dilation: Any = 1
    padding: Any = 0
    stride: Any = 1

    def __call__(self, x: Any) -> Value:
        return unfold(x, self.kernel_size, self.dilation, self.padding, self.stride, what="Unfold")


class Fold(Layer):
    """Columns put back to where `Unfold` takes them from and added up where they overlap:
    [batch, channels·∏kernel, patches] to [batch, channels, *output_size] (col2im), as torch's.
    Raises `ShapeError` where rows or columns are not those of such patches."""

    output_size: Any
    kernel_size: Any
    dilation: Any = 1
    padding: Any = 0
    stride: Any = 1

    def __call__(self, x: Any) -> Value:
        options = self.kernel_size, self.dilation, self.padding, self.stride
        return fold(x, self.output_size, *options, what="Fold")


__all__ = ["Fold", "PixelShuffle", "PixelUnshuffle", "Unfold"]
