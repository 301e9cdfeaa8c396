"""`NeuralRegressor`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from sklearn.base import RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import column_or_1d

from dsl import huber, mean, mean_absolute_error, mean_squared_error
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type
from nncompile.program.model import Model
from nncompile.sklearn.conversion import exported
from nncompile.sklearn.estimator import Neural
from nncompile.sklearn.network import network

LOSSES = {
    "squared_error": mean_squared_error,
    "absolute_error": mean_absolute_error,
    "huber": huber,
}


@dataclass(eq=False, repr=False)
class NeuralRegressor(RegressorMixin, Neural):
    """A network that predicts a number, or several (`y` [n, outputs]), as an estimator of
    scikit-learn.

    `loss` is "squared_error", "absolute_error" or "huber", the mean over the outputs. The other
    options, and what there is after `fit`, are those of `NeuralClassifier`; the score that
    `early_stopping` looks at is R².

    >>> X = np.linspace(-1, 1, 64)[:, None]
    >>> curve = NeuralRegressor((16,), "tanh", learning_rate=0.03, batch_size=8, random_state=0)
    >>> curve.fit(X, np.sin(3 * X[:, 0])).score(X, np.sin(3 * X[:, 0])) > 0.95
    True
    """

    loss: str = field(default="squared_error", kw_only=True)

    _numeric_y = True

    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains for one epoch on these examples."""
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> Array:
        """The number of each example, or the numbers [n, outputs]."""
        prediction = self._outputs(X, "prediction")
        return prediction[:, 0] if self._flat else prediction

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output = True
        return tags

    def _encoded(self, y: Array, reset: bool) -> Array:
        flat = y.ndim == 1 or y.shape[1] == 1
        y = column_or_1d(y, warn=True)[:, None] if flat else y
        if reset:
            self._flat, self.n_outputs_ = flat, y.shape[1]
        elif y.shape[1] != self.n_outputs_:
            raise ValueError(f"y has {y.shape[1]} outputs, {self.n_outputs_} before")
        return y

    def _validated(self, X: Any, y: Any, reset: bool) -> tuple[Array, Array]:
        X, y = super()._validated(X, y, reset)
        return X, np.asarray(y, X.dtype)

    def _network(self, types: dict[str, Type], body: list[Any], y: Array) -> Model:
        if self.loss not in LOSSES:
            raise ValueError(f"loss must be one of {', '.join(LOSSES)}, got {self.loss!r}")
        loss = LOSSES[self.loss]

        def losses(z: Value, target: Value) -> Value:
            return mean(loss(z, target, reduction="none"), 1)

        types["target"] = types["x"].dtype["batch", y.shape[1]]
        outputs = y.shape[1]
        return network("regressor", types, body, outputs, lambda z: {"prediction": z}, losses)

    def _score_of(self, X: Array, y: Array, weight: Array) -> float:
        return float(r2_score(y, self._predicted(X, "prediction"), sample_weight=weight))

    def _proto(self) -> Any:
        return exported(self.trainer_)
