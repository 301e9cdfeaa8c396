"""`NeuralClassifier`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from sklearn.base import ClassifierMixin
from sklearn.utils.class_weight import compute_sample_weight
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import column_or_1d

from dsl import binary_cross_entropy_with_logits, cross_entropy, i64, mean, sigmoid, softmax
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type
from nncompile.program.model import Model
from nncompile.sklearn.conversion import classifier_proto
from nncompile.sklearn.estimator import Neural
from nncompile.sklearn.network import network


@dataclass(eq=False, repr=False)
class NeuralClassifier(ClassifierMixin, Neural):
    """A network that classifies, as an estimator of scikit-learn: of two classes or more, or of
    labels that may hold together (`y` [n, labels] of 0 and 1).

    The network is `hidden_layer_sizes` dense layers with `activation` (a name of the language, or a
    function), each with `dropout` behind it; or `architecture`, a layer or a function from the
    examples, a value [batch, features], to features [batch, n], which a dense layer follows in
    either case. `standardize` gives the features mean 0 and variance 1 first, by statistics that
    are part of the network. It computes in the element type of `X`, float32 or else float64.

    `optimizer` is a name (such as "adamw", "sgd") with `learning_rate`, a number or a schedule, and
    `weight_decay`; or an optimizer. Training ends after `max_iter` epochs of batches of
    `batch_size` examples ("auto": 200 at most), or where the loss has not fallen by more than `tol`
    for `n_iter_no_change` epochs; with `early_stopping` that is asked of the score of a
    `validation_fraction` that is held out, and the weights of the best score are kept. With
    `warm_start`, another `fit` continues from the current weights.

    `class_weight` is "balanced" or a dict of a weight for each class. Equal `random_state`, data
    and versions give the same bits. `threads` are those of each operator.

    After `fit`: `classes_`, `n_features_in_`, `feature_names_in_`, `loss_`, `loss_curve_`,
    `best_loss_`, `n_iter_`, `t_` (steps), `validation_scores_`, `best_validation_score_`; `model_`
    and `trainer_`, a `Model` and a `Trainer` of nncompile.

    >>> from sklearn.datasets import load_iris
    >>> X, y = load_iris(return_X_y=True)
    >>> flowers = NeuralClassifier((16,), standardize=True, learning_rate=0.03, random_state=0)
    >>> flowers.fit(X, y).score(X, y) > 0.95
    True
    """

    class_weight: Any = field(default=None, kw_only=True)

    def partial_fit(self, X: Any, y: Any, classes: Any = None, sample_weight: Any = None) -> Self:
        """Trains for one epoch on these examples. `classes` are those that will come, in the first
        call; without it, those of the first `y`."""
        if classes is not None and not hasattr(self, "trainer_"):
            self.classes_ = np.unique(classes)
            self._announced = True
        return self._partial_fit(X, y, sample_weight)

    def predict(self, X: Any) -> Array:
        """The most probable class of each example, or the labels of a probability above 1/2."""
        probabilities = self._outputs(X, "probabilities")
        if self._multilabel:
            return (probabilities > 0.5).astype(np.int64)
        classes: Array = self.classes_[probabilities.argmax(1)]
        return classes

    def predict_proba(self, X: Any) -> Array:
        """The probability of each class, or label, of each example."""
        return self._outputs(X, "probabilities")

    def predict_log_proba(self, X: Any) -> Array:
        """The logarithm of `predict_proba`."""
        with np.errstate(divide="ignore"):
            return np.log(self.predict_proba(X))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _encoded(self, y: Array, reset: bool) -> Array:
        check_classification_targets(y)
        kind = type_of_target(y)
        if kind == "multiclass-multioutput":
            raise ValueError(
                f"{type(self).__name__} takes one class of each example, or labels of 0 and 1: "
                "y has several columns of classes"
            )
        multilabel = kind == "multilabel-indicator"
        if reset:
            self._multilabel = multilabel
            if not self.__dict__.pop("_announced", False):
                self.classes_ = np.arange(y.shape[1]) if multilabel else np.unique(y)
        elif multilabel != self._multilabel:
            raise ValueError("y has labels where it had classes before, or the other way round")
        if multilabel:
            if y.shape[1] != len(self.classes_):
                raise ValueError(f"y has {y.shape[1]} labels, {len(self.classes_)} before")
            return y
        y = column_or_1d(y, warn=True)
        unknown = np.setdiff1d(y, self.classes_)
        if len(unknown):
            raise ValueError(
                f"y has classes that are not in classes_: {unknown.tolist()}; "
                f"classes_ are {self.classes_.tolist()}"
            )
        if len(self.classes_) < 2:
            raise ValueError(
                f"{type(self).__name__} needs at least two classes, y has one class: "
                f"{self.classes_.tolist()}"
            )
        return np.searchsorted(self.classes_, y).astype(np.int64)

    def _class_weighted(self, weight: Array, y: Array) -> Array:
        if self.class_weight is None:
            return weight
        class_weight = self.class_weight
        if isinstance(class_weight, dict) and not self._multilabel:
            codes = {c: i for i, c in enumerate(self.classes_.tolist())}
            unknown = [c for c in class_weight if c not in codes]
            if unknown:
                raise ValueError(f"class_weight has {unknown[0]!r}, which is none of the classes")
            class_weight = {codes[c]: w for c, w in class_weight.items()}
        factors: Array = compute_sample_weight(class_weight, y).astype(weight.dtype)
        return weight * factors

    def _network(self, types: dict[str, Type], body: list[Any], y: Array) -> Model:
        if self._multilabel:
            types["target"] = types["x"].dtype["batch", y.shape[1]]

            def losses(z: Value, target: Value) -> Value:
                return mean(binary_cross_entropy_with_logits(z, target, reduction="none"), 1)
        else:
            types["target"] = i64["batch"]

            def losses(z: Value, target: Value) -> Value:
                loss: Value = cross_entropy(z, target, reduction="none")
                return loss

        activation = sigmoid if self._multilabel else softmax
        return network(
            "classifier",
            types,
            body,
            len(self.classes_),
            lambda z: {"probabilities": activation(z)},
            losses,
        )

    def _strata(self, y: Array) -> Array | None:
        return None if self._multilabel else y

    def _validated(self, X: Any, y: Any, reset: bool) -> tuple[Array, Array]:
        X, y = super()._validated(X, y, reset)
        if type_of_target(y) == "multilabel-indicator":
            y = np.asarray(y, X.dtype)
        return X, y

    def _score_of(self, X: Array, y: Array, weight: Array) -> float:
        probabilities = self._predicted(X, "probabilities")
        right = (
            probabilities.argmax(1) == y
            if y.ndim == 1
            else ((probabilities > 0.5) == (y > 0.5)).all(1)
        )
        return float(np.average(right, weights=weight))

    def _proto(self) -> Any:
        return classifier_proto(self.trainer_, self.classes_, self._multilabel)
