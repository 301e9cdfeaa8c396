"""How good predictions are: compared with scikit-learn's metrics, and what cannot be compared."""

from __future__ import annotations

import numpy as np
import pytest

from nncompile.diagnostics.errors import FeedError
from nncompile.train.measures import measured

RANDOM = np.random.default_rng(0)


def test_probabilities_and_zeros_and_ones() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    p, t = RANDOM.random(50).round(1).clip(0.05, 0.95), RANDOM.integers(2, size=50)
    for prediction in (p, p[:, None].astype(np.float32)):
        found = measured(prediction, t.astype(np.float32))
        assert found == pytest.approx(
            {
                "accuracy": metrics.accuracy_score(t, p >= 0.5),
                "cross_entropy": metrics.log_loss(t, p),
                "roc_auc": metrics.roc_auc_score(t, p),
            },
            rel=1e-6,
        )
    assert list(measured(p, np.ones(50))) == ["accuracy", "cross_entropy"]
    assert np.isfinite(measured(np.zeros(3), np.ones(3))["cross_entropy"])


def test_scores_of_classes() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    scores, t = RANDOM.normal(size=(40, 3)), RANDOM.integers(3, size=40)
    accuracy = (scores.argmax(1) == t).mean()
    assert measured(scores, t) == {"accuracy": accuracy}
    p = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
    known = metrics.log_loss(t, p, labels=[0, 1, 2])
    assert measured(p, t) == pytest.approx({"accuracy": accuracy, "cross_entropy": known})
    assert measured(scores.argmax(1), t) == {"accuracy": accuracy}


def test_numbers() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    for shape in ((30,), (30, 4)):
        p, t = RANDOM.normal(size=shape), RANDOM.normal(size=shape)
        found = measured(p, t)
        assert found["mean_absolute_error"] == pytest.approx(metrics.mean_absolute_error(t, p))
        squared = metrics.mean_squared_error(t, p)
        assert found["root_mean_squared_error"] == pytest.approx(np.sqrt(squared))
        known = metrics.r2_score(t, p, multioutput="variance_weighted")
        assert found["r2_score"] == pytest.approx(known)
    assert np.isnan(measured(np.zeros(3), np.full(3, 2.5))["r2_score"])


@pytest.mark.parametrize(
    ("prediction", "target", "message"),
    [
        (np.zeros((4, 3)), np.array([0, 1, 2, 3]), "not one of the 3 classes"),
        (np.zeros((4, 3)), np.array([0, -1, 2, 1]), "not one of the 3 classes"),
        (np.zeros((4, 3)), np.full(4, 0.5), "cannot be compared"),
        (np.zeros(4), np.zeros(3), "cannot be compared"),
        (np.zeros(2), np.array([0, np.nan]), "a number in every example"),
        (np.zeros(2), np.array(["a", "b"]), "a number in every example"),
    ],
)
def test_what_cannot_be_compared(prediction: object, target: object, message: str) -> None:
    with pytest.raises(FeedError, match=message):
        measured(prediction, target)
