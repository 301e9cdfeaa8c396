"""Augmentation of labels and tokens: mixed pairs, label noise, masks."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from dsl import CutMix, LabelNoise, MaskTokens, Mixup, cross_entropy, f32, i64, model, u32
from nncompile.ir.interpreter import evaluate
from nncompile.ops.random.distributions import beta
from tests.augmented import of_pairs, run
from tests.leaves import leaf


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.1), (0.4, 0.4), (1.0, 1.0), (2.0, 5.0)])
def test_beta_distribution(a: float, b: float) -> None:
    """Mean, variance and quartiles."""
    x = evaluate(beta(leaf("key", u32[()]), a, b, (40_000,)), {"key": np.asarray(9, np.uint32)})
    assert x.min() >= 0 and x.max() <= 1 and np.isfinite(x).all()
    variance = a * b / ((a + b) ** 2 * (a + b + 1))
    assert x.mean() == pytest.approx(a / (a + b), abs=5 * math.sqrt(variance / x.size))
    assert x.var() == pytest.approx(variance, rel=0.03)
    if a == b == 1:
        np.testing.assert_allclose(np.quantile(x, [0.25, 0.5, 0.75]), [0.25, 0.5, 0.75], atol=0.01)


def test_mixup() -> None:
    """Each example is λ of its own and 1 − λ of one other, and so is its label."""
    n = 200
    x = np.arange(n, dtype=np.float32)[:, None].repeat(3, 1)
    label = np.arange(n) % 4
    net = of_pairs(Mixup(1.0, num_classes=4), f32["n", 3])
    y = run(net, image=x, target=label)
    np.testing.assert_allclose(y["t"].sum(1), 1, rtol=1e-6)
    own = y["t"][np.arange(n), label]
    assert ((own >= 0) & (own <= 1 + 1e-6)).all() and own.std() > 0.1
    assert y["x"].mean() == pytest.approx(x.mean(), rel=0.1)  # partners are a permutation
    moved = np.flatnonzero(own < 0.999)
    other = np.where(np.arange(4) == label[:, None], 0, y["t"]).argmax(1)
    partner = (y["x"][moved, 0] - own[moved] * x[moved, 0]) / (1 - own[moved])
    np.testing.assert_array_equal(np.rint(partner).astype(int) % 4, other[moved])
    used = net.inference()
    assert used.outputs["x"] is used.leaves["image"]
    plain = evaluate(used, {"image": x, "target": label})["t"]
    np.testing.assert_array_equal(plain, np.eye(4, dtype=np.float32)[label])


def test_mixup_trains_by_cross_entropy() -> None:
    """Its labels are what `cross_entropy` takes, and in inference those it was given."""

    @model
    def net(x=f32["n", 5], label=i64["n"]):  # type: ignore[no-untyped-def]
        mixed, soft = Mixup(0.4, num_classes=5)(x, label)
        return {"loss": cross_entropy(mixed, soft), "plain": cross_entropy(x, label)}

    rng = np.random.default_rng(0)
    data = {"x": rng.normal(size=(6, 5)).astype(np.float32), "label": rng.integers(0, 5, 6)}
    mixed = run(net, **data)
    assert mixed["loss"] != pytest.approx(float(mixed["plain"]), rel=1e-3)
    used = evaluate(net.inference(("loss", "plain")), data)
    assert used["loss"] == pytest.approx(float(used["plain"]), rel=1e-6)


def test_cutmix() -> None:
    """A rectangle of another image; the label's share is that of the pixels."""
    n = 300
    x = np.broadcast_to(np.arange(1.0, n + 1, dtype=np.float32)[:, None, None, None], (n, 3, 8, 6))
    label = np.arange(n)
    y = run(of_pairs(CutMix(num_classes=n)), image=np.ascontiguousarray(x), target=label)
    shares = []
    for i in range(n):
        values = np.unique(y["x"][i])
        assert (y["x"][i] == y["x"][i, :1]).all() and len(values) <= 2
        changed = y["x"][i, 0] != i + 1
        rows, columns = changed.any(1).sum(), changed.any(0).sum()
        assert changed.sum() == rows * columns
        share = 1 - changed.mean()
        for value in values:
            expected = share if value == i + 1 else 1 - share
            assert y["t"][i, int(value) - 1] == pytest.approx(expected, abs=1e-5)
        shares.append(share)
    # λ is uniform, and rectangles over the edges are cut off.
    assert np.std(shares) > 0.15 and min(shares) < 0.4 and max(shares) > 0.95


