"""Processes that Ray Train started, and torch connects."""

from __future__ import annotations

from typing import Any

from nncompile.diagnostics.errors import ModelError
from nncompile.diagnostics.extras import extra
from nncompile.parallel.processes import Processes
from nncompile.parallel.torch_distributed import torch_distributed
from nncompile.parallel.waiting import TIMEOUT


def ray_train(
    timeout: float = TIMEOUT, shard_optimizer: bool = False, every: int | None = None
) -> Processes:
    """The workers of a `ray.train.torch.TorchTrainer`, for `Trainer(recipe, parallel=ray_train())`
    in its function: each computes its rows of every batch, so that all get the same data, and not a
    shard. See `mpi` for the options. Raises `ModelError` where Ray or torch is not installed, or
    this process is no such worker."""
    hint = "pip install 'ray[train]'"
    extra("ray", "ray", "ray_train()", hint, ModelError)
    train = extra("ray.train", "ray", "ray_train()", hint, ModelError)
    rank, size = _place(train)
    processes = torch_distributed(timeout, shard_optimizer, every)
    if (processes.rank, processes.size) != (rank, size):
        raise ModelError(
            f"Ray Train says that this is worker {rank} of {size}, and torch connects it as "
            f"{processes.rank} of {processes.size}",
            hint="ray.train.torch.TorchTrainer connects its workers",
        )
    return processes


def _place(train: Any) -> tuple[int, int]:
    """Which worker this is, and of how many."""
    hint = "call it in the function that ray.train.torch.TorchTrainer(...).fit() runs"
    try:
        context = train.get_context()
        rank, size = context.get_world_rank(), context.get_world_size()
    except RuntimeError:  # as Ray says it of another process
        rank, size = None, None
    if rank is None or size is None:
        raise ModelError("ray_train() is for workers of Ray Train, and this is none", hint=hint)
    return int(rank), int(size)
