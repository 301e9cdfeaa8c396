"""Which labels losses and metrics take, which they refuse, and how they sum over batches."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import Dense, f32, f64, i64, model, sgd, training
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import FeedError, ModelError, ShapeError
from nncompile.ir.interpreter import evaluate
from nncompile.ops import const
from nncompile.train import Trainer
from tests.backends import optimized
from tests.leaves import leaf

ONE = leaf("x", f32["b", 1])
ROWS = leaf("x", f32["b"])
COLUMN = leaf("label", f32["b", 1])
NUMBERS = leaf("label", i64["b"])
TRUE = leaf("label", f32["b"])
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "accuracy of columns": (lambda: dsl.accuracy(ONE, COLUMN), "binary_accuracy"),
    "accuracy of rows": (lambda: dsl.accuracy(ROWS, TRUE), "binary_accuracy"),
    "accuracy of whole numbers": (
        lambda: dsl.accuracy(ROWS, leaf("label", i64[()])), "binary_accuracy",
    ),
    "accuracy of one logit": (lambda: dsl.accuracy(ONE, NUMBERS), "binary_accuracy"),
    "accuracy along another axis": (
        lambda: dsl.accuracy(leaf("x", f32["b", 1, 4]), leaf("label", i64["b", 4]), axis=1),
        "binary_accuracy",
    ),
    "top k of one logit": (lambda: dsl.top_k_accuracy(ONE, NUMBERS, 1), "binary_accuracy"),
    "top k of rows": (
        lambda: dsl.top_k_accuracy(ROWS, leaf("label", i64[()]), 1), "binary_accuracy",
    ),
    "a table of one logit": (lambda: dsl.confusion_matrix(ONE, NUMBERS), "precision"),
    **{
        f"{score.__name__} of {what}": (
            lambda score=score, x=x, y=y: score(x, y, "macro"), score.__name__,
        )
        for score in (dsl.precision, dsl.recall, dsl.f1_score, dsl.iou)
        for what, x, y in (("one logit", ONE, NUMBERS), ("rows", ROWS, TRUE))
    },
    "cross-entropy of one logit": (
        lambda: dsl.cross_entropy(ONE, NUMBERS), "binary_cross_entropy_with_logits",
    ),
    "cross-entropy of a column": (
        lambda: dsl.cross_entropy(ONE, COLUMN), "binary_cross_entropy_with_logits",
    ),
    "focal loss of one logit": (lambda: dsl.focal_loss(ONE, NUMBERS), "binary_focal_loss"),
    "hinge of one logit": (lambda: dsl.multiclass_hinge(ONE, NUMBERS), "hinge"),
    "perplexity of one logit": (
        lambda: dsl.perplexity(ONE, NUMBERS), "binary_cross_entropy_with_logits",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_one_class_is_no_choice(case: str) -> None:
    declare, hint = REFUSED[case]
    with pytest.raises(ShapeError) as told:
        declare()
    said = str(told.value)
    assert any(w in said for w in ("one class", "need a class axis", "has no class axis"))
    assert f"{hint}(x" in str(told.value)
    assert "label" in str(told.value)


def test_classes_that_can_be_told_apart_are_counted() -> None:
    logits = np.float32([[1, 2], [3, 0], [0, 1], [1, 0]])
    labels = np.array([1, 0, 0, 1])
    x = leaf("x", f32["b", 2])
    one_hot = np.eye(2, dtype=np.float32)[labels]
    for target in (leaf("label", i64["b"]), leaf("label", f32["b", 2])):
        feeds = {"x": logits, "label": labels if target.rank == 1 else one_hot}
        assert evaluate(dsl.accuracy(x, target), feeds) == 0.5
    one = {"x": logits[0], "label": np.array(1)}
    assert (
        evaluate(dsl.accuracy(leaf("x", f32[2]), leaf("label", i64[()])), one) == 1
    )  # without a batch
    pairs = leaf("x", f32["b", "b"])  # each row's own among those of the batch
    found = evaluate(
        dsl.accuracy(pairs, NUMBERS), {"x": np.eye(3, dtype=np.float32), "label": np.arange(3)}
    )
    assert found == 1


@model
def summed(x=f32["batch", 2], y=f32["batch"], label=i64["batch"]):
    z = x >> Dense(2, name="head")
    first = dsl.mse(z[:, 0], y, reduction="sum")
    return {
        "loss": first,
        "ce": dsl.cross_entropy(z, label, reduction="sum"),
        "weighted": dsl.mae(z[:, 0], y, reduction="sum", weight=y, mask=y > 2),
        "mean": first / y.shape[0],
        "decayed": first + 0.5 * (dsl.ones_like(z[0]) ** 2).sum(),
        "mixed": first + dsl.mse(z[:, 1], y),
    }


@pytest.mark.parametrize("batch", [1, 3, 4, 10])
def test_a_sum_is_that_of_all_batches(batch: int) -> None:
    trainer = Trainer(training(summed, minimize="loss", optimizer=sgd(0.0), batch_size=batch))
    trainer.set_params({"head.weight": np.zeros((2, 2), np.float32)})
    y = np.float32([1, 1, 1, 1, 1, 1, 3, 3, 4, 4])
    data = {"x": np.ones((10, 2), np.float32), "y": y, "label": np.arange(10) % 2}
    found = trainer.evaluate(data)
    squares = float((y**2).sum())
    assert found["loss"] == pytest.approx(squares)
    assert found["ce"] == pytest.approx(10 * np.log(2), rel=1e-6)
    assert found["weighted"] == pytest.approx(2 * 9 + 2 * 16)
    assert found["mean"] == pytest.approx(squares / 10)
    assert found["decayed"] == pytest.approx(squares + 1)
    history = trainer.fit(data, epochs=1, shuffle=False)
    assert history.last["loss"] == pytest.approx(squares)


def test_what_is_trained_is_the_sum_of_the_batch() -> None:
    """The step is down the gradient of 4 rows' sum, whatever came before."""
    trainer = Trainer(training(summed, minimize="loss", optimizer=sgd(0.125), batch_size=4))
    trainer.set_params({"head.weight": np.zeros((2, 2), np.float32)})
    data = {
        "x": np.zeros((4, 2), np.float32),
        "y": np.ones(4, np.float32),
        "label": np.zeros(4, np.int64),
    }
    trainer.fit(data, epochs=1)
    assert trainer.params["head.bias"][0] == pytest.approx(0.125 * 2 * 4)


