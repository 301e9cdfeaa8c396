"""How a model is trained: a list of updates that every step makes, one after the other."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from glob import escape
from typing import Any, ClassVar, Unpack

from nncompile.autodiff.checkpointing import recomputed
from nncompile.diagnostics.errors import ModelError, did_you_mean, seed_number, whole_number
from nncompile.diagnostics.hints import SuggestsNames, suggests_options
from nncompile.diagnostics.locations import recording_locations
from nncompile.diagnostics.options import flag, taking
from nncompile.ir.graph import Graph
from nncompile.ir.names import matches
from nncompile.ir.types import DType
from nncompile.optim import Optimizer
from nncompile.passes.inference import inference, with_statistics_held
from nncompile.passes.mixed_precision import mixed_precision
from nncompile.program.broadcast_warnings import warn_of_tables
from nncompile.program.loss_scaling import grad_scaler
from nncompile.program.model import RANDOM_STATE, Model
from nncompile.program.pickling import as_bytes
from nncompile.program.precision import HALVES, PRECISIONS, precision_name
from nncompile.program.updates import (
    DEFAULT_OPTIMIZER,
    Average,
    Following,
    Optimizers,
    Update,
    assign,
    ema,
    maximize,
    minimize,
    name_of,
    patterns_of,
    swa,
)


@suggests_options
@dataclass(frozen=True, eq=False, repr=False)
class Recipe(SuggestsNames):
    """A model with the updates of one step and the defaults of its training.

    The updates are made in their order; each sees what the ones before it changed. Metrics and
    running statistics are those of the state at the start of the step. Declaring a recipe checks
    it: see `minimize.trained`, `minimize.check_groups`, `assign.resolved`, `Average.averaged` and
    `recomputed` for what is raised.

    What `freeze` matches is not trained, and a layer of which it matches all parameters and states
    is computed as after training: its running statistics stay, its dropout is off. What layers
    `recompute` matches are computed again for the gradient and not kept (see `recomputed`).
    With `accumulate` k, the gradients of k steps in a row are averaged, and each k-th step updates
    with them, as one step on their batches together would: batches of 16, 16, 16 and 5 examples
    are one of 53. What a batch weighs is the weight of the loss where that is a weighted or masked
    mean (an `Average`), its number of elements where it is a mean over something of which examples
    have more or less (tokens), and otherwise the number of examples. Factors, and terms without
    data (a penalty), change nothing in that; the sum of means that weigh differently counts
    examples. Where the loss is a sum over the examples, the gradients are added up.
    Steps without an update still count for the seed of random numbers and for running statistics.
    Learning rates, optimizers and averages count updates.

    With `precision` "bf16" or "f16" matrix products and convolutions are computed in 16 bits, and
    parameters, reductions, norms, losses and updates stay in float32 (see `mixed_precision`).
    Metrics of `evaluate` and predictions are those of the float32 model. `scaler` multiplies the
    losses (see `grad_scaler`), as "f16" needs it: there it is `grad_scaler()` unless one is given.
    `emulate` computes the products in float32, between roundings to 16 bits: for devices without
    kernels of 16 bits, which are refused otherwise. That is not faster, but tells what comes of it.
    """

    model: Model
    updates: tuple[Update, ...]
    batch_size: int = 32
    epochs: int | None = None
    steps: int | None = None
    seed: int = 0
    freeze: tuple[str, ...] = ()
    recompute: tuple[str, ...] = ()
    accumulate: int = 1
    precision: str = "f32"
    scaler: grad_scaler | None = None
    emulate: bool = False

    foreign_names: ClassVar[Mapping[str, str]] = {
        name: f"Trainer(recipe).{call}"
        for names, call in (
            (("fit", "train", "run", "compile"), "fit(data)"),
            (("evaluate", "test"), "evaluate(data)"),
            (("predict",), "predict(inputs)"),
            (("export",), "export(path) after fit"),
            (("save",), "save(path) after fit"),
            (("load",), "load(path)"),
        )
        for name in names
    }

    def __post_init__(self) -> None:
        if not isinstance(self.model, Model):
            raise ModelError(
                f"a recipe needs a model, got {name_of(self.model)}",
                hint="a model is a function decorated with @model: def net(x=f32[...]): ...",
            )
        if not self.updates:
            raise ModelError(
                "a recipe needs an update", hint='minimize("loss") or assign("weight", value)'
            )
        for update in self.updates:
            if not isinstance(update, Update):
                raise ModelError(
                    f"{name_of(update)} is not an update",
                    hint='updates=[minimize("loss", optimizer=adam(1e-3))]',
                )
        whole_number("batch_size", self.batch_size, 1)
        for label, count in (("epochs", self.epochs), ("steps", self.steps)):
            if count is not None:
                whole_number(label, count, 1)
        seed_number(self.seed)
        whole_number("accumulate", self.accumulate, 1)
        self._check_precision()
        leaves = {**self.model.parameters, **self.model.states}
        for pattern in self.freeze:
            if not any(matches(path, pattern) for path in (*leaves, *self.model.layers)):
                raise ModelError(
                    f"freeze={pattern!r} matches no parameter of model {self.model.name}",
                    rows=[("parameter", path, str(leaf.type)) for path, leaf in leaves.items()],
                    hint=did_you_mean(pattern, leaves),
                )
        for update in self.updates:
            if isinstance(update, minimize):
                update.check_groups(self.model)
                for path in update.trained(self.model, self.freeze):
                    for rate in self.optimizer_of(update, path).stateful:
                        self._check_monitored(rate.monitors)
            elif isinstance(update, Average):
                update.averaged(self.model)
            else:
                update.resolved(self.model)
        if self.recompute or self.precision in HALVES:
            # It tells patterns that match no layer, and models without products; it is kept.
            _ = self.trained_model

    def __repr__(self) -> str:
        updates = [
            f"{type(u).__name__} {u.loss} with {u.optimizer}"
            if isinstance(u, minimize)
            else repr(u)
            for u in self.updates
        ]
        counts = [(self.epochs, "epochs"), (self.steps, "steps")]
        length = [f"{count:,} {label}" for count, label in counts if count is not None]
        described = [*updates, f"batches of {self.batch_size}", *length]
        return f"<Recipe of {self.model.name}: {', '.join(described)}>"

    def __reduce__(self) -> Any:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        parts = (
            (f"{name} of {update!r:.60}", part, None)
            for update in self.updates
            for name, part in vars(update).items()
        )
        return _restored, (as_bytes(f"the recipe of {self.model.name}", fields, parts),)

    @property
    def losses(self) -> list[str]:
        """The outputs that the updates minimize or maximize, in their order."""
        return [update.loss for update in self.updates if isinstance(update, minimize)]

    def optimizer_of(self, update: minimize, path: str) -> Optimizer:
        """The optimizer of that parameter in one of the updates, of which the learning rates know
        what it minimizes. Raises `ModelError` where the update has none for it."""
        alone = len(set(self.losses)) == 1
        return update.optimizer_of(path).of_loss(update.loss, update.maximize, alone)

    def _check_precision(self) -> None:
        precision_name(self.precision, PRECISIONS)
        if self.scaler is None:
            return
        if not isinstance(self.scaler, grad_scaler):
            raise ModelError(
                f"scaler must be a grad_scaler, got {self.scaler!r}",
                hint="scaler=grad_scaler(init_scale=1024)",
            )
        if not self.losses:
            raise ModelError(
                "scaler multiplies losses, but no update minimizes one", hint="leave scaler out"
            )

    def _in_halves(self, graph: Graph) -> Graph:
        result = mixed_precision(graph, HALVES[self.precision])
        if result is graph:
            raise ModelError(
                f"{self.model.name} has no float32 matrix product or convolution to compute in "
                f"{self.precision}",
                hint="leave precision out",
            )
        return result

    def _check_monitored(self, names: Sequence[str]) -> None:
        for name in names:
            if name not in self.model.metrics:
                raise ModelError(
                    f"a learning rate watches {name!r}, which is not a metric of {self.model.name}",
                    rows=[("metric", n, str(v.type)) for n, v in self.model.metrics.items()],
                    hint=did_you_mean(name, self.model.metrics),
                )

    @cached_property
    def trained_model(self) -> Model:
        """The model as it is differentiated: frozen layers as after training, and the borders of
        what is recomputed."""
        model = self.model
        if not self.freeze and not self.recompute and self.precision not in HALVES:
            return model
        leaves = {**model.parameters, **model.states}
        updates = {p: v for p, v in model.updates.items() if not matches(p, self.freeze)}
        labels = [*(("output", n) for n in model.outputs), *(("update", p) for p in updates)]
        values = [*model.outputs.values(), *updates.values()]
        outputs_by_label = dict(zip(map(str, labels), values, strict=True))
        graph = Graph(model.name, outputs_by_label, (), model.graph.locations)
        for layer in (*frozen_layers(leaves, self.freeze), *_frozen_without(model, self.freeze)):
            graph = inference(graph, f"{model.name}.{layer}")
        frozen = {leaf for path, leaf in leaves.items() if matches(path, self.freeze)}
        graph = with_statistics_held(graph, frozen)
        if self.precision in HALVES:
            graph = self._in_halves(graph)
        values = list(graph.outputs.values())
        if self.recompute:
            with recording_locations(model.graph.locations):
                values = recomputed(values, model.graph.locations, self.recompute)
        by_label = dict(zip(labels, values, strict=True))
        outputs = {name: by_label["output", name] for name in model.outputs}
        return replace(
            model,
            graph=replace(model.graph, outputs=outputs),
            updates={path: by_label["update", path] for path in updates},
        )


def _restored(content: bytes) -> Recipe:
    """A recipe that was pickled."""
    return Recipe(**pickle.loads(content))


def _frozen_without(model: Model, patterns: Sequence[str]) -> list[str]:
    """The layers without parameters and states, such as a dropout, whose paths the patterns
    match."""
    above = {".".join(p.split(".")[:n]) for p in model.initial for n in range(1, p.count(".") + 1)}
    return [x for x in model.layers if x not in above and matches(x, patterns)]


def frozen_layers(paths: Iterable[str], patterns: Sequence[str]) -> list[str]:
    """The outermost layers of which the patterns match every parameter and state."""
    free: set[str] = set()
    layers: dict[str, None] = {}
    for path in paths:
        layer_names = path.split(".")[:-1]
        above = [".".join(layer_names[: i + 1]) for i in range(len(layer_names))]
        layers |= dict.fromkeys(above)
        if not matches(path, patterns):
            free.update(above)
    frozen = [layer for layer in layers if layer not in free]
    return [x for x in frozen if x.rpartition(".")[0] not in frozen]


@taking(minimize, without=("loss",))
def training(
    model: Model,
    minimize: str = "loss",
    optimizer: Optimizers | None = None,
    updates: Update | Sequence[Update] | None = None,
    *,
    batch_size: int = 32,
    epochs: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    average: Average | Sequence[Average] = (),
    freeze: str | Sequence[str] | Model | None = None,
    recompute: str | Sequence[str] = (),
    accumulate: int = 1,
    precision: str | DType = "f32",
    scaler: grad_scaler | None = None,
    emulate: bool = False,
    **options: Unpack[Following],
) -> Recipe:
    """How `model` is trained: by minimizing one output with one optimizer, or by a list of
    `updates`; then averages of the weights follow, `average=ema(0.999)`. Either way it says the
    batch size, the length (`epochs` or `steps`; whichever ends first where both are given) and
    the seed, which all can be overridden when training starts; and what is frozen (patterns, or a
    model that is called in this one; by default what the model says, which is all but the factors
    of `lora(model)`), recomputed and accumulated, and the precision, for which see `Recipe`. The
    other options are those of `minimize`."""
    if updates is None:
        chosen = DEFAULT_OPTIMIZER if optimizer is None else optimizer
        several: tuple[Update, ...] = (_minimize(minimize, optimizer=chosen, **options),)
    elif optimizer is not None or options:
        args = [*(() if optimizer is None else ("optimizer",)), *options]
        raise ModelError(
            f"give either an optimizer or a list of updates, not both: {', '.join(args)} beside it",
            hint='each update has its own optimizer: minimize("loss", optimizer=adam(1e-3))',
        )
    else:
        several = _several(updates)
    if several:  # averages alone, without an update, train nothing
        several += _several(average)
    if freeze is None:
        freeze = model.frozen if isinstance(model, Model) else ()
    elif isinstance(freeze, Model):
        freeze = _paths_within(freeze, model)
    frozen = _several(patterns_of("freeze", freeze))
    layers = _several(patterns_of("recompute", recompute))
    recipe = Recipe(
        *(model, several, batch_size, epochs, steps, seed, frozen, layers, accumulate),
        *_precision(precision, scaler, emulate),
    )
    names = [*(u.loss for u in several if isinstance(u, _minimize)), *model.metrics]
    warn_of_tables(model.graph, [model.outputs[n] for n in names if n in model.outputs])
    return recipe


def in_precision(recipe: Recipe, precision: str | DType, emulate: bool = False) -> Recipe:
    """The recipe with products computed in that precision, and for "f16" with losses that are
    scaled; see `Recipe`. Raises `ModelError` for an unknown precision, and for `emulate` without
    one of 16 bits."""
    name, scaler, emulate = _precision(precision, recipe.scaler, emulate)
    return replace(recipe, precision=name, scaler=scaler, emulate=emulate)


def _precision(
    precision: str | DType, scaler: grad_scaler | None, emulate: bool
) -> tuple[str, grad_scaler | None, bool]:
    """The fields of a recipe that say how its products are computed."""
    name = precision_name(precision, PRECISIONS)
    if flag("emulate", emulate) and name not in HALVES:
        raise ModelError(
            f"emulate is for precisions of 16 bits, not for {name}",
            hint='leave it out, or say precision="bf16" (--precision bf16)',
        )
    return name, grad_scaler() if scaler is None and name == "f16" else scaler, emulate


def _paths_within(inner: Model, model: Model) -> list[str]:
    """The parameters and states of a model that is called in another one, and its layers without
    any, as patterns that match nothing else. Raises `ModelError` where there are none of them."""
    leaves = {**inner.parameters, **inner.states}
    own = {**model.parameters, **model.states}
    paths = [p for p, leaf in leaves.items() if own.get(p) is leaf and p not in RANDOM_STATE]
    if not paths:
        raise ModelError(
            f"freeze: {model.name} has no parameter of the model {inner.name}",
            hint=f"call it in the function of {model.name}",
        )
    return [escape(path) for path in (*paths, *_frozen_without(inner, ["*"]))]


_minimize = minimize  # which is the name of an option of `training`, too


def _several(x: Any) -> tuple[Any, ...]:
    return tuple(x) if isinstance(x, list | tuple) else (x,)


__all__ = [
    "Average",
    "Optimizers",
    "Recipe",
    "Update",
    "assign",
    "ema",
    "maximize",
    "minimize",
    "swa",
    "training",
]
