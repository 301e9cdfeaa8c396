"""What backends compute and are compared on: one evaluation of a graph, or some training steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from nncompile.ir.types import Array
from nncompile.verify.backends import Backend, Function
from nncompile.verify.error_bound import Difference, Reference
from nncompile.verify.graphs import TRAINING, GraphUnderTest
from nncompile.verify.inputs import Case
from nncompile.verify.locate import Place, first_mismatch, first_pass
from nncompile.verify.steps import STEPS, Trajectory

Arrays = dict[str, Array]


class Experiment(ABC):
    """A graph on a case, with the reference of its results and the columns that these belong to."""

    under_test: GraphUnderTest
    case: Case
    reference: Reference
    columns: Mapping[str, str]

    @abstractmethod
    def run(self, function: Function) -> Arrays:
        """The results, where a backend computes the graph by `function`."""

    @abstractmethod
    def first_pass(self, difference: Difference) -> Place | None:
        """The first pass that makes the difference."""

    @abstractmethod
    def first_mismatch(
        self, backend: Backend, function: Function, seed: int
    ) -> tuple[Arrays, Place | None]:
        """The feeds on which a backend mismatches, and its first node that does."""


class Evaluation(Experiment):
    """A graph that is computed once."""

    def __init__(self, under_test: GraphUnderTest, case: Case, seed: int, number: int) -> None:
        self.under_test, self.case = under_test, case
        self.reference = under_test.reference(case, seed, number)
        self.columns = under_test.column

    def run(self, function: Function) -> Arrays:
        return function(self.case.feeds)

    def first_pass(self, difference: Difference) -> Place | None:
        bound = self.reference.bound[difference.output]
        return first_pass(self.under_test.graph, difference.output, self.case.feeds, bound)

    def first_mismatch(
        self, backend: Backend, function: Function, seed: int
    ) -> tuple[Arrays, Place | None]:
        feeds = self.case.feeds
        return feeds, first_mismatch(self.under_test.lowered.graph, backend, feeds, seed)


class Steps(Experiment):
    """Several training steps, one after the other."""

    def __init__(self, under_test: GraphUnderTest, case: Case, trajectory: Trajectory) -> None:
        self.under_test, self.case, self.trajectory = under_test, case, trajectory
        after = trajectory.computed(under_test.lowered.graph)
        before = trajectory.computed(under_test.graph)
        self.reference = Reference(after, (case.seed, STEPS), before)
        self.columns = dict.fromkeys(self.reference.exact, TRAINING)

    def run(self, function: Function) -> Arrays:
        return self.trajectory.run(function)

    def first_pass(self, difference: Difference) -> Place | None:
        path = difference.output.partition(" after ")[0]
        output, bound = self.trajectory.state_map[path], self.reference.bound[difference.output]
        return first_pass(self.under_test.graph, output, self.case.feeds, bound)

    def first_mismatch(
        self, backend: Backend, function: Function, seed: int
    ) -> tuple[Arrays, Place | None]:
        graph = self.under_test.lowered.graph
        return self.trajectory.first_mismatch(graph, backend, function, seed)
