"""The pieces that a search is cut into, each of one seed and with one op in focus, so that rare
ops are drawn as often as common ones."""

from __future__ import annotations

import warnings
from typing import Any

from nncompile.ir.op import Op
from tests.fuzzing.search import Results, op_types, search

CHUNK = 25  # programs of one seed, in a long search
SLICE = 6  # in the one that the test suite has time for


def run_chunk(chunk: tuple[int, int]) -> dict[str, Any]:
    """What came of the chunk of that seed, with so many tries to make a failure smaller."""
    seed, shrinking = chunk
    warnings.simplefilter("ignore")  # torch's own, about TorchScript
    focus = op_types()[seed % len(op_types())]
    results = search(CHUNK, seed, focus, shrinking=shrinking)
    return {
        "seed": seed,
        "focus": focus.__name__,
        "count": results.count,
        "seconds": results.seconds,
        "ops": dict(results.op_types),
        "failures": [[f.kind, str(f)] for f in results.failures],
    }


def slice_of(op_type: type[Op], shrinking: int) -> Results:
    """A few programs with that op in focus: the same in every run."""
    return search(SLICE, op_types().index(op_type), op_type, shrinking=shrinking)
