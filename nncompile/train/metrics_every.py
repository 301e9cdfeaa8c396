"""How many steps a training makes before it reads their metrics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import whole_number
from nncompile.runtime.cuda.kernels import CUDA
from nncompile.runtime.providers import Provider, resolve_providers

ON_DEVICE = 16
"""Steps before their metrics are read, where nothing is said: on CUDA, of a small state."""
SMALL = 2**28
"""Bytes of a small state. It is there three times; and a step of a larger one takes longer than it
takes to wait for it."""


def checked(metrics_every: Any) -> int | None:
    """The option of a trainer. Raises `ModelError` where it is no whole number, or below 1."""
    return None if metrics_every is None else whole_number("metrics_every", metrics_every, 1)


def steps_ahead(
    metrics_every: int | None,
    providers: Provider | Sequence[Provider],
    state: Mapping[str, Any],
    in_place: bool,
) -> int:
    """How many steps are made before their metrics are read. In place it is one, as there is no
    state to go back to."""
    if in_place:
        return 1
    if metrics_every is not None:
        return metrics_every
    on_device = resolve_providers(providers)[0][0] == CUDA
    is_small = sum(np.asarray(x).nbytes for x in state.values()) <= SMALL
    return ON_DEVICE if is_small and on_device else 1
