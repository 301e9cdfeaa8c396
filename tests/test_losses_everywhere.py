"""Every loss in onnxruntime against double precision, with masks; second gradients against
differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, f64, i64
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, boolean
from tests.backends import session, valid_model
from tests.gradient_checks import check_gradient
from tests.leaves import leaf
from tests.loss_checks import CLASS, largest
from tests.tolerances import assert_close


def everything(dtype: Any) -> tuple[dict[str, Value], list[Value]]:
    """One of each loss, of named sizes."""
    x, y, v = (leaf(name, dtype["n", 4]) for name in ("x", "y", "v"))
    label, soft, mask = leaf("label", i64["n"]), leaf("soft", dtype["n", 4]), leaf(
        "mask", boolean["n"]
    )  # fmt: skip
    bits = leaf("bits", dtype["n", 4])
    signs = 2 * bits - 1
    return {
        "mse": dsl.mse(x, y, mask=mask),
        "mae": dsl.mae(x, y, mask=mask),
        "huber": dsl.huber(x, y, mask=mask),
        "log_cosh": dsl.log_cosh(x, y, mask=mask),
        "quantile": dsl.quantile_loss(x, y, 0.3, mask=mask),
        "poisson": dsl.poisson_loss(x / 4, bits, full=True, mask=mask),
        "gaussian": dsl.gaussian_nll(x, y, v * v, mask=mask),
        "probabilities": dsl.binary_cross_entropy(dsl.sigmoid(x), bits, mask=mask),
        "logits": dsl.binary_cross_entropy_with_logits(x, bits, mask=mask),
        "pos_weight": dsl.binary_cross_entropy_with_logits(x, bits, pos_weight=3.0, mask=mask),
        "focal binary": dsl.binary_focal_loss(x, bits, alpha=0.3, mask=mask),
        "hinge": dsl.hinge(x, signs, mask=mask),
        "perceptron": dsl.perceptron_loss(x, signs, mask=mask),
        "cross": dsl.cross_entropy(x, label, label_smoothing=0.1, mask=mask),
        "ignored": dsl.cross_entropy(x, label, ignore_index=1, class_weight=CLASS, mask=mask),
        "soft": dsl.cross_entropy(x, soft, mask=mask),
        "nll": dsl.negative_log_likelihood(dsl.log_softmax(x), label, mask=mask),
        "focal": dsl.focal_loss(x, label, mask=mask),
        "multiclass": dsl.multiclass_hinge(x, label, mask=mask),
        "kl": dsl.kl_divergence(dsl.log_softmax(x), soft, mask=mask),
        "cosine": dsl.cosine_distance(x, y, mask=mask),
        "embedding": dsl.cosine_embedding_loss(x, y, signs[:, 0], mask=mask),
        "contrastive": dsl.contrastive_loss(x, y, bits[:, 0], mask=mask),
        "triplet": dsl.triplet_loss(x, y, v, mask=mask),
        "info_nce": dsl.info_nce(x, y, mask=mask),
        "triplet of distances": dsl.triplet_loss(x, y, v, distance_function=largest, mask=mask),
        "ranking": dsl.margin_ranking_loss(x, y, signs, mask=mask),
        "soft margin": dsl.soft_margin_loss(x, signs, mask=mask),
        "hinge of distances": dsl.hinge_embedding_loss(x, signs, mask=mask),
        "labels": dsl.multilabel_margin_loss(x, dsl.expand_dims(label, -1), mask=mask),
        "labels softly": dsl.multilabel_soft_margin_loss(x, bits, mask=mask),
    }, [x, y, v, label, soft, mask, bits]


def drawn(count: int, scale: float, real: Any = np.float32) -> dict[str, Array]:
    rng = np.random.default_rng(count)
    x, y, v = (rng.normal(size=(count, 4)) for _ in range(3))
    far = scale * np.sign(x) if scale > 10 else x
    return {
        "x": far.astype(real),
        "y": y.astype(real),
        "v": v.astype(real),
        "label": rng.integers(0, 4, count),
        "soft": rng.dirichlet(np.ones(4), size=count).astype(real),
        "mask": np.arange(count) % 3 < 2,
        "bits": (rng.random((count, 4)) < 0.5).astype(real),
    }


@pytest.fixture(scope="module")
def runtime() -> Callable[[dict[str, Array]], tuple[dict[str, Array], dict[str, Array]]]:
    """All losses and their gradients at x in onnxruntime (f32), and in numpy in double."""
    losses, leaves = everything(f32)
    gradients = {f"{name} gradient": dsl.grad(loss, leaves[0]) for name, loss in losses.items()}
    named = {f"{name} loss": loss for name, loss in losses.items()}
    graph = Graph("losses", {**named, **gradients}, tuple(leaves))
    run = session(valid_model(graph))

    def both(feeds: dict[str, Array]) -> tuple[dict[str, Array], dict[str, Array]]:
        expected = evaluate(graph, feeds, precision=np.float64)
        return run(feeds, expected), expected

    return both


@pytest.mark.parametrize("scale", [1.0, 200.0])
@pytest.mark.parametrize("count", [9, 1])
def test_losses_are_exact_and_finite_in_onnxruntime(runtime: Any, scale: float, count: int) -> None:
    """Within 10⁻⁵ of what double precision gives, at logits of ±200 too, in a batch of one."""
    found, expected = runtime(drawn(count, scale))
    for name, x in expected.items():
        assert np.isfinite(found[name]).all(), name
        if name == "triplet loss" and scale > 1:
            continue  # a difference of distances of 400, which are rounded to 3·10⁻⁵
        np.testing.assert_allclose(
            found[name], x, rtol=1e-5, atol=2e-6 * max(1, abs(x).max()), err_msg=name
        )


def test_double_precision_runs_in_onnxruntime() -> None:
    losses, leaves = everything(f64)
    named = {f"{name} loss": loss for name, loss in losses.items()}
    gradients = {f"{name} gradient": dsl.grad(loss, leaves[0]) for name, loss in losses.items()}
    graph = Graph("losses", {**named, **gradients}, tuple(leaves))
    feeds = drawn(5, 1.0, np.float64)
    expected = evaluate(graph, feeds)
    found = session(valid_model(graph))(feeds, expected)
    for name, x in expected.items():
        assert_close(found[name], x, "float64", name)


def test_masks_that_leave_nothing_give_zero(runtime: Any) -> None:
    found, _ = runtime({**drawn(4, 200.0), "mask": np.zeros(4, bool)})
    for name, x in found.items():
        np.testing.assert_array_equal(x, np.zeros_like(x), err_msg=name)


def test_what_is_masked_does_not_matter() -> None:
    losses, _ = everything(f64)
    feeds = drawn(9, 1.0, np.float64)
    other = {**feeds, "x": feeds["x"].copy()}
    other["x"][~feeds["mask"]] = 1e3
    names = [name for name in losses if name != "info_nce"]  # whose rows see each other
    for name in names:
        one, two = (evaluate(losses[name], f) for f in (feeds, other))
        np.testing.assert_array_equal(one, two, err_msg=name)


SMOOTH = [
    "mse", "log_cosh", "poisson", "gaussian", "logits", "pos_weight", "focal binary", "cross",
    "ignored", "soft", "nll", "focal", "kl", "cosine", "info_nce", "contrastive", "soft margin",
    "labels softly",
]  # fmt: skip


@pytest.mark.parametrize("name", SMOOTH)
def test_second_gradients_are_differences(name: str) -> None:
    feeds = drawn(3, 1.0, np.float64)

    def loss(x: Value, y: Value, v: Value) -> Value:
        losses, leaves = everything(f64)
        fixed = {name: feeds[name] for name in ("label", "soft", "mask", "bits")}
        whole = dsl.Model("loss", Graph("loss", {"loss": losses[name]}, tuple(leaves)))
        return whole(x=x, y=y, v=v, **fixed)["loss"]

    check_gradient(loss, feeds["x"], feeds["y"], feeds["v"])


def test_gradients_at_the_same_point_are_finite() -> None:
    x = leaf("x", f64[2, 3])
    same = np.ones((2, 3))
    for loss in (
        dsl.contrastive_loss(x, same, np.zeros(2)),
        dsl.contrastive_loss(x, same, np.ones(2)),
        dsl.triplet_loss(x, same, same),
        dsl.cosine_distance(x, same),
        dsl.cosine_distance(x - 1, same),
        dsl.info_nce(x - 1, same),
    ):
        value, gradient = evaluate([loss, dsl.grad(loss, x)], {"x": same})
        assert np.isfinite(value), loss
        assert np.isfinite(gradient).all(), loss


def test_a_weighted_mean_divides_by_the_weights() -> None:
    losses = dsl.mse(np.array([1.0, 2.0, 3.0]), 0.0, weight=np.array([1.0, 0.0, 3.0]))
    assert_close(evaluate(losses, {}), np.float64((1 + 27) / 4), "float64")
