"""The public functions of [batch, channels, *space] that are made of other ops."""

from nncompile.ops.grid_sampling import affine_grid, grid_sample
from nncompile.ops.local_pooling import local_response_norm, lp_pool
from nncompile.ops.patches import fold, pixel_shuffle, pixel_unshuffle, unfold
from nncompile.ops.pooling_places import max_pool_with_indices, max_unpool

__all__ = [
    "affine_grid",
    "fold",
    "grid_sample",
    "local_response_norm",
    "lp_pool",
    "max_pool_with_indices",
    "max_unpool",
    "pixel_shuffle",
    "pixel_unshuffle",
    "unfold",
]
