"""What `fit` is given: the data that are trained on, those that are held out, and what each example
weighs."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Any

from nncompile.compiler.compile import CompiledStep
from nncompile.diagnostics.errors import FeedError, ModelError, whole_number
from nncompile.program.model import Model
from nncompile.program.recipe import Recipe
from nncompile.program.weighted_losses import WEIGHTS
from nncompile.runtime.feeds import Port
from nncompile.train.data import Data, Feeder
from nncompile.train.evaluation import Evaluation
from nncompile.train.sources.files import read_table
from nncompile.train.sources.naming import is_numbers, is_whole
from nncompile.train.sources.notes import Notes
from nncompile.train.sources.splitting import split
from nncompile.train.sources.tables import is_table
from nncompile.train.weights import ClassWeight, ClassWeights, sample_weights


@dataclass(frozen=True)
class FitData:
    """The arguments of `fit` that say what is trained on; see `Trainer.fit`."""

    data: Data
    y: Any
    validation_data: Data | None
    validation_split: float
    class_weight: ClassWeight | None
    sample_weight: Any
    batch_size: int | None
    shuffle: bool | int
    prefetch: int

    @property
    def is_weighted(self) -> bool:
        """Whether the examples have weights."""
        return self.class_weight is not None or self.sample_weight is not None

    def check_weights(self, model: Model) -> None:
        """Raises `ModelError` or `FeedError` for weights of classes that the model has not, before
        anything is compiled for them."""
        if self.class_weight is not None:
            ClassWeights(self.class_weight, model)

    @property
    def is_split(self) -> bool:
        """Whether a part of the data is held out."""
        return isinstance(self.validation_split, bool) or self.validation_split != 0

    def feeders(
        self, compiled: CompiledStep, ports: list[Port], evaluation: Evaluation
    ) -> tuple[Feeder, Feeder | None]:
        """The batches to train on, and those of the held-out data. Raises `FeedError` for data
        that do not fit, `ModelError` for options that do not."""
        if self.is_split and self.validation_data is not None:
            raise ModelError("give either validation_data or validation_split, not both")
        model = compiled.source.recipe.model
        notes, naming = evaluation.notes, evaluation.naming
        classes = None
        if self.class_weight is not None:
            classes = ClassWeights(self.class_weight, model)
        data, y, held_out = self.data, self.y, self.validation_data
        if isinstance(data, str | os.PathLike):
            data = read_table(data)
        literal = is_table(data)
        if is_whole(data) or is_numbers(data):
            feeds = naming.feeds(data, y, ports)
            if self.sample_weight is not None:
                feeds[WEIGHTS] = sample_weights(self.sample_weight)
            if self.is_split:
                cut = {
                    n for n, v in model.inputs.items() if v.rank and v.shape[0] == model.examples
                }
                feeds, held_out = split(feeds, cut, self.validation_split)
                self._tell(notes, cut, feeds, held_out)
            if classes is not None:
                if classes.is_balanced and classes.label in feeds:
                    classes.fit(feeds[classes.label])
                feeds = classes(feeds)
            data, y, weigh = feeds, None, None
        else:
            self._check_batches(classes)
            weigh = classes
        size = compiled.source.recipe.batch_size if self.batch_size is None else self.batch_size
        feeder = Feeder(
            data,
            model,
            ports,
            size,
            compiled.sizes,
            y=y,
            naming=naming,
            notes=notes,
            weigh=weigh,
            prefetch=self.prefetch,
            buffer=self.buffer,
            literal=literal,
        )
        if held_out is None:
            return feeder, None
        return feeder, evaluation.feeder(held_out, size, prefetch=self.prefetch)

    @property
    def buffer(self) -> int:
        """From how many batches each next one is drawn."""
        return 0 if isinstance(self.shuffle, bool) else whole_number("shuffle", self.shuffle, 0)

    def _tell(self, notes: Notes, cut: set[str], train: Any, held_out: Any) -> None:
        name = next(n for n in train if n in cut)
        first, last = train[name].shape[0], held_out[name].shape[0]
        notes.tell(
            f"validation_split={self.validation_split:g} trains on the first {first:,} examples "
            f"and holds out the last {last:,}"
        )

    def _check_batches(self, classes: ClassWeights | None) -> None:
        """Raises `FeedError` for options that need the arrays of all examples."""
        kind = type(self.data).__name__
        if self.batch_size is not None and self.validation_data is None:
            raise FeedError(
                f"batch_size stands beside batches ({kind}), which have their own sizes",
                hint="leave it out, or pass arrays",
            )
        if self.is_split:
            raise FeedError(
                f"validation_split needs arrays, got batches ({kind})",
                hint="validation_data=… takes batches of their own",
            )
        if self.sample_weight is not None:
            raise FeedError(
                f"sample_weight stands beside batches ({kind}), each of which has its own",
                hint=f"let the batches be (x, y, {WEIGHTS}), or dicts with {WEIGHTS!r}",
            )
        if classes is not None and classes.is_balanced:
            raise FeedError(
                f'class_weight="balanced" needs the labels of all examples, got batches ({kind})',
                hint="class_weight={0: 1.0, 1: 5.0} gives the weights",
            )


def check_targets(y: Any, method: str, *options: str) -> None:
    """Raises `ModelError` where targets are a number, which was meant as another option."""
    if isinstance(y, int):
        calls = " or ".join(f"{method}(data, {option}={y})" for option in options)
        raise ModelError(
            f"{method} takes only the data by position, got {y} beside them", hint=calls
        )


def ends_of(
    recipe: Recipe, now: tuple[int, int], epochs: int | None, steps: int | None
) -> tuple[float, float]:
    """The epoch and the step at which a training ends that is at those `now`, after so many more,
    or where the recipe says."""
    for label, count in (("epochs", epochs), ("steps", steps)):
        if count is not None:
            whole_number(label, count, 0)
    epoch, step = now
    if epochs is None and steps is None:
        if recipe.epochs is None and recipe.steps is None:
            return epoch + 1, math.inf
        return recipe.epochs or math.inf, recipe.steps or math.inf
    last_epoch = math.inf if epochs is None else epoch + epochs
    return last_epoch, math.inf if steps is None else step + steps
