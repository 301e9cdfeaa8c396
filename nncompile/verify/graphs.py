"""The graphs of a model that are compared."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from nncompile.ir.graph import Graph, input_of
from nncompile.ir.types import Array
from nncompile.passes import optimize
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from nncompile.program.step import Step
from nncompile.verify.backends import Lowered
from nncompile.verify.error_bound import Reference, computed_by
from nncompile.verify.inputs import Case
from nncompile.verify.report import COLUMNS

Arrays = dict[str, Array]

FORWARD, GRADIENTS, TRAINING = COLUMNS


@dataclass
class GraphUnderTest:
    """A graph that is compared, before and after the passes, and which of its outputs belong to
    which column."""

    graph: Graph
    column: dict[str, str]

    @cached_property
    def lowered(self) -> Lowered:
        """The graph after the passes, for the backends."""
        return Lowered(optimize(self.graph))

    def reference(self, case: Case, seed: int, number: int) -> Reference:
        """The error bound of this case, from perturbed evaluations of both graphs."""
        after, before = self.lowered.graph, self.graph
        return Reference(
            computed_by(after, case.feeds), (seed, number), computed_by(before, case.feeds)
        )


def inference_of(model: Model) -> GraphUnderTest:
    """The inference graph."""
    graph = model.inference()
    return GraphUnderTest(graph, dict.fromkeys(graph.outputs, FORWARD))


def learning_of(model: Model, recipe: Recipe | None, step: Step | None) -> GraphUnderTest:
    """What is computed while training: all outputs, and the gradients."""
    trained = recipe.trained_model.whole if recipe is not None else model.whole
    outputs, column = dict(trained.outputs), dict.fromkeys(trained.outputs, FORWARD)
    if step is not None:
        handed = {n for n, v in step.update.leaves.items() if input_of(v).kind == "input"}
        outputs |= step.gradient.outputs
        column |= {n: GRADIENTS if n in handed else FORWARD for n in step.gradient.outputs}
    leaves = {**model.whole.leaves, **trained.leaves}
    inputs = tuple(v for v in leaves.values() if input_of(v).kind == "input")
    graph = Graph(f"{model.name}_learning", outputs, inputs, trained.locations)
    return GraphUnderTest(graph, column)
