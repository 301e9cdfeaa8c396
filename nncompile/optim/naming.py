"""Optimizers by name, as command lines and configurations give them."""

from __future__ import annotations

from collections.abc import Mapping

from nncompile import optim
from nncompile.diagnostics.errors import ModelError, did_you_mean
from nncompile.optim.base import Optimizer

OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    name: kind
    for name in optim.__all__
    if isinstance(kind := getattr(optim, name), type)
    and issubclass(kind, Optimizer)
    and kind is not Optimizer
}
"""All that `nncompile.optim` offers."""


def optimizer_named(name: str) -> type[Optimizer]:
    """The optimizer of that name. Raises `ModelError` where there is none."""
    if name not in OPTIMIZERS:
        raise ModelError(f"there is no optimizer {name!r}", hint=did_you_mean(name, OPTIMIZERS))
    return OPTIMIZERS[name]
