"""The losses against torch's: values and gradients in double."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import dsl
from dsl import f64, i64
from nncompile.ir.interpreter import evaluate
from nncompile.ir.types import Array
from tests.leaves import leaf
from tests.loss_checks import CLASS, agree, largest

torch = pytest.importorskip("torch", reason="torch is the reference here")
functional = torch.nn.functional

RANDOM = np.random.default_rng(0)
X, Y, W = (RANDOM.normal(scale=2, size=(6, 4)) for _ in range(3))
SIGNS = np.where(RANDOM.random((6, 4)) < 0.5, -1.0, 1.0)
BITS = (SIGNS > 0).astype(float)
LABELS = np.array([0, 3, 1, 1, 2, 0])
SOFT = RANDOM.dirichlet(np.ones(4), size=6)
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


F = functional
SAME: dict[str, dict[str, Any]] = {
    "mse": mean_and_others(dsl.mse, F.mse_loss, X, Y),
    "mae": mean_and_others(dsl.mae, F.l1_loss, X, Y),
    "huber": mean_and_others(dsl.huber, F.huber_loss, X, Y),
    "huber 0.3": mean_and_others(
        lambda p, t, **o: dsl.huber(p, t, 0.3, **o),
        lambda p, t, **o: F.huber_loss(p, t, delta=0.3, **o),
        X, Y,
    ),
    "logits": mean_and_others(
        dsl.binary_cross_entropy_with_logits, F.binary_cross_entropy_with_logits, X, SOFT
    ),
    "probabilities": mean_and_others(
        lambda p, t, **o: dsl.binary_cross_entropy(dsl.sigmoid(p), t, **o),
        lambda p, t, **o: F.binary_cross_entropy(torch.sigmoid(p), t, **o),
        X, SOFT,
    ),
    "of both signs": {
        "log_cosh": (dsl.log_cosh, lambda p, t: torch.log(torch.cosh(p - t)).mean(), (X, Y)),
        "hinge": (dsl.hinge, lambda p, t: torch.relu(1 - p * t).mean(), (X, Y)),
    },
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
