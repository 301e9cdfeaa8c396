"""The fine-tuning of a file: what is asked for, and the recipe and data that it makes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from glob import escape
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import (
    CheckpointError,
    FeedError,
    FileError,
    ModelError,
    did_you_mean,
)
from nncompile.finetuning.objectives import check_loss, with_loss
from nncompile.frontends.onnx.loading import fixed_batch, load_onnx, with_open_batch
from nncompile.frontends.onnx.naming import clean
from nncompile.ir.interpreter import evaluate
from nncompile.ir.names import matches
from nncompile.ir.types import Array
from nncompile.optim.naming import optimizer_named
from nncompile.program.adaptation import with_low_rank
from nncompile.program.heads import PRODUCTS, output_of, with_new_head
from nncompile.program.initialization import initial_values
from nncompile.program.model import RANDOM_STATE, Model
from nncompile.program.model_file import Declared
from nncompile.program.recipe import Recipe, minimize, training
from nncompile.runtime import read_arrays
from nncompile.train.sources.declared import arrays_of
from nncompile.train.sources.files import KINDS, read_table
from nncompile.train.sources.splitting import split
from nncompile.train.sources.tables import column_names, is_table

RATES = {"few": 1e-3, "all": 1e-4}
"""The learning rates of a head or of factors alone, and of weights that were trained before."""
EPOCHS = 3
_EXAMINED = 2  # examples whose outputs are looked at
_SHOWN = 8  # parameters that a line lists


@dataclass(frozen=True)
class Plan:
    """What is asked for. `file` is an ONNX model; `data` and `validation` are files of examples, by
    the names of its inputs and of `label`. `predict` names the output that `loss` compares with the
    label, where there are several.

    `head` is how many results a new last layer has; `lora` the rank of factors beside the matrices
    that `lora_params` matches, and `alpha` that of LoRA. `train` are patterns of what is trained:
    without them the head and the factors, or all where there are none. What `freeze` matches is
    not. `lr` is 1e-3 for a head or factors alone, and else 1e-4.
    """

    file: str
    data: str
    label: str
    loss: str
    validation: str | None = None
    validation_split: float = 0.0
    predict: str | None = None
    head: int | None = None
    lora: int | None = None
    lora_params: tuple[str, ...] = ("*",)
    alpha: float | None = None
    train: tuple[str, ...] = ()
    freeze: tuple[str, ...] = ()
    optimizer: str = "adamw"
    lr: float | None = None
    batch_size: int = 32

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Plan:
        """The plan that a run tells of itself. Raises `CheckpointError` where it is none."""
        known = {f.name for f in dataclasses.fields(cls)}
        values: dict[str, Any] = {
            name: tuple(x) if isinstance(x, list) else x for name, x in described.items()
        }
        try:
            return cls(**{name: x for name, x in values.items() if name in known})
        except TypeError as error:
            raise CheckpointError(
                f"what the run was fine-tuned of cannot be read: {error}"
            ) from None

    def described(self) -> dict[str, Any]:
        """The plan as JSON has it."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Tuned:
    """What a plan makes: the recipe, the data, and what it did, in lines for people."""

    plan: Plan
    recipe: Recipe
    data: tuple[dict[str, Array], dict[str, Array] | None]
    notes: tuple[str, ...]

    @property
    def declared(self) -> Declared:
        """What a model file would declare."""
        module = ModuleType(self.recipe.model.name)
        vars(module)["data"] = self.data
        models = {self.recipe.model.name: self.recipe.model}
        return Declared(Path(self.plan.file), module, models, {"recipe": self.recipe})


def _loaded(file: str, count: int) -> Model:
    """The network of a file, with a batch of any size where its nodes let it."""
    title = title_of(file)
    model, _ = with_open_batch(load_onnx(file, title), file, title)
    fixed = fixed_batch(model)
    if fixed not in (None, count):
        leaf = next(iter(model.inputs))
        raise FeedError(
            f"{file} takes {fixed} in a batch, no other number, and the data have {count} examples",
            rows=[(name, str(value.type)) for name, value in model.inputs.items()],
            hint=f"export it with a batch of any size: torch.onnx.export(..., dynamic_axes="
            f"{{{leaf!r}: {{0: 'batch'}}}}), or dynamic_shapes with dynamo=True",
        )
    return model


def tuned(plan: Plan) -> Tuned:
    """Reads the files of a plan, and makes the recipe. Raises `ModelError`, `FeedError` and
    `FileError` for what does not fit."""
    check_loss(plan.loss)
    optimizer = optimizer_named(plan.optimizer)
    examples = _read(plan.data)
    labels = _labels(plan, examples)
    model = _loaded(plan.file, len(labels))
    output = output_of(model, plan.predict)
    notes: list[str] = []
    learned: set[str] = set()
    if plan.head is not None:
        model, head = with_new_head(model, plan.head, output)
        notes.append(str(head))
        learned |= set(head.parameters)
    are_probabilities = _holds_probabilities(model, output, examples)
    objective = with_loss(model, plan.loss, output, plan.label, labels, are_probabilities)
    notes += objective.notes
    model = objective.model
    if plan.lora is not None:
        model = with_low_rank(model, plan.lora, plan.alpha, plan.lora_params)
        learned |= {name for change in model.adapters.values() for name in (change.a, change.b)}
    frozen = _frozen(model, plan, learned)
    rate = plan.lr or RATES["few" if learned and not plan.train else "all"]
    data = _data(plan, model, examples)
    recipe = training(
        model,
        minimize=objective.loss,
        optimizer=optimizer(lr=rate),
        freeze=frozen,
        batch_size=plan.batch_size,
        epochs=EPOCHS,
    )
    notes.append(_trained(recipe, plan, rate))
    return Tuned(plan, recipe, data, tuple(notes))


