"""A recipe as graphs: the training step, and the two halves that it is composed of.

`gradient(state, batch) → (gradients, metrics, what follows from the batch)` and
`update(state, gradients) → state'`. Accumulation, an all-reduce or loss scaling stand between
them; the step is one put into the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import GradientError, ModelError
from nncompile.diagnostics.locations import recording_locations
from nncompile.elementwise import where
from nncompile.ir.basic import cast, size_value
from nncompile.ir.broadcasting import zeros_like
from nncompile.ir.gc_pause import without_collection
from nncompile.ir.graph import Graph, Input, input_of
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value, described
from nncompile.ir.transform import replace
from nncompile.ir.types import Array, Type, f64
from nncompile.ops.random.generator import seed_leaf, step_leaf
from nncompile.ops.shape.joining import concatenate, sections
from nncompile.ops.shape.reshape import ravel, reshape
from nncompile.optim import Optimizer
from nncompile.optim.schedules import TRAINING, Stateful
from nncompile.program.gradient_accumulation import accumulated_mean, batch_weight
from nncompile.program.gradient_transforms import bounded, prepared
from nncompile.program.initialization import initial_values
from nncompile.program.metric_aggregation import Accumulation, accumulation
from nncompile.program.model import Model, leaves_of
from nncompile.program.recipe import Average, Recipe, assign, minimize
from nncompile.program.updated_state import UpdatedState


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

    @property
    def model(self) -> Model:
        """The model that is trained."""
        return self.recipe.model

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """The paths of the parameters."""
        return tuple(self.model.parameters)

    def initial(self, seed: int | None = None) -> dict[str, Array]:
        """The first state: parameters as the model draws them from `seed` (that of the recipe
        where it is None), slots as `first` says or of zeros, step 0. The same seed gives the same
        bits."""
        seed = self.recipe.seed if seed is None else seed
        drawn = initial_values(self.model, seed)
        start = {"step": np.zeros((), np.int64), "seed": np.asarray(seed, np.int64), **drawn}
        made = evaluate(list(self.first.values()), start)
        start |= {path: np.array(x) for path, x in zip(self.first, made, strict=True)}
        return {
            path: start.get(path, np.zeros(type_.shape, type_.dtype.numpy))
            for path, type_ in self.state.items()
        }


@without_collection
def compose(recipe: Recipe, closing: bool = False) -> Step:
    """The graphs of one step of the recipe; `closing`, of a step that updates with what was
    accumulated up to here, whether or not it is the last of its window. Raises `ModelError` where
    it is no recipe or two things in it have one name, `GradientError` where a loss cannot be
    differentiated."""
    if not isinstance(recipe, Recipe):
        named = f"model {recipe.name}" if isinstance(recipe, Model) else repr(recipe)
        raise ModelError(
            f"training needs a recipe, got {named}",
            hint="recipe = training(model, optimizer=adam(1e-3)) makes one",
        )
    with recording_locations(recipe.model.graph.locations):
        return _Composition(recipe, UpdatedState(recipe.accumulate, closing)).result()


@dataclass
class _Composition:
    """Makes the updates of a recipe, one after the other, of the state `updated`."""

    recipe: Recipe
    updated: UpdatedState
    rates: dict[Stateful, str] = field(default_factory=dict)
    averages: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def model(self) -> Model:
        return self.recipe.trained_model

    def result(self) -> Step:
        model, updated = self.model, self.updated
        for update in self.recipe.updates:
            if isinstance(update, minimize):
                self._minimize(update)
            elif isinstance(update, Average):
                self._average(update)
            else:
                self._assign(update)
        for rate in self.rates:
            self._watch(rate)
        known = {**model.parameters, **model.states}
        follows: dict[str, Value] = {}
        for path, value in model.updates.items():
            if known[path] not in updated.now:
                value = self._of_examples(value, known[path])
                updated.now[known[path]] = follows[f"{path}.next"] = value
        step = step_leaf()
        updated.now[step] = updated.apart[step] = step + 1
        state = {"step": step, "seed": seed_leaf(), **known, **updated.slots}
        state_map = {path: f"{path}.next" for path, leaf in state.items() if leaf in updated.now}
        data = model.inputs
        sums = accumulation(model.metrics, model.examples)
        metrics = {**model.metrics, **sums.extra}
        gradient = {**metrics, **updated.handed, **follows}
        rest = {
            f"{path}.next": updated.apart[leaf]
            for path, leaf in state.items()
            if leaf in updated.apart and f"{path}.next" not in gradient
        }
        whole = {**metrics, **{n: updated.now[state[p]] for p, n in state_map.items()}}
        plain = self.recipe.model.inference((*model.metrics, *model.tables))
        evaluation = accumulation(plain.outputs, model.examples)
        self._check_names(state, {**sums.extra, **evaluation.extra})
        every = (*state.values(), *data.values())
        return Step(
            recipe=self.recipe,
            gradient=self._graph("gradient", gradient, _needed(gradient, every)),
            update=self._graph("update", rest, _needed(rest, (*state.values(), *updated.leaves))),
            step=self._graph("step", whole, every),
            evaluate=plain.with_outputs({**plain.outputs, **evaluation.extra}),
            state={path: leaf.type for path, leaf in state.items()},
            state_map=state_map,
            accumulation=sums,
            evaluation=evaluation,
            first=updated.first,
            averages=self.averages,
        )

    def _of_examples(self, new: Value, old: Value) -> Value:
        """`new`, which follows a batch, or `old` where that is empty: a mean of nothing is NaN, and
        a running mean of it stays NaN."""
        examples = self.model.examples
        fed = set(self.model.inputs.values())
        if examples is None or fed.isdisjoint(leaves_of([new])):
            return new
        found: Value = where(size_value(examples) > 0, new, old)
        return found

    def _minimize(self, update: minimize) -> None:
        trained = update.trained(self.model, self.recipe.freeze)
        loss = Graph("loss", {"loss": update.loss_of(self.model)})
        derivatives = grad(loss.outputs["loss"], list(trained.values()))
        _check_reached(update.loss, loss, dict(zip(trained.values(), derivatives, strict=True)))
        derivatives = replace(derivatives, self.updated.now) if self.updated.now else derivatives
        gradients = {
            path: self.updated.hand_over(f"{path}.grad", derivative)
            for path, derivative in zip(trained, derivatives, strict=True)
        }
        values = dict(zip(gradients.values(), derivatives, strict=True))
        following: dict[Value, Value] = {}
        gradients = {path: _wide(g) for path, g in gradients.items()}
        if self.recipe.accumulate > 1:
            weight = batch_weight(self.model, self.updated, update.loss, self.updated.now)
            values |= weight.values
            following |= weight.following
            gradients = {
                path: accumulated_mean(self.updated, path, "accumulated", g, weight, following)
                for path, g in gradients.items()
            }
        gradients = prepared(update, gradients, self.updated.number)
        for optimizer, paths in self._groups(update, trained):
            self.rates |= dict.fromkeys(optimizer.stateful, paths[0])
            group = {path: trained[path] for path in paths}
            following |= self._descended(update, optimizer, group, gradients)
        self.updated.follow(following, values)

    def _groups(
        self, update: minimize, paths: Iterable[str]
    ) -> Iterable[tuple[Optimizer, list[str]]]:
        """The parameters with their optimizers: one by one, but for those of an optimizer that
        moves all of its own together."""
        found: dict[object, tuple[Optimizer, list[str]]] = {}
        for path in paths:
            optimizer = self.recipe.optimizer_of(update, path)
            key = optimizer if optimizer.together else path
            found.setdefault(key, (optimizer, []))[1].append(path)
        return found.values()

    def _descended(
        self,
        update: minimize,
        optimizer: Optimizer,
        trained: Mapping[str, Value],
        gradients: Mapping[str, Value],
    ) -> dict[Value, Value]:
        """What follows the parameters of a group, and their slots. To an optimizer parameters of 16
        bits are f32, and so are their slots: squares and small steps are lost in fewer bits."""
        (owner, w), *_ = trained.items()
        w, g = _wide(w), gradients[owner]
        if optimizer.together:
            owner = f"{TRAINING}{type(optimizer).__name__.lower()}"
            w = _vector(map(_wide, trained.values()))
            g = _vector(gradients[path] for path in trained)
        slots = {
            slot: self.updated.slot(owner, slot, x) for slot, x in optimizer.initial(w).items()
        }
        new, slots_next = optimizer.update(w, g, slots, self.updated.number)
        parts = _parts(new, list(trained.values())) if optimizer.together else [new]
        following = {slots[n]: self.updated.due(x, slots[n]) for n, x in slots_next.items()}
        for (path, w), part in zip(trained.items(), parts, strict=True):
            w_next = part if update.max_norm is None else bounded(part, update.max_norm)
            following[w] = self.updated.due(cast(w_next, w.dtype), w)
            for slot in optimizer.averages:
                kept = input_of(slots[slot]).name
                self.averages.setdefault(slot, {})[path] = kept
        return following

    def _average(self, update: Average) -> None:
        following = {}
        for path, w in update.averaged(self.model).items():
            w = _wide(w)
            slot = self.updated.slot(path, update.name, w)
            kept = input_of(slot).name
            self.averages.setdefault(kept.removeprefix(f"{path}."), {})[path] = kept
            following[slot] = self.updated.due(update.following(slot, w, self.updated.number), slot)
        self.updated.follow(following, {})

    def _watch(self, rate: Stateful) -> None:
        """Makes the states of a learning rate some of the step's, which follow its metrics."""
        for path, start in rate.initial.items():
            if path in self.updated.slots:
                raise ModelError(
                    f"two learning rates use the same state {path!r}",
                    hint='give them names: plateau(0.1, monitor="loss", name="slow")',
                )
            self.updated.slots[path] = Input(path, start.type, "state")()
            self.updated.first[path] = start
        seen: dict[str, Value] = {}
        values: dict[Value, Value] = {}
        changes: dict[Value, Value] = {}
        for name in rate.monitors:
            value = self.model.outputs[name]
            leaf = self.updated.hand_over(f"{name}.watched", value)
            values[leaf] = value
            seen[name] = leaf
            if self.recipe.accumulate > 1:
                x = leaf if leaf.dtype.is_float else cast(leaf, f64)
                weight = batch_weight(self.model, self.updated, name, {})
                values |= weight.values
                changes |= weight.following
                owner = f"{TRAINING}{name}"
                seen[name] = accumulated_mean(self.updated, owner, "watched", x, weight, changes)
        for path, new in rate.following(seen, self.updated.number).items():
            changes[self.updated.slots[path]] = self.updated.due(new, self.updated.slots[path])
        self.updated.follow(changes, values)

    def _assign(self, update: assign) -> None:
        target = {**self.model.parameters, **self.model.states}[update.path]
        value = update.resolved(self.model)
        if not any(input_of(leaf).kind == "input" for leaf in leaves_of([value])):
            self.updated.follow({target: value}, {})
            return
        value = replace([value], self.updated.now)[0] if self.updated.now else value
        leaf = self.updated.hand_over(f"{update.path}.assigned", value)
        self.updated.follow({target: leaf}, {leaf: value})

    def _graph(self, stage: str, outputs: Mapping[str, Value], inputs: tuple[Value, ...]) -> Graph:
        model = self.model
        return Graph(
            f"{model.name}_{stage}", dict(outputs), inputs, model.graph.locations, model.doc
        )

    def _check_names(self, state: Mapping[str, Value], parts: Mapping[str, Value]) -> None:
        """Raises `ModelError` where a slot, a next value, a gradient or a part of a metric has the
        name of something that the user named."""
        own = {**self.model.whole.leaves, **self.model.outputs}
        made = [
            *self.updated.slots,
            *self.updated.handed,
            *(f"{path}.next" for path in state),
            *parts,
        ]
        for name in made:
            if name in own:
                raise ModelError(
                    f"the training step adds {name!r}, but the model already has that name",
                    rows=[(name, str(own[name].type))],
                    hint="give it another name in the model",
                )


