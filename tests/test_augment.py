"""Augmentation and the family of dropout: what is drawn, that it repeats, and that nothing of it is
left in the inference graph."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from dsl import (
    AlphaDropout,
    AveragePool2d,
    ColorJitter,
    CutMix,
    Cutout,
    Dense,
    Dropout,
    DropPath,
    GaussianDropout,
    GaussianNoise,
    LabelNoise,
    MaskTokens,
    MaxPool2d,
    Mixup,
    RandomCrop,
    RandomHorizontalFlip,
    RandomRotation,
    RandomVerticalFlip,
    SpatialDropout,
    Upsample,
    adam,
    cross_entropy,
    f32,
    f64,
    flatten,
    i64,
    model,
    training,
    u32,
)
from dsl.augment import rotated
from nncompile.errors import CompileError
from nncompile.grad import vjp
from nncompile.graph import Graph
from nncompile.model import Model
from nncompile.ops import const, while_training
from nncompile.ops.distributions import beta
from nncompile.passes import inference, optimize
from nncompile.reference import evaluate
from nncompile.train import Trainer
from tests.against_torch import leaf, session

IMAGES = f32["n", 3, "h", "w"]


def of_images(*layers: Any, type_: Any = IMAGES) -> Model:
    """A model whose outputs are those of the layers, for one image."""

    @model
    def net(image=type_):  # type: ignore[no-untyped-def]
        return {f"y{i}": image >> layer for i, layer in enumerate(layers)}

    return net


def of_pairs(layer: Any, x: Any = IMAGES, label: Any = i64["n"]) -> Model:
    """A model of a layer that takes examples and labels."""

    @model
    def net(image=x, target=label):  # type: ignore[no-untyped-def]
        mixed, soft = layer(image, target)
        return {"x": mixed, "t": soft}

    return net


def run(net: Model, seed: int = 0, step: int = 0, **data: np.ndarray) -> dict[str, np.ndarray]:
    """What the model computes in training, in numpy; onnxruntime gives the same."""
    random = {"seed": np.asarray(seed, np.int64), "step": np.asarray(step, np.int64)}
    results = evaluate(net.graph, data | random)
    loaded = session(net.graph)
    feeds = {i.name: (data | random)[i.name] for i in loaded.get_inputs()}
    for name, actual in zip(net.graph.outputs, loaded.run(None, feeds), strict=True):
        np.testing.assert_allclose(actual, results[name], 1e-5, 1e-5, err_msg=name)
    return results


def drawn(n: int = 64, h: int = 8, w: int = 10, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, 3, h, w)).astype(np.float32)


AUGMENTATIONS = {
    "horizontal flip": RandomHorizontalFlip(),
    "vertical flip": RandomVerticalFlip(),
    "crop": RandomCrop(2),
    "rotation": RandomRotation(20),
    "nearest rotation": RandomRotation(20, "nearest"),
    "cutout": Cutout(4),
    "noise": GaussianNoise(0.3),
    "color": ColorJitter(0.4, 0.4),
    "dropout": Dropout(0.3),
    "spatial dropout": SpatialDropout(0.3),
    "drop path": DropPath(0.3),
    "alpha dropout": AlphaDropout(0.3),
    "gaussian dropout": GaussianDropout(0.3),
}


@pytest.mark.parametrize("layer", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_repeats_by_seed_and_step_and_vanishes(layer: Any) -> None:
    """Equal for equal seed and step, other for others, another in each place, other images of one
    batch changed in other ways; the identity in inference. One file, two sizes."""
    net = of_images(layer, layer)
    x = np.repeat(drawn(1), 64, 0)
    first = run(net, 5, 7, image=x)
    again = run(net, 5, 7, image=x)
    np.testing.assert_array_equal(first["y0"], again["y0"])
    assert not np.array_equal(first["y0"], first["y1"])
    for seed, step in ((6, 7), (5, 8)):
        assert not np.array_equal(first["y0"], run(net, seed, step, image=x)["y0"])
    assert len({y.tobytes() for y in first["y0"]}) > 1
    assert run(net, image=drawn(3, 5, 4))["y0"].shape == (3, 3, 5, 4)
    used = net.inference()
    assert used.outputs["y0"] is used.leaves["image"]
    assert set(used.leaves) == {"image"}


@pytest.mark.parametrize("layer", AUGMENTATIONS.values(), ids=AUGMENTATIONS)
def test_slopes_flow_through(layer: Any) -> None:
    """All are linear in x but for constants, given what was drawn: the slope of Σ g·y at x, times a
    direction, is the change of Σ g·y along it."""
    net = of_images(layer, type_=f64["n", 2, 5, 4])
    rng = np.random.default_rng(0)
    x, d, g = (rng.normal(size=(6, 2, 5, 4)) for _ in range(3))
    y = net.graph.outputs["y0"]
    slope = vjp(y, net.graph.leaves["image"], leaf(y.type, "g"))
    feeds = {"seed": np.asarray(1), "step": np.asarray(2), "g": g}
    (s,) = evaluate([slope], feeds | {"image": x})
    low, high = (evaluate(y, feeds | {"image": x + t * d}) for t in (-1e-3, 1e-3))
    assert np.vdot(s, d) == pytest.approx(np.vdot(g, high - low) / 2e-3, rel=1e-6)


@pytest.mark.parametrize(
    ("layer", "axis"), [(RandomHorizontalFlip(), 3), (RandomVerticalFlip(), 2)]
)
def test_flips(layer: Any, axis: int) -> None:
    x = drawn(400, 3, 4)
    y = run(of_images(layer), image=x)["y0"]
    mirrored = np.flip(x, axis)
    is_flipped = [np.array_equal(a, b) for a, b in zip(y, mirrored, strict=True)]
    np.testing.assert_array_equal(y, np.where(np.reshape(is_flipped, (-1, 1, 1, 1)), mirrored, x))
    assert 150 < sum(is_flipped) < 250  # five standard deviations of Binomial(400, ½)


def test_crops() -> None:
    """Each is the part at one of all (2·2 + 1)² places of the image with zeros around."""
    x = drawn(300, 4, 5)
    y = run(of_images(RandomCrop(2)), image=x)["y0"]
    wide = np.pad(x, [(0, 0), (0, 0), (2, 2), (2, 2)])
    found = set()
    for i in range(len(x)):
        places = [
            (r, c)
            for r in range(5)
            for c in range(5)
            if np.array_equal(y[i], wide[i, :, r : r + 4, c : c + 5])
        ]
        assert len(places) == 1
        found.update(places)
    assert len(found) == 25  # each is missed with a chance of 5·10⁻⁶


def test_crops_of_another_size() -> None:
    net = of_images(RandomCrop(0, (3, 2)))
    x = drawn(200, 5, 6)
    y = run(net, image=x)["y0"]
    assert y.shape == (200, 3, 3, 2)
    found = set()
    for i in range(len(x)):
        found.update(
            (r, c)
            for r in range(3)
            for c in range(5)
            if np.array_equal(y[i], x[i, :, r : r + 3, c : c + 2])
        )
    assert len(found) == 15
    used = evaluate(net.inference(), {"image": x})["y0"]
    np.testing.assert_array_equal(used, x[:, :, 1:4, 2:4])


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_rotation_by_right_angles_is_numpys(mode: str) -> None:
    x = drawn(4, 6, 6).astype(np.float64)
    angles = np.arange(4) * math.pi / 2
    y = evaluate(
        rotated(leaf(f64["n", 3, "h", "h"]), leaf(f64["n"], "angle"), mode),
        {"x": x, "angle": angles},
    )
    for k in range(4):
        np.testing.assert_allclose(y[k], np.rot90(x[k], k, (1, 2)), atol=1e-12)


def test_rotation_of_a_ramp_is_exact() -> None:
    """Bilinear interpolation reproduces what is linear in the coordinates: rotated inside."""
    row, column = np.mgrid[0:9, 0:9].astype(np.float64) - 4
    angle = 0.2
    x = np.broadcast_to(3 * row - 2 * column, (1, 1, 9, 9))
    y = evaluate(rotated(const(x), const(np.array([angle]))), {})
    c, s = math.cos(angle), math.sin(angle)
    expected = 3 * (s * column + c * row) - 2 * (c * column - s * row)
    np.testing.assert_allclose(y[0, 0, 2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-12)


def test_cutout() -> None:
    """A rectangle of at most 3 × 2 about each pixel is filled, whole inside the image."""
    x = drawn(300, 7, 6)
    y = run(of_images(Cutout((3, 2), -1.0)), image=x)["y0"]
    middles = np.zeros((7, 6))
    for before, after in zip(x, y, strict=True):
        changed = (after == -1).all(0)
        np.testing.assert_array_equal(np.where(changed, -1, before), after)
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        assert changed.sum() == len(rows) * len(columns) <= 6
        assert len(rows) >= 2 and len(columns) >= 1
        middles += changed
    assert (middles > 0).all()
    assert middles[1:-1, 1:].mean() / 300 == pytest.approx(6 / 42, rel=0.1)


def test_color() -> None:
    x = drawn(500, 4, 4) + 2
    y = run(of_images(ColorJitter(0.3, 0)), image=x)["y0"]
    factors = (y / x).reshape(500, -1)
    np.testing.assert_allclose(factors, factors[:, :1].repeat(48, 1), rtol=1e-5)
    assert 0.7 <= factors.min() < 0.72 and 1.28 < factors.max() <= 1.3 + 1e-5
    y = run(of_images(ColorJitter(0, 0.5)), image=x)["y0"]
    np.testing.assert_allclose(y.mean((1, 2, 3)), x.mean((1, 2, 3)), rtol=1e-5)
    factors = y.std((1, 2, 3)) / x.std((1, 2, 3))
    assert 0.5 <= factors.min() < 0.52 and 1.48 < factors.max() <= 1.5 + 1e-5
    limited = run(of_images(ColorJitter(0.9, 0.9, (0.0, 1.0))), image=x)["y0"]
    assert limited.min() == 0 and limited.max() == 1


def test_noise() -> None:
    x = drawn(100)
    noise = run(of_images(GaussianNoise(0.5)), image=x)["y0"] - x
    assert noise.mean() == pytest.approx(0, abs=0.02) and noise.std() == pytest.approx(
        0.5, rel=0.02
    )
    ones = np.ones_like(x)
    factor = run(of_images(GaussianDropout(0.2)), image=ones)["y0"]
    assert factor.mean() == pytest.approx(1, abs=0.02)
    assert factor.std() == pytest.approx(math.sqrt(0.2 / 0.8), rel=0.02)


def test_spatial_dropout_and_drop_path() -> None:
    """All of a channel, or of an example, together; what is kept is divided by the rate kept."""
    x = np.ones((400, 3, 4, 5), np.float32)
    by_channel = run(of_images(SpatialDropout(0.25)), image=x)["y0"]
    by_example = run(of_images(DropPath(0.25)), image=x)["y0"]
    for y, rows, count in ((by_channel, 1200, 20), (by_example, 400, 60)):
        flat = y.reshape(rows, count)
        assert (flat == flat[:, :1]).all()
        np.testing.assert_allclose(np.unique(flat), [0, 4 / 3], rtol=1e-6)
        kept = (flat[:, 0] > 0).mean()
        assert abs(kept - 0.75) < 5 * math.sqrt(0.75 * 0.25 / rows)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    x = np.random.default_rng(0).normal(size=(200, 1000)).astype(np.float32)
    y = run(of_images(AlphaDropout(0.2), type_=f32["n", 1000]), image=x)["y0"]
    assert y.mean() == pytest.approx(0, abs=0.02) and y.std() == pytest.approx(1, rel=0.02)
    values, counts = np.unique(y, return_counts=True)
    assert counts.max() / y.size == pytest.approx(0.2, rel=0.03)
    assert values[counts.argmax()] < 0


@pytest.mark.parametrize(("a", "b"), [(0.1, 0.1), (0.4, 0.4), (1.0, 1.0), (2.0, 5.0)])
def test_beta_distribution(a: float, b: float) -> None:
    """Mean, variance and quartiles."""
    x = evaluate(beta(leaf(u32[()], "key"), a, b, (40_000,)), {"key": np.asarray(9, np.uint32)})
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
    net = of_pairs(Mixup(1.0, classes=4), f32["n", 3])
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
        mixed, soft = Mixup(0.4, classes=5)(x, label)
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
    y = run(of_pairs(CutMix(classes=n)), image=np.ascontiguousarray(x), target=label)
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


def test_a_training_with_augmentation_repeats(torchscript: SimpleNamespace) -> None:
    """Two trainings through onnxruntime give equal bits, and learn; what is exported holds none of
    the augmentation, as TorchScript too."""

    @model(predict=("logits",))
    def net(image=f32["n", 1, 8, 8], label=i64["n"]):  # type: ignore[no-untyped-def]
        x = image >> RandomHorizontalFlip() >> RandomCrop(1) >> RandomRotation(10) >> Cutout(2)
        features = x >> GaussianNoise(0.1) >> MaxPool2d(2) >> Upsample(2) >> AveragePool2d(3, 2, 1)
        logits = features >> SpatialDropout(0.1) >> flatten >> Dense(3)
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    rng = np.random.default_rng(0)
    label = rng.integers(0, 3, 60)
    bright = np.arange(8)[None, :, None] // 3 == label[:, None, None]  # some rows, by class
    image = (rng.normal(size=(60, 1, 8, 8)) * 0.1 + bright[:, None]).astype(np.float32)
    data = {"image": image, "label": label}
    recipe = training(net, minimize="loss", optimizer=adam(0.02), batch=20, seed=3)
    trainers = [Trainer(recipe), Trainer(recipe)]
    losses = [[e["loss"] for e in t.fit(data, epochs=15).epochs] for t in trainers]
    assert losses[0] == losses[1] and losses[0][-1] < 0.5 * losses[0][0]
    params = [trainer.params for trainer in trainers]
    for path, x in params[0].items():
        np.testing.assert_array_equal(x, params[1][path])
    used = optimize(net.inference())
    assert not {"seed", "step"} & used.leaves.keys()
    expected = trainers[0].predict({"image": image})["logits"]
    script = torchscript.to_script(used, params[0])
    actual = script(torchscript.torch.from_numpy(image))["logits"].detach().numpy()
    np.testing.assert_allclose(actual, expected, 1e-4, 1e-4)


def test_torchscript_draws_the_same(torchscript: SimpleNamespace) -> None:
    """The graph of training, with the seed and the step as its inputs, in TorchScript."""
    for name, layer in AUGMENTATIONS.items():
        net = of_images(layer)
        x = drawn(5, 6, 7)
        feeds = {"image": x, "seed": np.asarray(3), "step": np.asarray(4)}
        given = {"seed": np.asarray(3, np.int64), "step": np.asarray(4, np.int64)}
        script = torchscript.to_script(net.graph, given)
        actual = script(torchscript.torch.from_numpy(x))["y0"].numpy()
        expected = evaluate(net.graph, feeds)["y0"]
        np.testing.assert_allclose(actual, expected, 1e-5, 1e-5, err_msg=name)


def test_modes_of_a_graph() -> None:
    """Passes for training leave what is trained, the inference pass what is used."""
    x = leaf(f32["n"])
    graph = Graph("mode", {"y": while_training(x * 2, x * 3) + 1}, (x,))
    data = {"x": np.array([1, 2], np.float32)}
    for made, expected in (
        (graph, [3, 5]),
        (optimize(graph), [3, 5]),
        (inference(graph), [4, 7]),
        (optimize(inference(graph)), [4, 7]),
    ):
        np.testing.assert_array_equal(evaluate(made, data)["y"], expected)
    assert "training" not in [v.op.label for v in optimize(graph).nodes]
    assert while_training(x, x) is x


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda x: x[0] >> RandomCrop(), r"RandomCrop needs images \[batch, channels, height"),
        (lambda x: x >> RandomCrop(0, 9), "RandomCrop: 9 rows or columns of an image of 8"),
        (lambda x: x >> RandomCrop(-1), "RandomCrop: the padding must be one number or 1"),
        (lambda x: x >> RandomHorizontalFlip(1.5), r"rate of RandomHorizontalFlip is in \[0, 1\]"),
        (lambda x: x >> RandomRotation(-3), "degrees of RandomRotation is at least 0"),
        (lambda x: x >> RandomRotation(3, "cubic"), 'mode of RandomRotation is "bilinear"'),
        (lambda x: x >> Cutout(0), "Cutout: the size must be one number or 2"),
        (lambda x: x >> GaussianNoise(-1), "std of GaussianNoise is at least 0"),
        (lambda x: x.astype(i64) >> GaussianNoise(1), "GaussianNoise needs floating numbers"),
        (lambda x: x >> DropPath(1), r"rate of DropPath is in \[0, 1\)"),
        (lambda x: x[0, 0, 0] >> SpatialDropout(), "SpatialDropout needs 2 axes or more"),
        (lambda x: Mixup(classes=0)(x, x[:, 0, 0, 0].astype(i64))[0], "classes must be at least 1"),
        (lambda x: Mixup()(x, x[:, 0, 0, 0].astype(i64))[0], "Mixup: the labels are class numbers"),
        (lambda x: CutMix(classes=2)(x, const([1, 2]))[0], "not one label for each example"),
        (lambda x: Mixup(0, 2), "alpha of Mixup is above 0"),
        (lambda x: LabelNoise(3)(x), "LabelNoise: labels are integers"),
        (lambda x: MaskTokens(1)(x)[0], "random tokens are of how many"),
        (lambda x: MaskTokens(1, 9, masked=0.9, random=0.2)(x)[0], "are shares of 1"),
        (lambda x: while_training(x, x.astype(f64)), "differ in element type"),
        (lambda x: while_training(x, x[:, 0]), "not known to have one shape"),
    ],
)
def test_mistakes_name_the_layer(make: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):

        @model
        def net(x=f32["n", 3, 8, 8]):  # type: ignore[no-untyped-def]
            return {"y": make(x)}
