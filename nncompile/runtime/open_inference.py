"""Tensors as the Open Inference Protocol (KServe v2) describes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from nncompile.ir.types import bf16
from nncompile.runtime.feeds import Port

DATATYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("bool"),
    **{f"{u}INT{n}": np.dtype(f"{u}int{n}".lower()) for u in ("", "U") for n in (8, 16, 32, 64)},
    **{f"FP{n}": np.dtype(f"float{n}") for n in (16, 32, 64)},
    "BF16": bf16.numpy,
}
"""The element types by their names in the protocol; text (BYTES) no model takes."""

DATATYPE_NAMES = {dtype: name for name, dtype in DATATYPES.items()}


def described(ports: Sequence[Port]) -> list[dict[str, Any]]:
    """Inputs or outputs as the metadata of a model have them: -1 is a size of any number."""
    return [
        {
            "name": port.name,
            "datatype": DATATYPE_NAMES[port.dtype],
            "shape": [size if isinstance(size, int) else -1 for size in port.shape],
        }
        for port in ports
    ]