def title_of(file: str | Path) -> str:
    """What the model of a file is called, as are its runs."""
    return clean(Path(file).stem) or "model"


def _read(path: str) -> Any:
    """The examples in a file: a table, or a dict of arrays by name."""
    file = Path(path)
    if file.suffix in KINDS:
        return read_table(file)
    if file.suffix == ".npz":
        return read_arrays(file)
    kinds = ", ".join((*KINDS, ".npz"))
    hint = "np.savez(path, x=..., y=...)" if file.suffix == ".npy" else None
    raise FileError(f"cannot read examples from {file}: its suffix is none of {kinds}", hint=hint)


def _labels(plan: Plan, examples: Any) -> Array:
    """The labels of all examples. Raises `FeedError` where there are none of that name."""
    names = column_names(examples) if is_table(examples) else list(examples)
    if plan.label not in names:
        raise FeedError(
            f"{plan.data} has no {plan.label!r}",
            rows=[("has", ", ".join(names))],
            hint=did_you_mean(plan.label, names),
        )
    return np.asarray(examples[plan.label])


def _holds_probabilities(model: Model, output: str, examples: Any) -> bool:
    """Whether the output of some examples adds up to 1, and no number is negative. A product with
    a weight, or a sum with a bias, is none."""
    value = model.outputs[output]
    makers = (value, *value.args)
    if value.rank < 2 or any(isinstance(v.op, PRODUCTS) for v in makers) or is_table(examples):
        return False
    graph = model.inference([output])
    needed = graph.of_kind("input")
    if not all(name in examples and examples[name].ndim == x.rank for name, x in needed.items()):
        return False  # which is told where the data are read
    feeds = {name: examples[name][:_EXAMINED].astype(x.dtype.numpy) for name, x in needed.items()}
    found = evaluate(graph, {**initial_values(model, 0), **feeds})[output]
    total = found.sum(-1)
    return bool((found >= 0).all() and np.allclose(total, 1, atol=1e-3))


def _frozen(model: Model, plan: Plan, learned: set[str]) -> tuple[str, ...]:
    """The paths of what is not trained, and the patterns that say so. Raises `ModelError` for
    patterns of `train` that match nothing."""
    leaves = [p for p in (*model.parameters, *model.states) if p not in RANDOM_STATE]
    for pattern in plan.train:
        if not any(matches(path, pattern) for path in model.parameters):
            raise ModelError(
                f"--train {pattern!r} matches no parameter of {model.name}",
                rows=[("parameter", p, str(leaf.type)) for p, leaf in model.parameters.items()],
                hint=did_you_mean(pattern, model.parameters),
            )
    if not plan.train and not learned:
        return plan.freeze
    held = [p for p in leaves if p not in learned and not matches(p, plan.train)]
    if plan.lora is None:  # beside factors, dropout goes on
        held += [layer for layer in model.layers if not matches(layer, plan.train)]
    return (*map(escape, held), *plan.freeze)


def _trained(recipe: Recipe, plan: Plan, rate: float) -> str:
    """What is trained, and how, in a line."""
    parameters = recipe.model.parameters
    (update,) = (u for u in recipe.updates if isinstance(u, minimize))
    paths = list(update.trained(recipe.model, recipe.freeze))
    few, all_ = (sum(math.prod(parameters[p].shape) for p in ps) for ps in (paths, parameters))
    shown = ", ".join(paths[:_SHOWN]) + (", ..." if len(paths) > _SHOWN else "")
    of_all = "" if len(paths) == len(parameters) else f"{len(paths)} of "
    return (
        f"{plan.optimizer} of learning rate {rate:g} trains {of_all}{len(parameters)} tensors, "
        f"{few:,} of {all_:,} numbers: {shown}"
    )


def _inputs(file: str, model: Model, examples: Any) -> Any:
    """The arrays that the model takes; tables are as they are. Raises `FeedError` where one is
    missing."""
    if is_table(examples):
        return examples
    for name, leaf in model.inputs.items():
        if name not in examples:
            raise FeedError(
                f"{file} has no array for the input {name!r}, {leaf.type}",
                rows=[(n, f"{x.dtype}{list(x.shape)}") for n, x in examples.items()],
                hint=did_you_mean(name, examples),
            )
    return {name: examples[name] for name in model.inputs}


def _data(
    plan: Plan, model: Model, examples: Any
) -> tuple[dict[str, Array], dict[str, Array] | None]:
    """The examples to train on and those held out, by the names of inputs."""
    if plan.validation is not None and plan.validation_split:
        raise ModelError("--validation holds out a file, --validation-split examples: give one")
    examples, held_out = _inputs(plan.data, model, examples), None
    if plan.validation is not None:
        held_out = _inputs(plan.validation, model, _read(plan.validation))
    train, validation = arrays_of(model, examples, held_out)
    assert train is not None  # as there are examples
    if plan.validation_split:
        train, validation = split(train, {*model.cut}, plan.validation_split)
    return train, validation