def _check_reached(name: str, loss: Graph, derivatives: Mapping[Value, Value]) -> None:
    """Raises `GradientError` where the loss depends on the parameters, but no gradient reaches
    any."""
    if any(derivative is not zeros_like(w) for w, derivative in derivatives.items()):
        return
    counted = [
        v
        for v in loss.nodes
        if isinstance(v.type, Type)
        and not v.dtype.is_float
        and any(a.dtype.is_float and leaves_of([a]) & derivatives.keys() for a in v.args)
    ]
    raise GradientError(
        f"the gradient of {name!r} reaches no parameter: nothing would be learned",
        rows=[(v.op.label, *described(v)) for v in counted],
        hint="integers, comparisons, rounding and stop_gradient pass no gradient; "
        "train a smooth loss and report this one as a metric",
    )


def _needed(outputs: Mapping[str, Value], leaves: tuple[Value, ...]) -> tuple[Value, ...]:
    found = leaves_of(outputs.values())
    return tuple(leaf for leaf in leaves if leaf in found)


def _wide(x: Value) -> Value:
    """The value with room for what training adds up: f32 in place of 16 bits."""
    return cast(x, x.dtype.computed)


def _vector(values: Iterable[Value]) -> Value:
    """All numbers of the tensors as one vector."""
    return concatenate([ravel(x) for x in values], 0)


def _parts(vector: Value, like: Sequence[Value]) -> list[Value]:
    """The vector cut into tensors like these."""
    parts = sections(vector, [math.prod(map(int, w.shape)) for w in like], 0)
    return [cast(reshape(x, w.shape), w.dtype) for x, w in zip(parts, like, strict=True)]
