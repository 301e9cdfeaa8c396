"""Optimizers and learning rate schedules, as formulas in the graph.

What an optimizer of one's own is made of is imported from here, too: `Slots`, `resolve`, `descend`,
`accumulate`, `accumulate_squares`, `decay_factor`, and `Moments`, the base of those like Adam.
"""

from nncompile.optim.adafactor import adafactor
from nncompile.optim.adam import adam, adamax, adamw, lamb, nadam, radam
from nncompile.optim.adaptive import adadelta, adagrad, rmsprop
from nncompile.optim.adjustable import adjustable
from nncompile.optim.base import Moments as Moments
from nncompile.optim.base import Optimizer
from nncompile.optim.base import Slots as Slots
from nncompile.optim.base import accumulate as accumulate
from nncompile.optim.base import accumulate_squares as accumulate_squares
from nncompile.optim.base import decay_factor as decay_factor
from nncompile.optim.base import descend as descend
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
from nncompile.optim.schedules import resolve as resolve

__all__ = [
    "Optimizer",
    "Schedule",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "adjustable",
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
