"""A recipe as graphs: the training step, and the two halves that it is composed of.

`gradient(state, batch) → (gradients, metrics, what follows from the batch)` and
`update(state, gradients) → state'`. Accumulation, an all-reduce or loss scaling stand between
them; the step is one put into the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import GradientError, ModelError
from nncompile.diagnostics.hints import suggests_names
from nncompile.diagnostics.locations import recording_locations
from nncompile.elementwise import where
from nncompile.ir.basic import cast, size_value
from nncompile.ir.broadcasting import zeros_like
from nncompile.ir.gc_pause import without_collection
from nncompile.ir.graph import Graph, Input, input_of, needed, toposort
from nncompile.ir.op import Value, described
from nncompile.ir.types import Type, f64
from nncompile.ops.random.generator import seed_leaf, step_leaf
from nncompile.optim.schedules import TRAINING, Stateful
from nncompile.program.descent import Descent, groups, wide
from nncompile.program.gradient_accumulation import accumulated_mean, batch_weight
from nncompile.program.gradient_transforms import prepared
from nncompile.program.linear_terms import of_batch
from nncompile.program.loss_scaling import LossScaling
from nncompile.program.metric_aggregation import accumulation
from nncompile.program.model import Model, leaves_of
from nncompile.program.recipe import Average, Recipe, assign, minimize
from nncompile.program.reductions import Reductions
from nncompile.program.step import Step
from nncompile.program.updated_state import Forms, UpdatedState, Window


@suggests_names
@without_collection
def compose(recipe: Recipe, window: Window = Window.EACH) -> Step:
    """The graphs of one step of the recipe, or of the step that `window` says. Raises `ModelError`
    where it is not a recipe or two things in it have one name, `GradientError` where a loss cannot
    be differentiated."""
    if not isinstance(recipe, Recipe):
        got = f"model {recipe.name}" if isinstance(recipe, Model) else repr(recipe)
        raise ModelError(
            f"training needs a recipe, got {got}",
            hint="recipe = training(model, optimizer=adam(1e-3)) makes one",
        )
    with recording_locations(recipe.model.graph.locations):
        updated = UpdatedState(recipe.accumulate, window)
        scaling = None if recipe.scaler is None else LossScaling(recipe.scaler, updated)
        return _Composition(recipe, updated, scaling).result()


@dataclass
class _Composition:
    """Makes the updates of a recipe, one after the other, of the state `updated`."""

    recipe: Recipe
    updated: UpdatedState
    scaling: LossScaling | None
    rates: dict[Stateful, str] = field(default_factory=dict)
    averages: dict[str, dict[str, str]] = field(default_factory=dict)

    @cached_property
    def reductions(self) -> Reductions:
        return Reductions(self.model)

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
        if self.scaling:
            self.scaling.settle()
        owned = {**model.parameters, **model.states}
        follows: dict[str, Forms] = {}
        for path, value in model.updates.items():
            if owned[path] not in updated.now:
                value = self._unless_empty(value, owned[path])
                self.reductions.add_statistic(path, value)
                forms = Forms([value], [value])
                forms = self.scaling.of_batch(value, owned[path]) if self.scaling else forms
                follows[f"{path}.next"] = forms
                (updated.now[owned[path]],) = forms.whole
        step = step_leaf()
        updated.now[step] = updated.split[step] = step + 1
        state = {"step": step, "seed": seed_leaf(), **owned, **updated.slots}
        state_map = {path: f"{path}.next" for path, leaf in state.items() if leaf in updated.now}
        data = model.inputs
        sums = accumulation(model.metrics, model.examples)
        metrics = {**model.metrics, **sums.extra}
        self.reductions.add_metrics(model.metrics, sums)
        weights = self.reductions.weights
        whole = {name: forms.whole[0] for name, forms in follows.items()}
        gradient = {**metrics, **weights, **updated.handed, **whole}
        parts = {name: forms.in_turn[0] for name, forms in follows.items()}
        in_turn = {**metrics, **self.reductions.weights_in_turn, **updated.in_turn, **parts}
        deferred = {
            f"{path}.next": updated.split[leaf]
            for path, leaf in state.items()
            if leaf in updated.split and f"{path}.next" not in gradient
        }
        outputs = {**metrics, **{n: updated.now[state[p]] for p, n in state_map.items()}}
        plain = self.recipe.model.inference((*model.metrics, *model.tables))
        evaluation = accumulation(plain.outputs, model.examples)
        self._check_names(state, {**sums.extra, **evaluation.extra, **weights})
        every = (*state.values(), *data.values())
        return Step(
            recipe=self.recipe,
            gradient=self._graph("gradient", gradient, needed(gradient.values(), every)),
            in_turn=self._graph("in_turn", in_turn, needed(in_turn.values(), every))
            if self.reductions.later
            else None,
            update=self._graph(
                "update", deferred, needed(deferred.values(), (*state.values(), *updated.leaves))
            ),
            step=self._graph("step", outputs, every),
            evaluate=plain.with_outputs({**plain.outputs, **evaluation.extra}),
            state={path: leaf.type for path, leaf in state.items()},
            state_map=state_map,
            accumulation=sums,
            evaluation=evaluation,
            first=updated.first,
            sums=updated.sums,
            is_finite=self._is_finite,
            averages=self.averages,
            reductions=self.reductions,
        )

    @property
    def _is_finite(self) -> Value | None:
        """Whether the sums of gradients are finite, where rules are taken back otherwise."""
        has_rules = any(isinstance(update, assign) for update in self.recipe.updates)
        return self.scaling.is_finite if self.scaling and has_rules else None

    @cached_property
    def _of_batch(self) -> set[Value]:
        """What of the state follows a batch, and the nodes between them."""
        return of_batch(toposort(self.model.updates.values()), self.model.examples)

    def _unless_empty(self, new: Value, old: Value) -> Value:
        """`new`, which follows a batch, or `old` where that is empty: a mean of nothing is NaN, and
        a running mean of it stays NaN."""
        examples = self.model.examples
        if examples is None or new not in self._of_batch:
            return new
        result: Value = where(size_value(examples) > 0, new, old)
        return result

    def _minimize(self, update: minimize) -> None:
        trained = update.trained(self.model, self.recipe.freeze)
        loss = Graph("loss", {"loss": update.loss_of(self.model)})
        scaled = self.scaling.scaled if self.scaling else lambda x: x
        derivatives = grad(scaled(loss.outputs["loss"]), list(trained.values()))
        _check_reached(update.loss, loss, dict(zip(trained.values(), derivatives, strict=True)))
        forms = self._at_present(update.loss, derivatives)
        if self.scaling:
            forms = Forms(*map(self.scaling.unscaled, forms))
            self.scaling.check_batch(forms)
        gradients = {
            path: self.updated.hand_over(f"{path}.grad", *both)
            for path, *both in zip(trained, *forms, strict=True)
        }
        values = dict(zip(gradients.values(), forms.whole, strict=True))
        names = {path: input_of(leaf).name for path, leaf in gradients.items()}
        following: dict[Value, Value] = {}
        self.reductions.add_gradients(update.loss, gradients, self.updated.present)
        gradients = {path: wide(g) for path, g in gradients.items()}
        if self.updated.accumulates:
            weight = batch_weight(self.model, self.updated, update.loss, is_present=True)
            values |= weight.values
            following |= weight.following
            self.reductions.add_weights(weight.values)
            gradients = {
                path: accumulated_mean(
                    self.updated, path, "accumulated", g, weight, following, names[path]
                )
                for path, g in gradients.items()
            }
        if self.scaling:
            following |= self.scaling.checked(gradients)
        gradients = prepared(update, gradients, self.updated.number)
        descent = Descent(self.updated, update.max_norm)
        for optimizer, paths in groups(self.recipe, update, trained):
            self.rates |= dict.fromkeys(optimizer.stateful, paths[0])
            group = {path: trained[path] for path in paths}
            new, slots = descent.of(optimizer, group, gradients)
            following |= new
            for slot in optimizer.averages:
                slot_names = dict.fromkeys(group, input_of(slots[slot]).name)
                self.averages.setdefault(slot, {}).update(slot_names)
        self.updated.follow(following, values)

    def _average(self, update: Average) -> None:
        following = {}
        for path, w in update.averaged(self.model).items():
            w = wide(w)
            slot = self.updated.slot(path, update.name, w)
            slot_name = input_of(slot).name
            self.averages.setdefault(slot_name.removeprefix(f"{path}."), {})[path] = slot_name
            following[slot] = self.updated.due(update.following(slot, w, self.updated.number), slot)
        self.updated.follow(following, {})

    def _watch(self, rate: Stateful) -> None:
        """Makes the states of a learning rate some of the step's, which follow its metrics."""
        for path, start in rate.initial.items():
            if path in self.updated.slots:
                raise ModelError(
                    f"two learning rates use the same state {path!r}",
                    hint=f'give them names: {type(rate).__name__}(0.1, name="slow")',
                )
            self.updated.slots[path] = Input(path, start.type, "state")()
            self.updated.first[path] = start
        watched: dict[str, Value] = {}
        values: dict[Value, Value] = {}
        changes: dict[Value, Value] = {}
        for name in rate.monitors:
            value = self.model.outputs[name]
            leaf = self.updated.hand_over(f"{name}.watched", value)
            values[leaf] = value
            watched[name] = leaf
            self.reductions.add_output(input_of(leaf).name, name)
            if self.updated.accumulates:
                x = leaf if leaf.dtype.is_float else cast(leaf, f64)
                weight = batch_weight(self.model, self.updated, name, is_present=False)
                values |= weight.values
                changes |= weight.following
                self.reductions.add_weights(weight.values)
                owner = f"{TRAINING}{name}"
                watched[name] = accumulated_mean(self.updated, owner, "watched", x, weight, changes)
        for path, new in rate.following(watched, self.updated.number).items():
            changes[self.updated.slots[path]] = self.updated.due(new, self.updated.slots[path])
        self.updated.follow(changes, values)

    def _assign(self, update: assign) -> None:
        target = {**self.model.parameters, **self.model.states}[update.path]
        value = update.resolved(self.model)
        if not any(input_of(leaf).kind == "input" for leaf in leaves_of([value])):
            self.updated.follow({target: value}, {})
            return
        (value,), (in_turn,) = self._at_present(update.path, [value])
        leaf = self.updated.hand_over(f"{update.path}.assigned", value, in_turn)
        self.reductions.add_rule(input_of(leaf).name, update.path, in_turn)
        self.updated.follow({target: leaf}, {leaf: value})

    def _at_present(self, name: str, values: list[Value]) -> Forms:
        """The values at the state after the updates so far."""
        forms = self.updated.present(values)
        if any(whole is not in_turn for whole, in_turn in zip(*forms, strict=True)):
            self.reductions.add_later(name)
        return forms

    def _graph(self, stage: str, outputs: Mapping[str, Value], inputs: tuple[Value, ...]) -> Graph:
        model = self.model
        return Graph(
            f"{model.name}_{stage}", dict(outputs), inputs, model.graph.locations, model.doc
        )

    def _check_names(self, state: Mapping[str, Value], parts: Mapping[str, Value]) -> None:
        """Raises `ModelError` where a slot, a next value, a gradient or a part of a metric has the
        name of something that the user named."""
        declared = {**self.model.whole.leaves, **self.model.outputs}
        added = [
            *self.updated.slots,
            *self.updated.handed,
            *(f"{path}.next" for path in state),
            *parts,
        ]
        for name in added:
            if name in declared:
                raise ModelError(
                    f"the training step adds {name!r}, but the model already has that name",
                    rows=[(name, str(declared[name].type))],
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
