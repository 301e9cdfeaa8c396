"""The losses against torch's, values and gradients in double; second gradients against
differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f32, f64, i64
from nncompile.diagnostics.errors import CompileError, DTypeError, ModelError, ShapeError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import Array, Type, boolean
from tests.backends import session, valid_model
from tests.gradient_checks import check_gradient
from tests.leaves import leaf
from tests.test_losses import agree
from tests.tolerances import assert_close

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional

RANDOM = np.random.default_rng(0)
X, Y, W = (RANDOM.normal(scale=2, size=(6, 4)) for _ in range(3))
SIGNS = np.where(RANDOM.random((6, 4)) < 0.5, -1.0, 1.0)
BITS = (SIGNS > 0).astype(float)
LABELS = np.array([0, 3, 1, 1, 2, 0])
SOFT = RANDOM.dirichlet(np.ones(4), size=6)
CLASS = np.array([0.5, 2.0, 1.0, 0.25])
PAIRS = np.array([1.0, -1, -1, 1, 1, -1])
# Several labels a row: none, one, one twice, all; what stands behind the first -1 does not count.
SEVERAL = np.array([[-1, 2, 0, 1], [3, -1, 1, 1], [0, 0, -1, 2], [2, 1, 0, 3], [1, 3, -1, -1],
                    [0, 1, 2, -1]])  # fmt: skip
IMAGE, PIXELS = RANDOM.normal(size=(2, 4, 3)), RANDOM.integers(0, 4, size=(2, 3))


def const(x: Array) -> Any:
    return torch.tensor(x)


def mean_and_others(ours: Any, theirs: Any, *arrays: Array) -> dict[str, Any]:
    return {
        reduction: (
            lambda *v, r=reduction: ours(*v, reduction=r),
            lambda *v, r=reduction: theirs(*v, reduction=r),
            arrays,
        )
        for reduction in ("mean", "sum", "none")
    }


def largest(x: Value, y: Value) -> Value:
    return dsl.max(dsl.abs(x - y), -1)


F = functional
SAME: dict[str, dict[str, Any]] = {
    "quantile": {
        "": (
            lambda p, t: dsl.quantile_loss(p, t, 0.9),
            lambda p, t: torch.where(t > p, 0.9 * (t - p), 0.1 * (p - t)).mean(),
            (X, Y),
        )
    },
    "poisson of logs": mean_and_others(dsl.poisson_loss, F.poisson_nll_loss, X, abs(Y)),
    "poisson of rates": mean_and_others(
        lambda p, t, **o: dsl.poisson_loss(p, t, log_input=False, full=True, **o),
        lambda p, t, **o: F.poisson_nll_loss(p, t, log_input=False, full=True, **o),
        abs(X), 3 * abs(Y),
    ),
    "gaussian": mean_and_others(
        lambda p, v, **o: dsl.gaussian_nll(p, Y, v, full=True, **o),
        lambda p, v, **o: F.gaussian_nll_loss(p, const(Y), v, full=True, **o),
        X, np.where(abs(W) < 0.5, 1e-9, abs(W)),  # some below the least variance
    ),
    "logits with pos_weight": mean_and_others(
        lambda z, t, **o: dsl.binary_cross_entropy_with_logits(z, t, pos_weight=CLASS, **o),
        lambda z, t, **o: F.binary_cross_entropy_with_logits(z, t, pos_weight=const(CLASS), **o),
        X, BITS,
    ),
    "class weights": mean_and_others(
        lambda z, t, **o: dsl.cross_entropy(z, t, class_weight=CLASS, label_smoothing=0.1, **o),
        lambda z, t, **o: F.cross_entropy(z, t, const(CLASS), label_smoothing=0.1, **o),
        X, LABELS,
    ),
    "class weights, one ignored": mean_and_others(
        lambda z, t, **o: dsl.cross_entropy(z, t, class_weight=CLASS, ignore_index=1, **o),
        lambda z, t, **o: F.cross_entropy(z, t, const(CLASS), ignore_index=1, **o),
        X, LABELS,
    ),
    "class weights of probabilities": mean_and_others(
        lambda z, t, **o: dsl.cross_entropy(z, t, class_weight=CLASS, label_smoothing=0.2, **o),
        lambda z, t, **o: F.cross_entropy(z, t, const(CLASS), label_smoothing=0.2, **o),
        X, SOFT,
    ),
    "class weights of pixels": mean_and_others(
        lambda z, t, **o: dsl.cross_entropy(z, t, axis=1, class_weight=CLASS, **o),
        lambda z, t, **o: F.cross_entropy(z, t, const(CLASS), **o),
        IMAGE, PIXELS,
    ),
    "nll": mean_and_others(
        lambda z, t, **o: dsl.negative_log_likelihood(z, t, class_weight=CLASS, **o),
        lambda z, t, **o: F.nll_loss(z, t, const(CLASS), **o),
        X, LABELS,
    ),
    "multiclass hinge": mean_and_others(dsl.multiclass_hinge, F.multi_margin_loss, X, LABELS),
    "multiclass hinge squared": mean_and_others(
        lambda z, t, **o: dsl.multiclass_hinge(z, t, margin=0.7, p=2, **o),
        lambda z, t, **o: F.multi_margin_loss(z, t, p=2, margin=0.7, **o),
        X, LABELS,
    ),
    "kl": {
        "batchmean": (
            dsl.kl_divergence,
            lambda p, t: F.kl_div(p, t, reduction="batchmean"),
            (X, np.where(SOFT < 0.1, 0, SOFT)),
        ),
        "of logs": (
            lambda p, t: dsl.kl_divergence(p, t, log_target=True, reduction="none"),
            lambda p, t: F.kl_div(p, t, log_target=True, reduction="none").sum(1),
            (X, np.log(SOFT)),
        ),
    },
    "focal": {
        "binary": (
            lambda z, t: dsl.binary_focal_loss(z, t, alpha=0.25),
            lambda z, t: (
                (0.25 * t + 0.75 * (1 - t))
                * (1 - torch.exp(-F.binary_cross_entropy_with_logits(z, t, reduction="none"))) ** 2
                * F.binary_cross_entropy_with_logits(z, t, reduction="none")
            ).mean(),
            (X, BITS),
        ),
        "of classes": (
            lambda z, t: dsl.focal_loss(z, t, class_weight=CLASS, gamma=1.5),
            lambda z, t: (
                const(CLASS)[t]
                * (1 - torch.exp(-F.cross_entropy(z, t, reduction="none"))) ** 1.5
                * F.cross_entropy(z, t, reduction="none")
            ).mean(),
            (X, LABELS),
        ),
    },
    "perceptron": {
        "": (dsl.perceptron_loss, lambda p, t: torch.relu(-p * t).mean(), (X, SIGNS)),
    },
    "cosine": mean_and_others(
        lambda x, y, **o: dsl.cosine_embedding_loss(x, y, PAIRS, margin=0.2, **o),
        lambda x, y, **o: F.cosine_embedding_loss(x, y, const(PAIRS), margin=0.2, **o),
        X, Y,
    )
    | {
        "distance": (
            dsl.cosine_distance, lambda x, y: (1 - F.cosine_similarity(x, y)).mean(), (X, Y)
        )
    },
    "triplet": mean_and_others(
        lambda a, p, **o: dsl.triplet_loss(a, p, W, **o),
        lambda a, p, **o: F.triplet_margin_loss(a, p, const(W), **o),
        X, Y,
    )
    | {
        "swap": (
            lambda a, p: dsl.triplet_loss(a, p, W, p=1, swap=True, margin=3.0),
            lambda a, p: F.triplet_margin_loss(a, p, const(W), p=1, swap=True, margin=3.0),
            (X, Y),
        )
    },
    "triplet, own distance": mean_and_others(
        lambda a, p, **o: dsl.triplet_loss(a, p, W, 3.0, swap=True, distance_function=largest, **o),
        lambda a, p, **o: F.triplet_margin_with_distance_loss(
            a, p, const(W), distance_function=lambda x, y: (x - y).abs().amax(-1), margin=3.0,
            swap=True, **o
        ),
        X, Y,
    ),
    "ranking": mean_and_others(
        lambda x, y, **o: dsl.margin_ranking_loss(x, y, SIGNS, margin=0.5, **o),
        lambda x, y, **o: F.margin_ranking_loss(x, y, const(SIGNS), margin=0.5, **o),
        X, Y,
    ),
    "soft margin": mean_and_others(dsl.soft_margin_loss, F.soft_margin_loss, X, SIGNS),
    "hinge of distances": mean_and_others(
        lambda d, t, **o: dsl.hinge_embedding_loss(d, t, margin=1.5, **o),
        lambda d, t, **o: F.hinge_embedding_loss(d, t, margin=1.5, **o),
        X, np.where(abs(Y) < 1, 0.5, SIGNS),  # some are neither
    ),
    "several labels": mean_and_others(
        dsl.multilabel_margin_loss, F.multilabel_margin_loss, X, SEVERAL
    ),
    "several labels, softly": mean_and_others(
        lambda z, t, **o: dsl.multilabel_soft_margin_loss(z, t, class_weight=CLASS, **o),
        lambda z, t, **o: F.multilabel_soft_margin_loss(z, t, const(CLASS), **o),
        X, BITS,
    ),
    "contrastive": {
        "": (
            lambda x, y: dsl.contrastive_loss(x, y, PAIRS, margin=6.0),
            lambda x, y: torch.where(
                const(PAIRS) > 0, (x - y).norm(dim=1) ** 2, torch.relu(6 - (x - y).norm(dim=1)) ** 2
            ).mean() / 2,
            (X, Y),
        )
    },
    "info_nce": {
        "": (
            lambda q, k: dsl.info_nce(q, k, temperature=0.5),
            lambda q, k: F.cross_entropy(
                F.normalize(q) @ F.normalize(k).T / 0.5, torch.arange(len(q))
            ),
            (X, Y),
        ),
        "symmetric": (
            lambda q, k: dsl.info_nce(q, k, normalize=False, symmetric=True, temperature=2.0),
            lambda q, k: (
                F.cross_entropy(q @ k.T / 2, torch.arange(len(q)))
                + F.cross_entropy(k @ q.T / 2, torch.arange(len(q)))
            ) / 2,
            (X, Y),
        ),
    },
    "weighted": {
        "bce": (
            lambda z, t: dsl.binary_cross_entropy_with_logits(z, t, reduction="sum", weight=abs(W)),
            lambda z, t: F.binary_cross_entropy_with_logits(
                z, t, reduction="sum", weight=const(abs(W))
            ),
            (X, BITS),
        ),
        "smoothed": (
            lambda z, t: dsl.binary_cross_entropy(dsl.sigmoid(z), t, label_smoothing=0.2),
            lambda z, t: F.binary_cross_entropy(torch.sigmoid(z), 0.8 * t + 0.1),
            (X, BITS),
        ),
        "smoothed logits": (
            lambda z, t: dsl.binary_cross_entropy_with_logits(z, t, label_smoothing=0.2),
            lambda z, t: F.binary_cross_entropy_with_logits(z, 0.8 * t + 0.1),
            (X, BITS),
        ),
        "of rows": (
            lambda p, t: dsl.mse(p, t, weight=CLASS[LABELS]),
            lambda p, t: (
                (p - t) ** 2 * const(CLASS[LABELS])[:, None]
            ).sum() / (4 * const(CLASS[LABELS]).sum()),
            (X, Y),
        ),
        "rows and classes": (
            lambda z, t: dsl.cross_entropy(z, t, class_weight=CLASS, weight=abs(PAIRS) * 3),
            lambda z, t: F.cross_entropy(z, t, const(CLASS)),
            (X, LABELS),
        ),
        "masked": (
            lambda p, t: dsl.huber(p, t, mask=W > 0),
            lambda p, t: F.huber_loss(p[const(W) > 0], t[const(W) > 0]),
            (X, Y),
        ),
        "masked rows": (
            lambda z, t: dsl.cross_entropy(z, t, mask=PAIRS > 0),
            lambda z, t: F.cross_entropy(z[const(PAIRS) > 0], t[const(PAIRS) > 0]),
            (X, LABELS),
        ),
    },
}  # fmt: skip
CASES = {f"{a} {b}".strip(): case for a, several in SAME.items() for b, case in several.items()}


@pytest.mark.parametrize("name", CASES)
def test_losses_are_torchs(name: str) -> None:
    ours, theirs, arrays = CASES[name]
    pairs = ("info", "triplet", "cosine", "contrastive", "gaussian", "quantile", "perceptron")
    pairs += ("ranking",)
    agree(ours, theirs, *arrays, gradient_of=2 if name.startswith(pairs) else 1)


ONE = np.ones((2, 1))
KINKS: dict[str, tuple[Any, Any, tuple[Array, ...]]] = {
    "ranking": (
        lambda x, y: dsl.margin_ranking_loss(x, y, 1.0, 1.0),
        lambda x, y: F.margin_ranking_loss(x, y, const(ONE), 1.0),
        (ONE, 0 * ONE),
    ),
    "hinge of distances": (
        lambda d: dsl.hinge_embedding_loss(d, -1.0),
        lambda d: F.hinge_embedding_loss(d, const(-ONE)),
        (ONE,),
    ),
    "cosine": (
        lambda x, y: dsl.cosine_embedding_loss(x, y, [-1.0]),
        lambda x, y: F.cosine_embedding_loss(x, y, const(np.array([-1.0]))),
        (np.array([[1.0, 0.0]]), np.array([[0.0, 2.0]])),
    ),
    "triplet": (
        lambda a, n: dsl.triplet_loss(a, 0 * ONE, n, 1.0, 1, 0.0),
        lambda a, n: F.triplet_margin_loss(a, const(0 * ONE), n, 1.0, 1, 0.0),
        (ONE, 3 * ONE),
    ),
    "multiclass": (
        dsl.multiclass_hinge, F.multi_margin_loss, (np.array([[2.0, 1, 3]]), np.array([0])),
    ),
    "several labels": (
        dsl.multilabel_margin_loss, F.multilabel_margin_loss,
        (np.array([[2.0, 1, 3, 0.5]]), np.array([[0, 0, -1, 2]])),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", KINKS)
def test_gradients_at_the_margin_are_torchs(name: str) -> None:
    ours, theirs, arrays = KINKS[name]
    agree(ours, theirs, *arrays, gradient_of=sum(a.dtype.kind == "f" for a in arrays))


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


NAMES = list(everything(f32)[0])


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


@pytest.mark.slow
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


def test_labels_along_an_axis_and_in_fewer_places() -> None:
    """Numbers of labels by symbol; classes along an axis within."""
    x, label = leaf("x", f64["n", 4, "t"]), leaf("label", i64["n", "k", "t"])
    loss = dsl.multilabel_margin_loss(x, label, axis=1, reduction="none")
    logits, numbers = RANDOM.normal(size=(2, 4, 3)), RANDOM.integers(-1, 4, size=(2, 2, 3))
    found = evaluate(loss, {"x": logits, "label": numbers})
    filled = np.concatenate([numbers, np.full((2, 2, 3), -1)], 1)
    expected = F.multilabel_margin_loss(
        const(logits.transpose(0, 2, 1).reshape(6, 4)),
        const(filled.transpose(0, 2, 1).reshape(6, 4)),
        reduction="none",
    )
    np.testing.assert_allclose(found, expected.reshape(2, 3).numpy(), rtol=1e-12)


P, LABEL = f32["batch", 3], i64["batch"]


@pytest.mark.parametrize(
    ("use", "types", "error", "message"),
    [
        (lambda p, m: dsl.mse(p, p, mask=m), (P, boolean["n"]), ShapeError, "the mask does not"),
        (lambda p, m: dsl.mse(p, p, mask=m), (P, f32["batch"]), DTypeError, "must be boolean"),
        (lambda p, w: dsl.mse(p, p, weight=w), (P, f32["batch", 4]), ShapeError, "the weight does"),
        (
            lambda p, t: dsl.cross_entropy(p, t, class_weight=np.ones(4)),
            (P, LABEL), ShapeError, "one number for each class",
        ),
        (
            lambda p, t: dsl.cross_entropy(p, t, label_smoothing=1.5),
            (P, LABEL), ModelError, r"label_smoothing must be a number from 0 to 1, got 1\.5",
        ),
        (lambda p, t: dsl.quantile_loss(p, t, 2), (P, P), ModelError, "quantile must be a "
        "number from"),
        (dsl.focal_loss, (P, f32["batch"]), DTypeError, "class indices must be integers"),
        (lambda p, t: dsl.focal_loss(p, t, gamma=0.5), (P, LABEL), ModelError, "gamma must be 0 "
        "or"),
        (lambda p, t: dsl.multiclass_hinge(p, t, p=3), (P, LABEL), ModelError, "1 or 2"),
        (dsl.kl_divergence, (P, LABEL), ShapeError, "different shapes"),
        (dsl.gaussian_nll, (P, P, f32["batch"]), ShapeError, "target and variance have different"),
        (dsl.triplet_loss, (LABEL, P, P), DTypeError, "anchor must be floating-point, got i64"),
        (dsl.info_nce, (f32["n"], f32["n"]), ShapeError, "must be matrices"),
        (lambda q, k: dsl.info_nce(q, k, 0), (P, P), ModelError, "temperature must be positive"),
        (dsl.contrastive_loss, (P, P, P), ShapeError, "one number per pair"),
        (dsl.margin_ranking_loss, (P, P, f32["batch"]), ShapeError, "x2 and target have different"),
        (dsl.soft_margin_loss, (P, f32["batch"]), ShapeError, "different shapes"),
        (dsl.multilabel_margin_loss, (P, P), DTypeError, "class indices must be integers"),
        (dsl.multilabel_margin_loss, (P, LABEL), ShapeError, "the labels do not fit"),
        (dsl.multilabel_margin_loss, (P, i64["n", 2]), ShapeError, "the labels do not fit"),
        (dsl.multilabel_margin_loss, (LABEL, LABEL), DTypeError, "must be floating-point, got i64"),
        (
            lambda p: dsl.multilabel_margin_loss(np.zeros((2, 3)), [[3], [0]]),
            (P,), ModelError, "the labels of multilabel_margin_loss must be from -1 to 2",
        ),
        (
            lambda p, t: dsl.multilabel_soft_margin_loss(p, t, class_weight=np.ones(2)),
            (P, P), ShapeError, "one number for each class",
        ),
        (
            lambda p, t: dsl.triplet_loss(p, t, t, distance_function=lambda x, y: x > y),
            (P, P), DTypeError, "must return floating-point values",
        ),
    ],
)  # fmt: skip
def test_what_losses_refuse(
    use: Any, types: tuple[Type, ...], error: type[CompileError], message: str
) -> None:
    with pytest.raises(error, match=message):
        use(*(leaf(f"x{i}", t) for i, t in enumerate(types)))
