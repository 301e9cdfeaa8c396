"""Training by several processes: each computes its rows of every batch, and all make the step."""

from nncompile.parallel.message_passing import mpi
from nncompile.parallel.ray_train import ray_train
from nncompile.parallel.torch_distributed import torch_distributed

__all__ = ["mpi", "ray_train", "torch_distributed"]
