"""Optimizers by name, as command lines and configurations give them."""

from __future__ import annotations

from collections.abc import Mapping

from nncompile.diagnostics.errors import ModelError, did_you_mean
from nncompile.optim.adafactor import adafactor
from nncompile.optim.adam import adam, adamax, adamw, lamb, nadam, radam
from nncompile.optim.adaptive import adadelta, adagrad, rmsprop
from nncompile.optim.base import Optimizer
from nncompile.optim.descent import asgd, lion, rprop, sgd
from nncompile.optim.lbfgs import lbfgs
from nncompile.optim.muon import muon

OPTIMIZERS: Mapping[str, type[Optimizer]] = {
    kind.__name__: kind
    for kind in (
        *(adadelta, adafactor, adagrad, adam, adamax, adamw, asgd, lamb, lbfgs, lion, muon),
        *(nadam, radam, rmsprop, rprop, sgd),
    )
}


def optimizer_named(name: str) -> type[Optimizer]:
    """The optimizer of that name. Raises `ModelError` where there is none."""
    if name not in OPTIMIZERS:
        raise ModelError(f"there is no optimizer {name!r}", hint=did_you_mean(name, OPTIMIZERS))
    return OPTIMIZERS[name]