def test_a_sum_added_to_a_mean_is_neither() -> None:
    """Each batch counts by its examples, as any metric of which not all is a total."""
    trainer = Trainer(training(summed, minimize="loss", optimizer=sgd(0.0), batch_size=4))
    trainer.set_params({"head.weight": np.zeros((2, 2), np.float32)})
    y = np.float32([1, 1, 1, 1, 2, 2])
    found = trainer.evaluate(
        {"x": np.ones((6, 2), np.float32), "y": y, "label": np.zeros(6, np.int64)}
    )
    assert found["mixed"] == pytest.approx((4 * (4 + 1) + 2 * (8 + 4)) / 6)


@pytest.mark.parametrize("loss", [dsl.hinge, dsl.perceptron_loss])
def test_labels_of_margins_are_signs_or_truths(loss: Any) -> None:
    z = leaf("x", f64["b"])
    points, signs = np.array([-2.0, 0.3, 0.5, -0.2]), np.array([1, -1, 1, -1])
    expected = np.maximum(0, (loss is dsl.hinge) - points * signs)
    for dtype, labels in ((f64, signs), (i64, signs), (i64, signs > 0), (f64, signs > 0)):
        y = leaf("label", dtype["b"])
        losses = loss(z, y, reduction="none")
        feeds = {"x": points, "label": labels.astype(dtype.numpy)}
        found, gradient = evaluate([losses, grad(losses.sum(), z)], feeds)
        np.testing.assert_allclose(found, expected)
        np.testing.assert_array_equal(gradient, np.where(expected > 0, -signs, 0))


