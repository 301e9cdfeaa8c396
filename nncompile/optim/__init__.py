"""Optimizers and learning rate schedules, as formulas in the graph."""

from nncompile.optim.clipping import clip_by_norm, clip_by_value, global_norm
from nncompile.optim.optimizers import Optimizer, adam, adamw, rmsprop, sgd
from nncompile.optim.schedules import (
    LearningRate,
    Schedule,
    constant,
    cosine,
    exponential,
    schedule,
    step_decay,
)

__all__ = [
    "LearningRate",
    "Optimizer",
    "Schedule",
    "adam",
    "adamw",
    "clip_by_norm",
    "clip_by_value",
    "constant",
    "cosine",
    "exponential",
    "global_norm",
    "rmsprop",
    "schedule",
    "sgd",
    "step_decay",
]