def test_soft_labels_are_mixed_as_they_are() -> None:
    soft = np.array([[1, 0], [0.25, 0.75]], np.float32)
    x = np.zeros((2, 3), np.float32)
    y = run(of_pairs(Mixup(1.0), f32["n", 3], f32["n", 2]), step=3, image=x, target=soft)
    np.testing.assert_allclose(y["t"].sum(1), 1, rtol=1e-6)
    assert (y["t"][:, 0] >= 0.25 - 1e-6).all()


@pytest.mark.parametrize("layer", [Mixup(1.0), CutMix()], ids=str)
@pytest.mark.parametrize("axes", [(), (2,), (3, 2)])
def test_targets_of_a_regression_are_mixed_as_they_are(layer: Any, axes: tuple[int, ...]) -> None:
    """By the share of each example: λt + (1 − λ)t', t' another one's, the same λ as of x."""
    n = 40
    first = np.arange(n, dtype=np.float32)
    x = np.broadcast_to(first[:, None, None, None], (n, 3, 8, 6))
    target = np.broadcast_to(first.reshape(n, *(1 for _ in axes)), (n, *axes)) + 0
    net = of_pairs(layer, label=f32[("n", *axes)])
    y = run(net, image=np.ascontiguousarray(x), target=target)
    assert y["t"].shape == (n, *axes)
    # Examples are their numbers, so that their mean is mixed as the target is.
    mixed = y["x"].mean((1, 2, 3)).reshape(n, *(1 for _ in axes))
    np.testing.assert_allclose(y["t"], np.broadcast_to(mixed, y["t"].shape), rtol=1e-5, atol=1e-5)
    assert (y["t"] != target).mean() > 0.5
    used = evaluate(net.inference(("t",)), {"target": target, "image": np.ascontiguousarray(x)})
    np.testing.assert_array_equal(used["t"], target)


def test_label_noise() -> None:
    @model
    def net(label=i64["n"]):  # type: ignore[no-untyped-def]
        return {"y": LabelNoise(5, 0.4)(label)}

    label = np.zeros(10_000, np.int64)
    y = run(net, label=label)["y"]
    shares = np.bincount(y, minlength=5) / y.size
    np.testing.assert_allclose(shares, [0.6 + 0.08, 0.08, 0.08, 0.08, 0.08], atol=0.02)
    assert net.inference(("y",)).outputs["y"] is net.graph.leaves["label"]


def test_token_masking() -> None:
    """The shares of BERT: 15 % chosen, of which 80 % masked, 10 % random, 10 % as they were."""

    @model
    def net(tokens=i64["n", "length"]):  # type: ignore[no-untyped-def]
        masked, chosen = MaskTokens(mask=99, vocabulary=50, never=(0,))(tokens)
        return {"tokens_out": masked, "chosen": chosen}

    tokens = np.random.default_rng(0).integers(0, 20, (100, 200))
    y = run(net, tokens=tokens)
    chosen, after = y["chosen"], y["tokens_out"]
    np.testing.assert_array_equal(after[~chosen], tokens[~chosen])
    assert not chosen[tokens == 0].any()
    assert chosen[tokens != 0].mean() == pytest.approx(0.15, rel=0.05)
    assert (after[chosen] == 99).mean() == pytest.approx(0.8, rel=0.03)
    assert (after[chosen] == tokens[chosen]).mean() == pytest.approx(0.1 + 0.1 / 50, abs=0.02)
    assert after[chosen & (after != 99)].max() == 49
    used = net.inference(("tokens_out", "chosen"))
    assert used.outputs["tokens_out"] is used.leaves["tokens"]
    assert not evaluate(used, {"tokens": tokens})["chosen"].any()
