"""Arrays as tensors and back; numpy's bfloat16, which torch does not take, passes as its bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from nncompile.ir.types import Array, bf16


def tensor_of(array: Any) -> torch.Tensor:
    """A tensor of its own that holds the array."""
    own = np.array(array, order="C")
    if own.dtype == bf16.numpy:
        return torch.from_numpy(own.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(own)


def array_of(tensor: torch.Tensor) -> Array:
    """The array of a tensor, wherever that is."""
    local = tensor.detach().cpu()
    if local.dtype is torch.bfloat16:
        bits: Array = local.contiguous().view(torch.int16).numpy()
        return bits.view(bf16.numpy)
    array: Array = local.numpy()
    return array
