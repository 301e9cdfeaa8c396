"""Losses and metrics: values and gradients against torch's, and what they refuse."""

from __future__ import annotations

import inspect
from typing import Any, Unpack

import numpy as np
import pytest

import dsl
from dsl import f32, f64, i64, relu
from dsl.losses.declaration import pointwise
from nncompile.autodiff.grad import grad
from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from tests.leaves import leaf
from tests.loss_checks import agree

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional


def test_probabilities_of_zero_and_one_are_finite_as_torchs() -> None:
    p = np.array([0.0, 0.0, 1.0, 1.0, 0.5, 1e-8])
    t = np.array([0.0, 1.0, 0.0, 1.0, 0.25, 1.0])
    agree(dsl.binary_cross_entropy, functional.binary_cross_entropy, p, t)


def test_logits_far_out_are_finite() -> None:
    z, t = leaf("z", f32["n"]), leaf("t", f32["n"])
    loss = dsl.binary_cross_entropy_with_logits(z, t)
    feeds = {
        "z": np.array([1e4, -1e4, 100, -100], np.float32),
        "t": np.array([1, 0, 0, 1], np.float32),
    }
    value, gradient = evaluate([loss, *grad(loss, [z])], feeds)
    np.testing.assert_allclose(value, 50)
    np.testing.assert_allclose(gradient, [0, 0, 0.25, -0.25], atol=1e-7)


