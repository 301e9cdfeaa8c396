"""The public functions of [batch, channels, *space] that are made of other ops."""

from nncompile.ops.grid_sampling import affine_grid, grid_sample
from nncompile.ops.patches import fold, pixel_shuffle, pixel_unshuffle, unfold

__all__ = [
    "affine_grid",
    "fold",
    "grid_sample",
    "pixel_shuffle",
    "pixel_unshuffle",
    "unfold",
]
