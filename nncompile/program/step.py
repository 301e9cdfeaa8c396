"""One step of training as graphs, and the state that it begins with."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from nncompile.elementwise import logical_not, where
from nncompile.ir.graph import Graph, Input, input_of
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import replace as replaced
from nncompile.ir.types import Array, Type, boolean
from nncompile.ops.random.generator import step_leaf
from nncompile.optim.schedules import TRAINING
from nncompile.program.first_row import with_first_row
from nncompile.program.initialization import initial_values
from nncompile.program.metric_aggregation import Accumulation
from nncompile.program.model import RANDOM_STATE, Model
from nncompile.program.recipe import Recipe
from nncompile.program.reductions import Reductions

INFINITE = f"{TRAINING}infinite"
"""Whether the sums of any process are not finite, within a window of batches."""


@dataclass(frozen=True, eq=False)
class Step:
    """One step of training as graphs.

    `step` computes the metrics, at the state it is given, and the next state: output `PATH.next`
    for each state `PATH` that changes (`state_map`). `gradient` gives the metrics, `PATH.grad` for
    each trained parameter and the next value of states that follow from the batch alone; `update`
    takes the state and what `gradient` gave, and computes the rest of the next state. `evaluate`
    computes the metrics as they are after training (no dropout, running statistics).

    What the metrics over several batches are computed of, where that is more than themselves, is
    among the outputs of all but `update`: `accumulation` says how, `evaluation` of `evaluate`.
    `averages` are the averages of weights that the recipe keeps, by name: of each parameter that
    one is of, the path of its state.

    `sums` are, of a recipe that accumulates, by the name of a gradient the state that holds its sum
    and the value of that sum with the gradient of this batch. `is_finite` says whether they are, of
    a recipe that takes rules back with each batch after which they are not.

    `gradient` computes as well what a batch weighs (`LOSS.batch_weight`), and `reductions` say how
    its outputs follow from those of parts of a batch. Where an update sees what an earlier one made
    of the batch, `in_turn` is the same half of several processes: what is handed over for the
    earlier one is an output of some name, and an input of that name stands for what it is of all.
    """

    recipe: Recipe
    gradient: Graph
    update: Graph
    step: Graph
    evaluate: Graph
    state: dict[str, Type]
    state_map: dict[str, str]
    accumulation: Accumulation
    evaluation: Accumulation
    first: dict[str, Value] = field(default_factory=dict)
    averages: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    sums: Mapping[str, tuple[str, Value]] = field(default_factory=dict)
    in_turn: Graph | None = None
    is_finite: Value | None = None
    reductions: Reductions = field(kw_only=True)

    @property
    def model(self) -> Model:
        """The model that is trained."""
        return self.recipe.model

    @property
    def results(self) -> list[str]:
        """The outputs of the step that are no states."""
        states = {*self.state_map.values()}
        return [name for name in self.step.outputs if name not in states]

    @cached_property
    def gradient_of_rows(self) -> Graph:
        """`gradient` of some rows of a batch. Where it draws random numbers for each, it has an
        input `first_row`: the number of its first row in the whole batch."""
        return with_first_row(self.gradient, self.recipe.trained_model.examples)

    def in_turn_of_rows(self, of_sums: bool) -> Graph:
        """The same of `in_turn`, where there is that. An input of the name of a gradient may be its
        sum since the last update, with this batch, as in `following_of_sums`."""
        if self.in_turn is None:
            return self.gradient_of_rows
        graph = self.in_turn
        if of_sums:
            leaves = {v: apply(Input(n, v.type)) for n, (_, v) in self.sums.items()}
            values = replaced(list(graph.outputs.values()), leaves)
            outputs = dict(zip(graph.outputs, values, strict=True))
            graph = replace(graph, outputs=outputs, inputs=())
        return with_first_row(graph, self.recipe.trained_model.examples)

    @cached_property
    def following(self) -> Graph:
        """The next value of every state that changes, from the state and what `gradient` gave:
        `update`, and `PATH.reduced` in the place of what followed from the batch."""
        passed = {n: v for n, v in self.gradient.outputs.items() if n in self.state_map.values()}
        leaves = {
            n: apply(Input(f"{n.removesuffix('.next')}.reduced", v.type)) for n, v in passed.items()
        }
        state = [leaf for path, leaf in self.step.leaves.items() if path in self.state]
        handed = [leaf for leaf in self.update.inputs if input_of(leaf).kind == "input"]
        return replace(
            self.update,
            name=f"{self.recipe.model.name}_following",
            outputs={**self.update.outputs, **leaves},
            inputs=(*state, *handed, *leaves.values()),
        )

    @cached_property
    def following_of_sums(self) -> Graph:
        """`following` where gradients are added up outside of it: an input of the name of a
        gradient is its sum since the last update, with this batch, and there are no states that
        hold it. What it is before the last batch of a window is all the same: where it matters
        whether a sum is finite, an input `training.infinite` says so."""
        graph, state = self.following, self.step.leaves
        leaves = {n: apply(Input(n, v.type)) for n, (_, v) in self.sums.items()}
        slots = {slot for slot, _ in self.sums.values()}
        gone = {state[slot] for slot in slots}
        outputs = {n: v for n, v in graph.outputs.items() if n.removesuffix(".next") not in slots}
        known = {v: leaves[n] for n, (_, v) in self.sums.items()}
        if self.is_finite is not None:
            (of_sums,) = replaced([self.is_finite], known)
            infinite = apply(Input(INFINITE, Type(boolean, ())))
            is_due = (step_leaf() + 1) % self.recipe.accumulate == 0
            known[self.is_finite] = where(is_due, of_sums, logical_not(infinite))
        values = replaced(list(outputs.values()), known)
        inputs = [leaf for leaf in graph.inputs if leaf not in gone]
        inputs = [leaves.get(input_of(leaf).name, leaf) for leaf in inputs]
        return replace(
            graph,
            name=f"{graph.name}_of_sums",
            outputs=dict(zip(outputs, values, strict=True)),
            inputs=tuple(inputs),
        )

    @cached_property
    def digest(self) -> str:
        """What tells steps apart that compute something else, the same in every process: of the
        outputs of `step`, before any pass. Files of one step carry it."""
        digest = hashlib.blake2b(digest_size=16)
        for name, value in sorted(self.step.outputs.items()):
            digest.update(name.encode() + b"\0" + value.digest)
        return digest.hexdigest()

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The paths of the parameters."""
        return tuple(self.model.parameters)

    @property
    def trained_paths(self) -> list[str]:
        """The paths of the state that the trained model is computed of: all but slots."""
        owned = {**self.model.parameters, **self.model.states}
        return [path for path in self.state if path in owned or path in RANDOM_STATE]

    def initial(self, seed: int | None = None) -> dict[str, Array]:
        """The first state: parameters as the model draws them from `seed` (that of the recipe
        where it is None), slots as `first` says or of zeros, step 0. The same seed gives the same
        bits."""
        seed = self.recipe.seed if seed is None else seed
        parameters = initial_values(self.model, seed)
        start = {"step": np.zeros((), np.int64), "seed": np.asarray(seed, np.int64), **parameters}
        slots = evaluate(list(self.first.values()), start)
        start |= {path: np.array(x) for path, x in zip(self.first, slots, strict=True)}
        return {
            path: start.get(path, np.zeros(type_.shape, type_.dtype.numpy))
            for path, type_ in self.state.items()
        }
