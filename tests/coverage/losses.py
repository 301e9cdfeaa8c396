"""Rows: losses and metrics."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

import dsl
from dsl import f32, i64
from tests.coverage.building import bits, of, of_classes, of_pair, probabilities, signs
from tests.coverage.checks import System

LOSSES, METRICS = "Losses", "Metrics"


def _loss(name: str, build: Any, **options: Any) -> System:
    shown = {"agrees": "torch", "test": "tests/test_losses_torch.py"}
    return System(name, LOSSES, build, **{**shown, **options})


def _log_probabilities(rng: np.random.Generator) -> dict[str, Any]:
    weights = rng.uniform(0.1, 0.9, (3, 4)).astype(np.float32)
    return {"x1": weights / weights.sum(-1, keepdims=True)}


_WEIGHTS = np.float32([0.5, 1.0, 2.0])
LOSS_ROWS = (
    _loss("MSE", of_pair(dsl.mse), example="examples/linear_regression.py"),
    _loss("MAE", of_pair(dsl.mae)),
    _loss("Huber", of_pair(dsl.huber)),
    _loss("log-cosh", of_pair(dsl.log_cosh), agrees="its formula"),
    _loss("quantile", of_pair(partial(dsl.quantile_loss, quantile=0.8)), agrees="its formula"),
    _loss("binary cross-entropy of probabilities", of_pair(dsl.binary_cross_entropy),
          feeds=probabilities("x0", "x1")),
    _loss("binary cross-entropy of logits", of_pair(dsl.binary_cross_entropy_with_logits),
          example="examples/logistic_regression.py"),
    _loss("cross-entropy, integer labels", of_classes(dsl.cross_entropy),
          example="examples/digits.py"),
    _loss("cross-entropy, soft labels", of_pair(dsl.cross_entropy), feeds=_log_probabilities),
    _loss("label smoothing", of_classes(partial(dsl.cross_entropy, label_smoothing=0.1))),
    _loss("class weights", of_classes(partial(dsl.cross_entropy, class_weight=_WEIGHTS))),
    _loss("ignore index", of_classes(partial(dsl.cross_entropy, ignore_index=0))),
    _loss("hinge", of_pair(dsl.hinge), feeds=signs("x1"), agrees="its formula"),
    _loss("multi-class hinge", of_classes(dsl.multiclass_hinge)),
    _loss("perceptron", of_pair(dsl.perceptron_loss), feeds=signs("x1"), agrees="its formula",
          example="examples/perceptron.py"),
    _loss("focal", of_classes(dsl.focal_loss), agrees="its formula"),
    _loss("focal of two classes", of_pair(dsl.binary_focal_loss), feeds=bits("x1"),
          agrees="its formula"),
    _loss("KL divergence", of_pair(lambda x, t: dsl.kl_divergence(dsl.log_softmax(x), t)),
          feeds=_log_probabilities),
    _loss("negative log-likelihood",
          of_classes(lambda x, t: dsl.negative_log_likelihood(dsl.log_softmax(x), t))),
    _loss("cosine distance", of_pair(dsl.cosine_distance)),
    _loss("cosine similarity", of_pair(dsl.cosine_similarity)),
    _loss("cosine of pairs", of(dsl.cosine_embedding_loss, *(f32["batch", 4],) * 2, i64["batch"]),
          feeds=lambda rng: {"x2": np.array([1, -1, 1])}),
    _loss("contrastive pair", of(dsl.contrastive_loss, *(f32["batch", 4],) * 2, i64["batch"]),
          feeds=lambda rng: {"x2": np.array([1, 0, 1])}, agrees="its formula"),
    _loss("triplet", of(dsl.triplet_loss, *(f32["batch", 4],) * 3)),
    _loss("triplet of a distance of one's own", of(partial(dsl.triplet_loss,
          distance_function=lambda x, y: dsl.max(dsl.abs(x - y), -1)), *(f32["batch", 4],) * 3)),
    _loss("margin ranking", of(dsl.margin_ranking_loss, *(f32["batch", 4],) * 3),
          feeds=signs("x2")),
    _loss("soft margin", of_pair(dsl.soft_margin_loss), feeds=signs("x1")),
    _loss("hinge of distances",
          of(dsl.hinge_embedding_loss, f32["batch", 4], i64["batch", 4]),
          feeds=lambda rng: {"x1": 2 * rng.integers(0, 2, (3, 4)) - 1}),
    _loss("several labels, margin",
          of(dsl.multilabel_margin_loss, f32["batch", 4], i64["batch", 2]),
          feeds=lambda rng: {"x1": np.array([[1, 2], [3, -1], [-1, 0]])}),
    _loss("several labels, soft margin", of_pair(dsl.multilabel_soft_margin_loss),
          feeds=bits("x1")),
    _loss("InfoNCE", of_pair(dsl.info_nce), example="examples/siamese.py",
          agrees="a cross-entropy of torch's"),
    _loss("Poisson", of_pair(dsl.poisson_loss), feeds=probabilities("x1")),
    _loss("Gaussian NLL", of(dsl.gaussian_nll, *(f32["batch", 4],) * 3),
          feeds=probabilities("x2")),
    _loss("CTC", of(dsl.ctc_loss, f32["batch", 6, 4], i64["batch", 2]),
          feeds=lambda rng: {"x1": np.array([[1, 2], [3, 3], [2, 1]])},
          test="tests/test_losses_ctc.py", example="examples/ctc.py"),
    _loss("a loss of one's own", of_pair(lambda y, t: dsl.mean(dsl.log1p((y - t) ** 2))),
          agrees="finite differences", test="tests/test_formula_derivatives.py"),
)  # fmt: skip


def _metric(name: str, build: Any, **options: Any) -> System:
    shown = {"order": 0, "agrees": "scikit-learn", "test": "tests/test_metrics.py"}
    return System(name, METRICS, build, **{**shown, **options})


METRIC_ROWS = (
    _metric("accuracy", of_classes(dsl.accuracy), example="examples/digits.py"),
    _metric("top-k accuracy", of_classes(partial(dsl.top_k_accuracy, k=2))),
    _metric("precision", of_pair(dsl.precision), feeds=bits("x1")),
    _metric("recall", of_pair(dsl.recall), feeds=bits("x1")),
    _metric("F1", of_classes(partial(dsl.f1_score, average="macro"))),
    _metric("ROC-AUC", of(dsl.roc_auc, f32["batch"], f32["batch"]),
            feeds=lambda rng: {"x0": np.float32([0.3, 0.7, 0.1]), "x1": np.float32([0, 1, 1])}),
    _metric("confusion matrix", of_classes(dsl.confusion_matrix)),
    _metric("mean squared error", of_pair(dsl.mse), order=2),
    _metric("mean absolute error", of_pair(dsl.mae), order=2),
    _metric("R²", of_pair(dsl.r2_score), order=2),
    _metric("perplexity", of_classes(dsl.perplexity), order=2, agrees="exp of the mean"),
    _metric("IoU", of_classes(partial(dsl.iou, average="macro"))),
)  # fmt: skip

ROWS = (*LOSS_ROWS, *METRIC_ROWS)