def test_other_labels_of_margins_are_refused() -> None:
    @model
    def net(x=f32["batch", 2], label=i64["batch"]):
        return {"loss": dsl.hinge((x >> Dense(1))[:, 0], label)}

    trainer = Trainer(training(net))
    data = {"x": np.zeros((4, 2), np.float32), "label": np.array([0, 1, 2, 1])}
    with pytest.raises(
        FeedError, match="'label' holds 2, the targets of hinge must be from -1 to 1"
    ):
        trainer.evaluate(data)
    with pytest.raises(
        ModelError, match="the targets of perceptron_loss must be from -1 to 1, got 3"
    ):
        dsl.perceptron_loss(leaf("x", f32[2]), const([1, 3]))


@pytest.mark.parametrize("dtype", [f32, f64], ids=str)
def test_log_cosh_of_small_and_of_large_errors(dtype: Any) -> None:
    x = leaf("x", dtype["n"])
    losses = dsl.log_cosh(x, 0.0, reduction="none")
    first = grad(losses.sum(), x)
    sizes = np.array([0, 1e-6, 1e-3, 1e-2, 0.3, 0.999, 1, 1.001, 3, 20, 100, 1e4])
    points = np.concatenate([sizes, -sizes]).astype(dtype.numpy)
    found = optimized({"value": losses, "first": first, "second": grad(first.sum(), x)}, x=points)
    wide = points.astype(np.longdouble)
    small = np.abs(wide) < 0.01  # log cosh x = x²/2 − x⁴/12 + x⁶/45 − …
    series = wide**2 / 2 - wide**4 / 12 + wide**6 / 45
    expected = np.where(
        small, series, np.abs(wide) + np.log1p(np.exp(-2 * np.abs(wide))) - np.log(2)
    )
    bound = 1e-6 if dtype is f32 else 1e-11
    np.testing.assert_allclose(found["value"], expected.astype(float), rtol=bound, atol=1e-38)
    np.testing.assert_allclose(found["first"], np.tanh(wide).astype(float), rtol=bound)
    second = (1 - np.tanh(wide) ** 2).astype(float)
    np.testing.assert_allclose(found["second"], second, rtol=bound, atol=10 * bound)


def test_several_quantiles_at_once() -> None:
    random = np.random.default_rng(0)
    feeds = {"x": random.normal(size=(7, 3)), "label": random.normal(size=7)}
    x, y = leaf("x", f64["b", 3]), leaf("label", f64["b"])
    quantiles = (0.1, 0.5, 0.9)
    for reduction in ("mean", "sum", "none"):
        together = dsl.quantile_loss(x, y, quantiles, reduction=reduction)
        apart = [
            dsl.quantile_loss(x[:, i], y, q, reduction=reduction) for i, q in enumerate(quantiles)
        ]
        found, expected = evaluate([together, sum(apart[1:], start=apart[0]) / 3], feeds)
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    for wrong in ((0.1, 0.9), ()):
        with pytest.raises(ShapeError, match="the last axis of the prediction must hold the"):
            dsl.quantile_loss(x, y, wrong)
    with pytest.raises(ModelError, match=r"quantile must be a number from 0 to 1, got 1\.5"):
        dsl.quantile_loss(x, y, (0.1, 0.5, 1.5))


def test_curvature_of_activations_at_their_joint() -> None:
    """That of below 0, as their docstrings say."""
    x = leaf("x", f64[1])
    expected = {dsl.celu: 1.0, dsl.elu: 1.0, dsl.selu: 1.0507009873554805 * 1.6732632423543772}
    for function, second in expected.items():
        first = grad(function(x).sum(), x)
        assert evaluate(grad(first.sum(), x), {"x": np.zeros(1)}) == pytest.approx([second])


def test_silu_is_as_right_as_it_says() -> None:
    x = leaf("x", f32["n"])
    points = np.linspace(-30, 30, 20_001, dtype=np.float32)
    y = dsl.silu(x)
    found = optimized({"value": y, "gradient": grad(y.sum(), x)}, x=points)
    wide = points.astype(np.float64)
    share = 1 / (1 + np.exp(-wide))
    np.testing.assert_allclose(found["value"], wide * share, rtol=1e-6, atol=2e-6)
    np.testing.assert_allclose(
        found["gradient"], share * (1 + wide * (1 - share)), rtol=1e-6, atol=2e-6
    )
