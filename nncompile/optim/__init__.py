"""Optimizers and learning rate schedules, as formulas in the graph."""

from nncompile.optim.adafactor import adafactor
from nncompile.optim.adam import adam, adamax, adamw, lamb, nadam, radam
from nncompile.optim.adaptive import adadelta, adagrad, rmsprop
from nncompile.optim.base import Optimizer
from nncompile.optim.curves import (
    cosine,
    inverse_sqrt,
    linear_decay,
    multi_step,
    one_cycle,
    piecewise,
    polynomial,
    warm_restarts,
    warmup,
)
from nncompile.optim.descent import asgd, lion, rprop, sgd
from nncompile.optim.lbfgs import lbfgs
from nncompile.optim.muon import muon
from nncompile.optim.plateau import plateau
from nncompile.optim.schedules import (
    Schedule,
    exponential,
    schedule,
    step_decay,
)
from nncompile.optim.schedules import constant as constant_rate

__all__ = [
    "Optimizer",
    "Schedule",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "asgd",
    "constant_rate",
    "cosine",
    "exponential",
    "inverse_sqrt",
    "lamb",
    "lbfgs",
    "linear_decay",
    "lion",
    "multi_step",
    "muon",
    "nadam",
    "one_cycle",
    "piecewise",
    "plateau",
    "polynomial",
    "radam",
    "rmsprop",
    "rprop",
    "schedule",
    "sgd",
    "step_decay",
    "warm_restarts",
    "warmup",
]
