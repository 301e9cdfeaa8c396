"""Training by several processes: each computes its rows of every batch, and all make the step."""

from nncompile.parallel.message_passing import mpi

__all__ = ["mpi"]
