"""The training steps as a user of the language writes them."""

from __future__ import annotations

from benchmarks.networks import in_dsl
from benchmarks.workloads import Workload
from dsl import adam, adamw, sgd, training
from nncompile.program.recipe import Recipe

OPTIMIZERS = {
    "sgd": sgd,
    "momentum": lambda rate: sgd(rate, momentum=0.9),
    "adam": adam,
    "adamw": adamw,
}


def recipe_of(workload: Workload) -> Recipe:
    """Its network, loss and optimizer."""
    model = in_dsl.NETWORKS[workload.network](**workload.options)
    optimizer = OPTIMIZERS[workload.optimizer](workload.learning_rate)
    return training(model, minimize="loss", optimizer=optimizer, batch_size=workload.batch)
