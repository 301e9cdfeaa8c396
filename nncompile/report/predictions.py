"""How a model's predictions compare with their targets: classes, numbers, or what comes next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from nncompile.ir.dims import product, substitute, symbols
from nncompile.ir.types import Array
from nncompile.program.category_codes import CategoryCodes
from nncompile.program.model import Model
from nncompile.program.weighted_losses import WEIGHTS
from nncompile.report.meeting import meets
from nncompile.train import Trainer

EXAMPLES = 2000  # that are looked at
_UNKNOWN = "(unknown)"  # the code of what is missing, or none of the categories
_NUMBERS = 2**24  # of predictions, at most


@dataclass(frozen=True)
class Compared:
    """Predictions of one output beside their target: the class of each example (of `count`), or
    numbers. `doubt` is larger the worse a prediction is, and `places` say which example each is of,
    with further indices where there are several in one.

    `kind` is "classes", "numbers", "copies" (the target is an input of the prediction, as of an
    autoencoder) or "tokens" (the classes of a sequence; `context` has what stands before each).
    """

    kind: str
    output: str
    target: str
    predicted: Array
    true: Array
    doubt: Array
    count: int | None
    inputs: Mapping[str, Array]
    places: Array
    probability: Array | None = None
    context: list[Array] = field(default_factory=list)
    class_names: tuple[str, ...] | None = None  # where the target has a vocabulary

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
    count, most = 0, EXAMPLES
    for batch in islice(batches, EXAMPLES):
        several.append(batch)
        cut = [len(batch[n]) for n in model.cut if n in batch]
        most = min(most, _affordable(model, batch))
        count += cut[0] if cut else most
        if count >= most:
            break
    if not several or model.examples is None:
        return {}
    names = [n for n in model.inputs if n in several[0]]
    if any(len({np.shape(b[n])[1:] for b in several}) > 1 for n in names if n in model.cut):
        several = several[:1]  # sequences of other lengths
    return {
        n: np.concatenate([np.asarray(b[n]) for b in several])[:most]
        if n in model.cut
        else np.asarray(several[0][n])
        for n in names
    }


def _affordable(model: Model, batch: Mapping[str, Any]) -> int:
    """Of how many examples the predictions fit easily in memory."""
    sizes: dict[Any, Any] = {}
    for name, leaf in model.inputs.items():
        for size, length in zip(leaf.shape, np.shape(batch.get(name, ())), strict=False):
            sizes |= {size: length} if size in symbols((size,)) else {}
    sizes |= {} if model.examples is None else {model.examples: 1}
    largest = 1
    for name in model.predict:
        elements = substitute(product(getattr(model.outputs[name].type, "shape", ())), sizes)
        largest = max(largest, elements if isinstance(elements, int) else 1)
    return int(min(EXAMPLES, max(1, _NUMBERS // largest)))


def compared(trainer: Trainer, examples: Mapping[str, Array]) -> Compared | None:
    """The predictions of the first output for which there is a target: an input that it does not
    need, with a class for each row of it or of its own shape. Where there is none, an input that it
    does need is the target, if it is numbers that the loss compares the output with, or tokens of
    which it gives the likelihoods. None where there is no such pair."""
    pairs = dict(_pairs(trainer, examples)) if examples else {}
    if not pairs:
        return None
    model = trainer.model
    outputs = trainer.predict(dict(examples))
    best = min(pairs.values())
    chosen = [pair for pair, kind in pairs.items() if kind == best]
    # Of logits and probabilities, the latter say how sure the model is.
    output, target = max(chosen, key=lambda pair: _is_distribution(outputs[pair[0]]))
    y, t = outputs[output], examples[target]
    needed = model.needs(output)
    inputs = {n: x for n, x in examples.items() if n in needed}
    if best == _TOKENS:
        comparison = _of_tokens(output, target, y, t, t)
    elif y.ndim == t.ndim + 1 and (y.shape[-1] > 1 or not model.inputs[target].dtype.is_float):
        comparison = _of_classes_or_tokens(output, target, y, t, inputs)
    else:
        kind = "copies" if best == _COPIES else "numbers"
        comparison = _of_numbers(output, target, y, t, inputs, kind)
    return comparison and _in_words(comparison, model)


def _in_words(comparison: Compared, model: Model) -> Compared:
    """The comparison, with the categories of inputs that have some, and those of the target."""
    codes = model.vocabularies
    words = {n: _words(codes[n], x) if n in codes else x for n, x in comparison.inputs.items()}
    classes = codes.get(comparison.target)
    if classes is None or len(classes) != comparison.count:
        return replace(comparison, inputs=words)
    names = tuple(_words(classes, np.arange(len(classes))))
    return replace(comparison, inputs=words, class_names=names)


def _words(codes: CategoryCodes, numbers: Array) -> Array:
    """The categories of the codes, as text."""
    words = np.empty(len(codes), object)
    words[:] = [_UNKNOWN if c is None else str(c) for c in codes.decode(np.arange(len(codes)))]
    return np.asarray(words[numbers])


_TARGETS, _COPIES, _TOKENS = range(3)


def _pairs(
    trainer: Trainer, examples: Mapping[str, Array]
) -> Iterator[tuple[tuple[str, str], int]]:
    """Outputs and what they may be compared with, and how."""
    model = trainer.model
    for output in model.predict:
        needed = model.needs(output)
        for target in examples:
            if target == WEIGHTS or not _fits(model, output, target):
                continue
            y, t = model.outputs[output], model.inputs[target]
            is_class = not t.dtype.is_float and y.rank == t.rank + 1
            if target not in needed:
                # What is only of the same shape, such as images beside drawn ones, is no target.
                if is_class or meets(trainer.recipe, y, t):
                    yield (output, target), _TARGETS
            elif is_class and t.rank > 1:
                yield (output, target), _TOKENS
            elif t.dtype.is_float and y.shape == t.shape and meets(trainer.recipe, y, t):
                yield (output, target), _COPIES


def _of_numbers(
    output: str, target: str, y: Array, t: Array, inputs: Mapping[str, Array], kind: str
) -> Compared:
    places = np.arange(len(y))[:, None]
    t = t.reshape(y.shape).astype(np.float64)
    if kind == "numbers" and np.isin(t, (0, 1)).all() and y.shape[0] == y.size:
        likely = y.reshape(-1).astype(np.float64)
        border = 0.5 if ((likely >= 0) & (likely <= 1)).all() else 0.0
        true, predicted = t.reshape(-1).astype(int), (likely > border).astype(int)
        doubt = np.where(true == 1, -likely, likely)
        return Compared("classes", output, target, predicted, true, doubt, 2, inputs, places)
    y = y.astype(np.float64)
    doubt = np.abs(y - t).reshape(len(y), -1).mean(1)
    return Compared(kind, output, target, y, t, doubt, None, inputs, places)


def _of_classes_or_tokens(
    output: str, target: str, y: Array, t: Array, inputs: Mapping[str, Array]
) -> Compared | None:
    if t.ndim == 1:
        return _of_classes(output, target, y, t, inputs)
    same = [x for x in inputs.values() if x.shape == t.shape and x.dtype.kind in "iu"]
    return _of_tokens(output, target, y, t, same[0] if same else None)


def _of_classes(
    output: str, target: str, y: Array, t: Array, inputs: Mapping[str, Array]
) -> Compared | None:
    count = y.shape[-1]
    counted = (t >= 0) & (t < count)  # others are left out of the loss
    scores, true = y[counted].astype(np.float64), t[counted].astype(int)
    if not len(true):
        return None
    predicted = scores.argmax(1)
    doubt = scores[np.arange(len(true)), predicted] - scores[np.arange(len(true)), true]
    inputs = {n: x[counted] for n, x in inputs.items() if len(x) == len(counted)}
    places = np.argwhere(counted)
    return Compared("classes", output, target, predicted, true, doubt, count, inputs, places)


def _of_tokens(output: str, target: str, y: Array, t: Array, text: Array | None) -> Compared | None:
    """Classes of each place of a sequence. Where the sequence itself is the target, a prediction is
    of the next place or of its own, whichever is more often right."""
    if text is t:
        best = y.argmax(-1)
        is_next = t.shape[1] > 1 and (best[:, :-1] == t[:, 1:]).mean() >= (best == t).mean()
        if is_next:
            y, t = y[:, :-1], t[:, 1:]
    count = y.shape[-1]
    counted = (t >= 0) & (t < count)
    places = np.argwhere(counted)
    if not len(places):
        return None
    scores, true = y[counted].astype(np.float64), t[counted].astype(int)
    predicted = scores.argmax(1)
    rows = np.arange(len(true))
    weights = np.exp(scores - scores.max(1, keepdims=True))
    shares = scores if _is_distribution(y) else weights / weights.sum(1, keepdims=True)
    context = []
    if text is not None and text.ndim == 2:
        context = [text[row, : place + 1] for row, place in places]
    return Compared(
        kind="tokens",
        output=output,
        target=target,
        predicted=predicted,
        true=true,
        doubt=shares[rows, predicted] - shares[rows, true],
        count=count,
        inputs={},
        places=places,
        probability=shares[rows, predicted],
        context=context,
    )


def _fits(model: Model, output: str, target: str) -> bool:
    y, t = model.outputs[output], model.inputs[target]
    if not y.dtype.is_float or target not in model.cut or not y.rank:
        return False
    if not t.dtype.is_float and y.rank == t.rank + 1 and isinstance(y.shape[-1], int):
        return y.shape[:-1] == t.shape and y.shape[-1] > 1
    return y.shape == t.shape or (y.shape[-1:] == (1,) and y.shape[:-1] == t.shape)


def _is_distribution(y: Array) -> bool:
    return bool(y.ndim > 1 and (y >= 0).all() and np.allclose(y.sum(-1), 1, atol=1e-3))
