"""Several training steps one after the other, by any way to compute one."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from nncompile.ir.graph import Graph
from nncompile.ir.types import Array
from nncompile.verify.backends import Backend, Function
from nncompile.verify.error_bound import Compute, Reference, computed_by
from nncompile.verify.locate import Place, first_mismatch

Arrays = dict[str, Array]

STEPS = 10


class Trajectory:
    """The state after the first and the last of several steps, each on a batch of its own; the
    outputs are called `PATH after 1 step` and `PATH after 10 steps`."""

    def __init__(
        self, state_map: Mapping[str, str], start: Mapping[str, Array], batches: Sequence[Arrays]
    ) -> None:
        self.state_map, self.start, self.batches = state_map, dict(start), batches

    def run(self, step: Callable[[Arrays], Mapping[str, Array]]) -> Arrays:
        """The states, where `step` computes one step of state and batch."""
        arrays: Arrays = {}
        for number, state in enumerate(self.states(step), start=1):
            if number in (1, len(self.batches)):
                label = f"after {number} step{'s' if number > 1 else ''}"
                arrays |= {f"{path} {label}": state[path] for path in self.state_map}
        return arrays

    def states(self, step: Callable[[Arrays], Mapping[str, Array]]) -> list[Arrays]:
        """The state after each step."""
        state, states = dict(self.start), []
        for batch in self.batches:
            results = step({**state, **batch})
            state = {**state, **{path: results[n] for path, n in self.state_map.items()}}
            states.append(state)
        return states

    def computed(self, graph: Graph) -> Compute:
        """The states as numpy computes them by the graph of a step."""

        def compute(double: bool, change: Any = None) -> Arrays:
            return self.run(lambda feeds: computed_by(graph, feeds)(double, change))

        return compute

    def first_mismatch(
        self, graph: Graph, backend: Backend, function: Function, seed: int
    ) -> tuple[Arrays, Place | None]:
        """The state and batch of the first step that mismatches where it begins with the state of
        the reference, and the first node of it; those of the last step where none mismatches."""
        following = self.states(lambda feeds: computed_by(graph, feeds)(double=True))
        feeds: Arrays = {}
        for state, batch in zip([self.start, *following], self.batches, strict=False):
            declared = {path: x.astype(self.start[path].dtype) for path, x in state.items()}
            feeds = {**declared, **batch}
            differences = Reference(computed_by(graph, feeds), (seed,)).differences(function(feeds))
            if any(d.mismatches for d in differences):
                return feeds, first_mismatch(graph, backend, feeds, seed)
        return feeds, None
