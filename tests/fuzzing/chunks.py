"""The pieces that a search is cut into, each of one seed and with one card in focus, so that rare
cards are drawn as often as common ones."""

from __future__ import annotations

import warnings
from typing import Any

from nncompile.ir.graph import Op
from tests.fuzzing.search import Results, cards, search

CHUNK = 25  # programs of one seed, in a long search
SLICE = 6  # in the one that the test suite has time for


def run_chunk(chunk: tuple[int, int]) -> dict[str, Any]:
    """What came of the chunk of that seed, with so many tries to make a failure smaller."""
    seed, shrinking = chunk
    warnings.simplefilter("ignore")  # torch's own, about TorchScript
    focus = cards()[seed % len(cards())]
    results = search(CHUNK, seed, focus, shrinking=shrinking)
    return {
        "seed": seed,
        "focus": focus.__name__,
        "count": results.count,
        "seconds": results.seconds,
        "cards": dict(results.cards),
        "failures": [[f.kind, str(f)] for f in results.failures],
    }


def slice_of(card: type[Op], shrinking: int) -> Results:
    """A few programs with that card in focus: the same in every run."""
    return search(SLICE, cards().index(card), card, shrinking=shrinking)
