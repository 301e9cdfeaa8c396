"""Changes of the colours of images [batch, channels, height, width], while training only."""

from __future__ import annotations

from typing import Any

import numpy as np

from dsl.augmentation.images import images
from dsl.layers.base import Layer
from dsl.layers.noise import at_least_zero, draw_key
from nncompile.diagnostics.errors import ModelError, ShapeError
from nncompile.elementwise import clip, maximum, minimum, mod, where
from nncompile.ir.basic import floating
from nncompile.ir.dims import same
from nncompile.ir.op import Value, described
from nncompile.ops import concatenate, const, mean, random_key, split, uniform, while_training
from nncompile.ops import sum as sum_of

_GREY = 0.299, 0.587, 0.114


def hue_turned(x: Value, turn: Any) -> Value:
    """Images of red, green and blue with the hue of each pixel (of HSV) turned by that part of the
    circle of colours; the greatest and the least of the three stay as they are.

    The scale of x does not matter: hue follows from differences alone.
    """
    red, green, blue = split(x, 3, axis=1)
    largest, smallest = maximum(maximum(red, green), blue), minimum(minimum(red, green), blue)
    range_ = largest - smallest
    divisor = where(range_ > 0, range_, 1)
    rest = where(green >= largest, (blue - red) / divisor + 2, (red - green) / divisor + 4)
    sixth = where(red >= largest, (green - blue) / divisor, rest) + 6 * turn
    # Red, green and blue of a hue, in sixths of the circle: how far each is below the greatest.
    sextants = (mod(sixth + n, 6) for n in (5, 3, 1))
    below = [clip(minimum(k, 4 - k), 0, 1) for k in sextants]
    return concatenate([largest - range_ * level for level in below], 1)


class ColorJitter(Layer):
    """While training, the colors of each image are changed at random, in this order, each by at
    most its option, and not at all where that is 0, as `saturation` and `hue` are by default:

    - `brightness`: x·b, b within 1 ± brightness (factors are not below 0);
    - `contrast`: (x − m)·c + m, c within 1 ± contrast, m the mean of the image;
    - `saturation`: (x − g)·s + g, s within 1 ± saturation, g the grey of each pixel,
      0.299·red + 0.587·green + 0.114·blue (ITU-R BT.601);
    - `hue`: the hue of each pixel (that of HSV, a circle of length 1) turned by within ± hue, at
      most 0.5; the greatest and the least of its colours stay.

    The last two need three channels, red, green and blue, of one scale, whatever it is. `limits`
    (lowest, highest) clips the result. Options are torchvision's ColorJitter's, whose contrast is
    about the mean grey, and which changes the order and clips after each. Raises `ShapeError` for
    another number of channels.
    """

    brightness: float = 0.2
    contrast: float = 0.2
    saturation: float = 0.0
    hue: float = 0.0
    limits: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        for option in ("brightness", "contrast", "saturation", "hue"):
            at_least_zero(f"the {option} of ColorJitter", getattr(self, option))
        if self.hue > 0.5:
            raise ModelError(
                f"the hue of ColorJitter must be at most 0.5, got {self.hue!r}",
                hint="0.5 is half of the color wheel, in either direction",
            )

    def __call__(self, x: Any) -> Value:
        x = floating("ColorJitter", images("ColorJitter", x))
        key = draw_key("ColorJitter")
        y = x
        if self.brightness:
            y = y * self._factor(random_key("brightness", key), x, self.brightness)
        if self.contrast:
            average = mean(y, (1, 2, 3), keepdims=True)
            factor = self._factor(random_key("contrast", key), x, self.contrast)
            y = (y - average) * factor + average
        if (self.saturation or self.hue) and same(x.shape[1], 3) is not True:
            raise ShapeError(
                f"ColorJitter: saturation and hue need three channels, x is {x.type}",
                rows=[("x", *described(x))],
                hint="saturation=0, hue=0 turns them off",
            )
        if self.saturation:
            weights = const(np.asarray(_GREY).reshape(3, 1, 1), x.dtype)
            grey = sum_of(y * weights, 1, keepdims=True)
            factor = self._factor(random_key("saturation", key), x, self.saturation)
            y = (y - grey) * factor + grey
        if self.hue:
            turn = uniform(random_key("hue", key), (x.shape[0], 1, 1, 1), -1, 1, x.dtype)
            y = hue_turned(y, turn * self.hue)
        return while_training(y if self.limits is None else clip(y, *self.limits), x)

    def _factor(self, key: Value, x: Value, range_: float) -> Value:
        lowest = max(0.0, 1 - range_)
        return uniform(key, (x.shape[0], 1, 1, 1), lowest, 1 + range_, x.dtype)


__all__ = [
    "ColorJitter",
]
