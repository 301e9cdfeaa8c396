"""The first state of a workload, from which all sides start."""

from __future__ import annotations

from benchmarks.recipes import recipe_of
from benchmarks.workloads import Array, Workload
from nncompile.compiler.compile import compile_step


def initial(workload: Workload) -> dict[str, Array]:
    """Parameters, running statistics and the optimizer's slots by their names."""
    return compile_step(recipe_of(workload)).source.initial()
