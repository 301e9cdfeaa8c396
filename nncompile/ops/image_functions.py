"""The public functions of [batch, channels, *space] that are made of other ops."""

from nncompile.ops.convolution.patches import fold, pixel_shuffle, pixel_unshuffle, unfold
from nncompile.ops.images.grid_sampling import affine_grid, grid_sample
from nncompile.ops.pooling.norms import local_response_norm, lp_pool
from nncompile.ops.pooling.places import max_pool_with_indices, max_unpool

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
