"""How a model's predictions compare with their targets: classes, or numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.train import Trainer

EXAMPLES = 2000  # that are looked at


@dataclass(frozen=True)
class Compared:
    """Predictions of one output beside their target: the class of each example (of `count`), or
    numbers. `doubt` is larger the worse a prediction is."""

    output: str
    target: str
    predicted: Array
    true: Array
    doubt: Array
    count: int | None
    inputs: Mapping[str, Array]

    @property
    def confusion(self) -> Array:
        """How often each true class (rows) was predicted as each (columns)."""
        assert self.count is not None
        table = np.zeros((self.count, self.count), np.int64)
        np.add.at(table, (self.true, self.predicted), 1)
        return table


def examples_of(batches: Iterable[Mapping[str, Any]], model: Model) -> dict[str, Array]:
    """The first examples of the batches, put together; nothing where they have no axis of examples
    in common."""
    several: list[Mapping[str, Any]] = []
    count = 0
    for batch in islice(batches, EXAMPLES):
        several.append(batch)
        cut = [len(batch[n]) for n, v in model.inputs.items() if n in batch and _is_cut(model, n)]
        count += cut[0] if cut else EXAMPLES
        if count >= EXAMPLES:
            break
    if not several or model.examples is None:
        return {}
    names = [n for n in model.inputs if n in several[0]]
    if any(len({np.shape(b[n])[1:] for b in several}) > 1 for n in names if _is_cut(model, n)):
        several = several[:1]  # sequences of other lengths
    return {
        n: np.concatenate([np.asarray(b[n]) for b in several])[:EXAMPLES]
        if _is_cut(model, n)
        else np.asarray(several[0][n])
        for n in names
    }


def compared(trainer: Trainer, examples: Mapping[str, Array]) -> Compared | None:
    """The predictions of the first output for which there is a target: an input that it does not
    need, with a class for each row of it or of its own shape. None where there is no such pair."""
    model = trainer.model
    if not examples:
        return None
    outputs: dict[str, Array] = {}
    pairs: list[tuple[str, str]] = []
    for output in model.predict:
        needed = model.needs(output)
        for target in examples:
            if target not in needed and _fits(model, output, target):
                pairs.append((output, target))
    if not pairs:
        return None
    outputs = trainer.predict(dict(examples))
    # Of logits and probabilities, the latter say how sure the model is.
    output, target = max(pairs, key=lambda pair: _is_distribution(outputs[pair[0]]))
    y, t = outputs[output], examples[target]
    inputs = {n: x for n, x in examples.items() if n in model.needs(output)}
    if y.ndim == t.ndim + 1 and y.shape[-1] > 1:
        return _of_classes(output, target, y, t, inputs)
    t = t.reshape(y.shape).astype(np.float64)
    if np.isin(t, (0, 1)).all() and y.shape[0] == y.size:
        likely = y.reshape(-1).astype(np.float64)
        border = 0.5 if ((likely >= 0) & (likely <= 1)).all() else 0.0
        true, predicted = t.reshape(-1).astype(int), (likely > border).astype(int)
        doubt = np.where(true == 1, -likely, likely)
        return Compared(output, target, predicted, true, doubt, 2, inputs)
    y = y.astype(np.float64)
    doubt = np.abs(y - t).reshape(len(y), -1).mean(1)
    return Compared(output, target, y, t, doubt, None, inputs)


def _of_classes(
    output: str, target: str, y: Array, t: Array, inputs: Mapping[str, Array]
) -> Compared | None:
    count = y.shape[-1]
    scores, true = y.reshape(-1, count).astype(np.float64), t.reshape(-1).astype(int)
    counted = (true >= 0) & (true < count)  # others are left out of the loss
    scores, true = scores[counted], true[counted]
    if not len(true):
        return None
    predicted = scores.argmax(1)
    doubt = scores[np.arange(len(true)), predicted] - scores[np.arange(len(true)), true]
    if t.ndim > 1:
        inputs = {}  # several predictions for each example
    else:
        inputs = {n: x[counted] for n, x in inputs.items() if len(x) == len(counted)}
    return Compared(output, target, predicted, true, doubt, count, inputs)


def _is_cut(model: Model, name: str) -> bool:
    shape = model.inputs[name].shape
    return bool(shape) and shape[0] == model.examples


def _fits(model: Model, output: str, target: str) -> bool:
    y, t = model.outputs[output], model.inputs[target]
    if not y.dtype.is_float or not _is_cut(model, target) or not y.rank:
        return False
    if not t.dtype.is_float and y.rank == t.rank + 1 and isinstance(y.shape[-1], int):
        return y.shape[:-1] == t.shape and y.shape[-1] > 1
    return y.shape == t.shape or (y.shape[-1:] == (1,) and y.shape[:-1] == t.shape)


def _is_distribution(y: Array) -> bool:
    return bool(y.ndim > 1 and (y >= 0).all() and np.allclose(y.sum(-1), 1, atol=1e-3))