SHAPES = [(5, 4), (5, 4, 3), (4,)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_torchs(shape: tuple[int, ...], reduction: Any, smoothing: float) -> None:
    random = np.random.default_rng(3)
    axis = min(1, len(shape) - 1)  # where torch has the classes
    logits = random.normal(scale=3, size=shape)
    labels = random.integers(0, 4, size=shape[:axis] + shape[axis + 1 :])
    soft = random.dirichlet(np.ones(4), size=labels.shape)
    soft = np.moveaxis(soft, -1, axis)
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": smoothing}

    def ours(z: Value, t: Value) -> Value:
        return dsl.cross_entropy(z, t, axis=axis, **options)

    def theirs(z: Any, t: Any) -> Any:
        return functional.cross_entropy(z, t, **options)

    agree(ours, theirs, logits, labels)
    if smoothing == 0 and len(shape) > 1:
        # torch's mean over soft labels is over rows too, and its smoothing as ours.
        agree(ours, theirs, logits, soft)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_ignored_labels_do_not_count(reduction: Any, smoothing: float) -> None:
    logits = np.random.default_rng(4).normal(size=(6, 3))
    labels = np.array([0, -100, 2, 1, -100, 0])
    options: dict[str, Any] = {"reduction": reduction, "label_smoothing": smoothing}
    agree(
        lambda z, t: dsl.cross_entropy(z, t, ignore_index=-100, **options),
        lambda z, t: functional.cross_entropy(z, t, ignore_index=-100, **options),
        logits,
        labels,
    )


def test_targets_may_be_numbers_and_of_other_types() -> None:
    p = leaf("p", f32["n"])
    t = leaf("t", i64["n"])
    assert dsl.mse(p, 1.0).type == f32[()]
    assert dsl.binary_cross_entropy_with_logits(p, t).type == f32[()]
    assert dsl.binary_cross_entropy_with_logits(p, t > 0).type == f32[()]
    assert dsl.mse(leaf("q", f64["n"]), p).type == f64[()]


P, LABEL = f32["batch", 3], i64["batch"]


@pytest.mark.parametrize(
    ("use", "types", "error", "message"),
    [
        (dsl.mse, (f32["n", 1], f32["n"]), ShapeError, "mean_squared_error: .* different shapes"),
        (dsl.mae, (f32["n"], f32["m"]), ShapeError, "different shapes"),
        (dsl.huber, (i64["n"], f32["n"]), DTypeError, r"must be floating-point, got i64\[n\]"),
        (lambda p, t: dsl.mse(p, t, "average"), (P, P), ModelError, "'average'"),
        (dsl.cross_entropy, (P, f32["batch"]), DTypeError, "class indices must be integers"),
        (dsl.cross_entropy, (P, i64["other"]), ShapeError, "labels do not fit"),
        (dsl.cross_entropy, (P, f32["batch", 4]), ShapeError, "different shapes"),
        (dsl.cross_entropy, (f32[()], i64[()]), ShapeError, "no class axis"),
        (lambda p, t: dsl.cross_entropy(p, t, axis=2), (P, LABEL), ShapeError, "no class axis 2"),
        (lambda p, t: dsl.cross_entropy(p, t, ignore_index=0), (P, P), ModelError, "ignore_index"),
        (dsl.accuracy, (P, f32["batch"]), DTypeError, "class indices must be integers"),
        (dsl.accuracy, (P, i64["batch", 1, 1]), ShapeError, "labels do not fit"),
        (dsl.binary_accuracy, (P, f32["batch"]), ShapeError, "different shapes"),
    ],
)
def test_what_losses_and_metrics_refuse(
    use: Any, types: tuple[Type, ...], error: type[CompileError], message: str
) -> None:
    with pytest.raises(error, match=message):
        use(*(leaf(f"x{i}", t) for i, t in enumerate(types)))


def test_a_loss_of_ones_own_has_the_options_of_all() -> None:
    @pointwise
    def squared_hinge(prediction: Any, target: Any, margin: float = 1.0, **_: Any) -> Any:
        """max(0, margin − p·t)²."""
        return relu(margin - prediction * target) ** 2

    p, t = leaf("p", f32[3]), leaf("t", f32[3])
    assert list(inspect.signature(squared_hinge).parameters) == [
        *("prediction", "target", "margin", "reduction", "weight", "mask")
    ]
    assert "`weight` multiplies them" in str(squared_hinge.__doc__)
    data = {"p": np.float32([0.5, -1, 3]), "t": np.float32([1, 1, -1])}
    every = evaluate(squared_hinge(p, t, 2.0, reduction="none"), data)
    np.testing.assert_allclose(every, [2.25, 9, 25], 1e-6)
    weighted = squared_hinge(p, t, margin=2.0, weight=np.float32([1, 3, 5]), mask=p < 2)
    np.testing.assert_allclose(evaluate(weighted, data), (2.25 + 27) / 4, 1e-6)
    with pytest.raises(ModelError, match=r"squared_hinge: (.|\n)*did you mean 'reduction'"):
        squared_hinge(p, t, reductoin="sum")


def test_metrics() -> None:
    logits = np.array([[3, 2, 1], [1, 3, 2], [2, 1, 3], [3, 1, 2]], np.float32)
    label = np.array([0, 2, 2, 1])
    soft = np.eye(3, dtype=np.float32)[label]
    binary = np.array([0.4, 0.6, 0.6, 0.4], np.float32)
    target = np.array([0, 1, 0, 1], np.float32)
    z, c, s = leaf("z", f32["n", 3]), leaf("c", i64["n"]), leaf("s", f32["n", 3])
    b, t = leaf("b", f32["n"]), leaf("t", f32["n"])
    values = [
        dsl.accuracy(z, c),
        dsl.accuracy(z, s),
        dsl.accuracy(z.T, c, axis=0),
        dsl.top_k_accuracy(z, c, 1),
        dsl.top_k_accuracy(z, c, 2),
        dsl.top_k_accuracy(z, c, 3),
        dsl.binary_accuracy(b, t),
        dsl.binary_accuracy(b - 0.5, t, threshold=0),
    ]
    found = evaluate(values, {"z": logits, "c": label, "s": soft, "b": binary, "t": target})
    np.testing.assert_allclose(found, [0.5, 0.5, 0.5, 0.5, 0.75, 1, 0.5, 0.5])


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("beyond", [np.nan, np.inf])
@pytest.mark.parametrize("name", ["p", "t"])
def test_losses_that_a_mask_leaves_out_may_be_anything(
    name: str, beyond: float, reduction: Any
) -> None:
    """Whether the prediction or the target is."""
    p, t, counted = leaf("p", f64[3]), leaf("t", f64[3]), leaf("counted", dsl.boolean[3])
    loss = dsl.mse(p, t, reduction=reduction, mask=counted)
    feeds = {"p": np.array([1.0, 7.0, 5.0]), "t": np.array([2.0, 4.0, 3.0])}
    feeds[name][1] = beyond
    with np.errstate(invalid="ignore"):
        value = evaluate(loss, {**feeds, "counted": np.array([True, False, True])})
    expected = {"mean": 2.5, "sum": 5.0, "none": [1.0, 0.0, 4.0]}[reduction]
    np.testing.assert_allclose(value, expected)


@dsl.loss
def surprisal(p: Any, **reducing: Unpack[dsl.Reducing]) -> Any:
    """−log p."""
    return -dsl.log(p)


def test_a_loss_that_is_infinite_where_nothing_counts() -> None:
    """It is computed of 0 there, and −log 0 does not count either; nor has it a gradient."""
    p, counted = leaf("p", f64[3]), leaf("counted", dsl.boolean[3])
    value = surprisal(p, mask=counted)
    (gradient,) = grad(value, [p])
    feeds = {"p": np.array([0.5, np.nan, 0.25]), "counted": np.array([True, False, True])}
    with np.errstate(divide="ignore", invalid="ignore"):
        found, derivative = evaluate([value, gradient], feeds)
    np.testing.assert_allclose(found, np.log(8) / 2)
    np.testing.assert_allclose(derivative, [-1, 0, -2])
