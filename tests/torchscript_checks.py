"""Tensors for TorchScript."""

from __future__ import annotations

from typing import Any

import numpy as np


def fed(torch: Any, *arrays: np.ndarray) -> list[Any]:
    return [torch.from_numpy(np.array(a, order="C")) for a in arrays]
