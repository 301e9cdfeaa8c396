"""What the classifier and the regressor share: how a network is trained behind `fit`."""

from __future__ import annotations

import os
import warnings
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.utils import check_random_state
from sklearn.utils.validation import (
    _check_sample_weight,
    check_is_fitted,
    validate_data,
)

from nncompile.diagnostics.files import write_atomically
from nncompile.ir.types import Array, Type, f32, f64
from nncompile.program.model import Model
from nncompile.sklearn.network import hidden_layers, recipe_of, standardized
from nncompile.sklearn.options import built_of, check_options, check_same_network
from nncompile.sklearn.stopping import Stopping
from nncompile.train.trainer import Trainer

_SEEDS = 2**31 - 1


@dataclass(eq=False, repr=False)
class Neural(BaseEstimator, ABC):
    """A network with scikit-learn's interface. The options are those of `NeuralClassifier`.

    They are the fields of a dataclass, whose `__init__` has the signature that scikit-learn reads
    them from, and stores them as they are.
    """

    hidden_layer_sizes: Any = (100,)
    activation: Any = "relu"
    _: KW_ONLY
    architecture: Any = None
    standardize: bool = False
    dropout: float = 0.0
    optimizer: Any = "adamw"
    learning_rate: Any = 1e-3
    weight_decay: float = 1e-4
    batch_size: Any = "auto"
    max_iter: int = 200
    shuffle: bool = True
    random_state: Any = None
    tol: float = 1e-4
    n_iter_no_change: int = 10
    early_stopping: bool = False
    validation_fraction: float = 0.1
    warm_start: bool = False
    verbose: bool = False
    threads: int | None = 1

    def fit(self, X: Any, y: Any, sample_weight: Any = None) -> Self:
        """Trains on the examples `X` [n, features] with the targets `y`, for `max_iter` epochs or
        until it no longer improves, from new weights unless there is a `warm_start`.

        `sample_weight` multiplies the loss of each example; those of weight 0 are left out. Raises
        `ValueError` for data that do not fit, `TrainingError` where the loss is not finite."""
        continues = self.warm_start and hasattr(self, "trainer_")
        check_options(self)
        if continues:
            check_same_network(self, self._built_of)
        X, y = self._validated(X, y, reset=not continues)
        X, y, weight = self._weighted(X, self._encoded(y, reset=not continues), sample_weight)
        if not continues:
            self._begin(X, y, weight)
        examples, held_out = (X, y, weight), None
        if self.early_stopping:
            examples, held_out = self._split(X, y, weight)
        stopping = Stopping(self, held_out)
        trained = {"x": examples[0], "target": examples[1], "weight": examples[2]}
        self.trainer_.fit(
            trained,
            epochs=self.max_iter,
            callbacks=stopping,
            batch_size=self._batch(len(examples[0])),
            shuffle=self.shuffle,
            verbose=0,
        )
        stopping.finish()
        self._learned(stopping)
        if not stopping.stopped and self.n_iter_no_change < self.max_iter:
            warnings.warn(
                f"{type(self).__name__} was still improving after max_iter={self.max_iter} epochs",
                ConvergenceWarning,
                stacklevel=2,
            )
        return self

    def _partial_fit(self, X: Any, y: Any, sample_weight: Any) -> Self:
        first = not hasattr(self, "trainer_")
        check_options(self)
        X, y = self._validated(X, y, reset=first)
        X, y, weight = self._weighted(X, self._encoded(y, reset=first), sample_weight)
        if first:
            self._begin(X, y, weight)
        history = self.trainer_.fit(
            {"x": X, "target": y, "weight": weight},
            epochs=1,
            batch_size=self._batch(len(X)),
            shuffle=self.shuffle,
            verbose=0,
        )
        self.loss_ = history.epochs[-1]["loss"]
        self.loss_curve_ = [*getattr(self, "loss_curve_", []), self.loss_]
        self.best_loss_ = min(self.loss_curve_)
        self.n_iter_, self.t_ = self.trainer_.epoch, self.trainer_.step
        return self

    def to_onnx(self, path: str | os.PathLike[str] | None = None) -> Any:
        """The trained network as an `onnx.ModelProto`, whose input is `x` [batch, features] of the
        element type that it was trained on; written to `path` where one is given. See
        `nncompile.sklearn.to_onnx` for a pipeline. Raises `FileError` for a path that cannot be
        written."""
        check_is_fitted(self, "trainer_")
        proto = self._proto()
        if path is not None:
            write_atomically(Path(path), proto.SerializeToString())
        return proto

    # What a subclass says.

    @abstractmethod
    def _encoded(self, y: Array, reset: bool) -> Array:
        """The targets as the network takes them; of new classes where it begins."""

    @abstractmethod
    def _network(self, types: dict[str, Type], body: list[Any], y: Array) -> Model:
        """The model of inputs of these types, of which the targets are as in `y`."""

    @abstractmethod
    def _score_of(self, X: Array, y: Array, weight: Array) -> float:
        """The score of encoded targets."""

    @abstractmethod
    def _proto(self) -> Any:
        """The network as an ONNX model."""

    def _strata(self, y: Array) -> Array | None:
        """By what held-out examples are chosen evenly."""
        return None

    # What both do.

    def _validated(self, X: Any, y: Any, reset: bool) -> tuple[Array, Array]:
        dtype = [np.float64, np.float32] if reset else [self._dtype]
        checked: tuple[Array, Array] = validate_data(
            self, X, y, multi_output=True, y_numeric=self._numeric_y, dtype=dtype, reset=reset
        )
        return checked

    _numeric_y = False

    def _weighted(self, X: Array, y: Array, sample_weight: Any) -> tuple[Array, Array, Array]:
        """The examples that have a weight, and their weights, of mean 1."""
        weight = _check_sample_weight(sample_weight, X, dtype=X.dtype)
        if (weight < 0).any():
            raise ValueError("sample_weight must not be negative")
        weight = self._class_weighted(weight, y)
        if sample_weight is not None and not (weight > 0).all():
            if not (weight > 0).any():
                raise ValueError("all sample_weight are 0: there is nothing to train on")
            X, y, weight = X[weight > 0], y[weight > 0], weight[weight > 0]
        scaled = (weight / weight.mean(dtype=np.float64)).astype(X.dtype)
        return X, y, scaled

    def _class_weighted(self, weight: Array, y: Array) -> Array:
        return weight

    def _begin(self, X: Array, y: Array, weight: Array) -> None:
        """A new network with new weights."""
        self._dtype, self._built_of = X.dtype, built_of(self)
        dtype = f64 if X.dtype == np.float64 else f32
        seed = int(check_random_state(self.random_state).randint(_SEEDS))
        body: list[Any] = []
        if self.standardize:
            center = np.average(X.astype(np.float64), axis=0, weights=weight)
            spread = np.sqrt(np.average((X - center) ** 2, axis=0, weights=weight))
            body.append(standardized(center, np.where(spread > 0, spread, 1)))
        if self.architecture is None:
            body += hidden_layers(self.hidden_layer_sizes, self.activation, self.dropout)
        else:
            body.append(self.architecture)
        types = {"x": dtype["batch", X.shape[1]], "weight": dtype["batch"]}
        self.model_ = self._network(types, body, y)
        recipe = recipe_of(
            self.model_,
            self.optimizer,
            self.learning_rate,
            self.weight_decay,
            self._batch(len(X)),
            seed,
        )
        self.trainer_ = Trainer(recipe, threads=self.threads)
        for name in ("loss_curve_", "validation_scores_", "best_validation_score_"):
            if hasattr(self, name):
                delattr(self, name)

    def _batch(self, count: int) -> int:
        return min(200, count) if self.batch_size == "auto" else min(int(self.batch_size), count)

    def _split(self, X: Array, y: Array, weight: Array) -> tuple[Any, ...]:
        """The examples that are trained on, and those that are held out."""
        seed = int(check_random_state(self.trainer_.seed).randint(_SEEDS))
        kept, held_out = train_test_split(
            np.arange(len(X)),
            test_size=self.validation_fraction,
            random_state=seed,
            stratify=self._strata(y),
        )
        return tuple(
            (X[rows], y[rows], weight[rows]) for rows in (np.sort(kept), np.sort(held_out))
        )

    def _learned(self, stopping: Stopping) -> None:
        """The attributes that a training leaves."""
        earlier = getattr(self, "loss_curve_", [])
        self.loss_curve_ = [*earlier, *stopping.losses]
        self.loss_, self.best_loss_ = self.loss_curve_[-1], min(self.loss_curve_)
        self.n_iter_, self.t_ = self.trainer_.epoch, self.trainer_.step
        if self.early_stopping:
            self.validation_scores_ = [*getattr(self, "validation_scores_", []), *stopping.scores]
            self.best_validation_score_ = max(self.validation_scores_)

    def _outputs(self, X: Any, name: str) -> Array:
        """What the network predicts for examples."""
        check_is_fitted(self, "trainer_")
        X = validate_data(self, X, dtype=[self._dtype], reset=False)
        return self._predicted(X, name)

    def _predicted(self, X: Array, name: str) -> Array:
        return self.trainer_.predict({"x": X})[name]
