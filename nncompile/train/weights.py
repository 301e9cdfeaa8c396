"""What each example weighs: by its class, or as it is said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import FeedError, ModelError
from nncompile.ir.types import Array
from nncompile.program.model import Model
from nncompile.program.weighted_losses import WEIGHTS
from nncompile.train.sources.arrays import rows_of

ClassWeight = Mapping[int, float] | str


class ClassWeights:
    """Weighs the examples by their classes: `weights` gives that of each, or is "balanced", n /
    (classes · count) as in scikit-learn, of the labels of all examples.

    Raises `ModelError` for a model without one label, `FeedError` for other weights.
    """

    def __init__(self, weights: ClassWeight, model: Model) -> None:
        self.label = _label_of(model)
        self._table: dict[int, float] | None = None
        if isinstance(weights, Mapping):
            self._table = {_class(c): _weight(c, w) for c, w in weights.items()}
        elif weights != "balanced":
            raise FeedError(
                f"class_weight must give a weight for each class, got {weights!r:.60}",
                hint='class_weight={0: 1.0, 1: 5.0}, or class_weight="balanced"',
            )

    @property
    def is_balanced(self) -> bool:
        """Whether the weights follow from the labels."""
        return self._table is None

    def fit(self, labels: Any) -> None:
        """Balances the weights by all labels."""
        classes, counts = np.unique(rows_of(self.label, labels)[:], return_counts=True)
        balanced = counts.sum() / (len(classes) * counts)
        self._table = dict(zip(map(int, classes), map(float, balanced), strict=True))

    def __call__(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """The feeds with the weights of the classes, times those that the examples have. Raises
        `FeedError` for a class without a weight."""
        if self.label not in feeds:
            return feeds  # which is told as a missing input
        labels = np.asarray(rows_of(self.label, feeds[self.label])[:]).reshape(-1)
        table = self._table or {}
        classes, places = np.unique(labels, return_inverse=True)
        for c in classes:
            if c not in table:
                raise FeedError(
                    f"class_weight has no weight for class {c} of input {self.label!r}",
                    rows=[("class", str(k), f"{w:g}") for k, w in sorted(table.items())],
                    hint=f"class_weight={{…, {c}: 1.0}}",
                )
        weights = np.array([table[int(c)] for c in classes], np.float32)[places]
        if WEIGHTS in feeds:
            weights = weights * sample_weights(feeds[WEIGHTS])
        return {**feeds, WEIGHTS: weights}


def sample_weights(weights: Any) -> Array:
    """The weights of examples as numbers. Raises `FeedError` where they are none, or negative."""
    array = np.asarray(rows_of(WEIGHTS, weights)[:])
    if array.dtype.kind not in "biuf" or array.ndim != 1:
        raise FeedError(
            f"{WEIGHTS} must be one number for each example",
            rows=[("got", str(array.dtype), str(list(array.shape)))],
        )
    wrong = ~(array >= 0)  # NaN is wrong, too
    if wrong.any():
        i = int(np.argmax(wrong))
        raise FeedError(f"{WEIGHTS} must not be negative, got {array[i]} at [{i}]")
    return array.astype(np.float32)


def _label_of(model: Model) -> str:
    """The input that holds the classes: the only one of integers, one for each example, that no
    prediction needs. A loss is no prediction, also where nothing else is predicted."""
    predicted = [output for output in model.predict if output not in model.metrics]
    needed = {n for output in predicted for n in model.needs(output)}
    labels = [
        n
        for n in model.cut
        if (v := model.inputs[n]).dtype.is_integer
        and all(size == 1 for size in v.shape[1:])
        and n not in needed
    ]
    if len(labels) != 1:
        raise ModelError(
            f"class_weight needs one input of classes, model {model.name} has "
            f"{', '.join(labels) or 'none'}",
            rows=[("input", n, str(v.type)) for n, v in model.inputs.items()],
            hint=f"{WEIGHTS}=… gives a weight for each example",
        )
    return labels[0]


def _class(c: Any) -> int:
    try:
        return int(c) if int(c) == c else int("")
    except (TypeError, ValueError):
        raise FeedError(f"class_weight: a class is a whole number, got {c!r}") from None


def _weight(c: Any, w: Any) -> float:
    if not isinstance(w, int | float | np.number) or not 0 <= w < np.inf:
        raise FeedError(f"class_weight: the weight of class {c} must be a number ≥ 0, got {w!r}")
    return float(w)
