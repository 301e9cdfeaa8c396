"""Augmentation and the dropout family: what is drawn, that it repeats, and that none of it is left
in the inference graph."""

from __future__ import annotations

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
)
from nncompile.autodiff.grad import vjp
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ops import const, while_training
from nncompile.passes import inference, optimize
from nncompile.train import Trainer
from tests.augmented import drawn, of_images, run
from tests.backends import script_of
from tests.layer_checks import model_of
from tests.leaves import leaf

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
def test_gradients_flow_through(layer: Any) -> None:
    """All are linear in x but for constants, given what was drawn: the gradient of Σ g·y at x,
    times a direction, is the change of Σ g·y along it."""
    net = of_images(layer, type_=f64["n", 2, 5, 4])
    rng = np.random.default_rng(0)
    x, d, g = (rng.normal(size=(6, 2, 5, 4)) for _ in range(3))
    y = net.graph.outputs["y0"]
    gradient = vjp(y, net.graph.leaves["image"], leaf("g", y.type))
    feeds = {"seed": np.asarray(1), "step": np.asarray(2), "g": g}
    (s,) = evaluate([gradient], feeds | {"image": x})
    low, high = (evaluate(y, feeds | {"image": x + t * d}) for t in (-1e-3, 1e-3))
    assert np.vdot(s, d) == pytest.approx(np.vdot(g, high - low) / 2e-3, rel=1e-6)


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
    recipe = training(net, minimize="loss", optimizer=adam(0.02), batch_size=20, seed=3)
    trainers = [Trainer(recipe), Trainer(recipe)]
    losses = [[e["loss"] for e in t.fit(data, epochs=15).epochs] for t in trainers]
    assert losses[0] == losses[1] and losses[0][-1] < 0.5 * losses[0][0]
    params = [trainer.params for trainer in trainers]
    for path, x in params[0].items():
        np.testing.assert_array_equal(x, params[1][path])
    used = optimize(net.inference())
    assert not {"seed", "step"} & used.leaves.keys()
    expected = trainers[0].predict({"image": image})["logits"]
    actual = script_of(used, params[0])({"image": image})["logits"]
    np.testing.assert_allclose(actual, expected, 1e-4, 1e-4)


def test_torchscript_draws_the_same() -> None:
    """The graph of training, with the seed and the step as its inputs, in TorchScript."""
    for name, layer in AUGMENTATIONS.items():
        net = of_images(layer)
        x = drawn(5, 6, 7)
        feeds = {"image": x, "seed": np.asarray(3), "step": np.asarray(4)}
        given = {"seed": np.asarray(3, np.int64), "step": np.asarray(4, np.int64)}
        actual = script_of(net.graph, given)({"image": x})["y0"]
        expected = evaluate(net.graph, feeds)["y0"]
        np.testing.assert_allclose(actual, expected, 1e-5, 1e-5, err_msg=name)


def test_modes_of_a_graph() -> None:
    """Passes for training leave what is trained, the inference pass what is used."""
    x = leaf("x", f32["n"])
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
        (lambda x: x >> RandomCrop(0, 9), "RandomCrop: cannot cut 9 rows or columns from 8"),
        (lambda x: x >> RandomCrop(-1), "RandomCrop: the padding must be one number or 1"),
        (
            lambda x: x >> RandomHorizontalFlip(1.5),
            r"p of RandomHorizontalFlip must be in \[0, 1\]",
        ),
        (lambda x: x >> RandomRotation(-3), "degrees of RandomRotation must be at least 0"),
        (lambda x: x >> RandomRotation(3, "cubic"), 'mode of RandomRotation must be "bilinear"'),
        (lambda x: x >> Cutout(0), "Cutout: the size must be one number or 2"),
        (lambda x: x >> GaussianNoise(-1), "std of GaussianNoise must be at least 0"),
        (lambda x: x.astype(i64) >> GaussianNoise(1), "GaussianNoise needs floating numbers"),
        (lambda x: x >> DropPath(1), r"p of DropPath must be in \[0, 1\)"),
        (lambda x: x[0, 0, 0] >> SpatialDropout(), "SpatialDropout needs 2 axes or more"),
        (
            lambda x: Mixup(num_classes=0)(x, x[:, 0, 0, 0].astype(i64))[0],
            "classes must be at least 1",
        ),
        (lambda x: Mixup()(x, x[:, 0, 0, 0].astype(i64))[0], "Mixup: the labels are class indices"),
        (lambda x: CutMix(num_classes=2)(x, const([1, 2]))[0], "needs one label for each example"),
        (lambda x: Mixup(0, 2), "alpha of Mixup must be positive"),
        (lambda x: LabelNoise(3)(x), "LabelNoise: labels must be integers"),
        (lambda x: MaskTokens(1)(x)[0], "random tokens need the size"),
        (
            lambda x: MaskTokens(1, 9, masked=0.9, random=0.2)(x)[0],
            "are fractions that add up to at most 1",
        ),
        (lambda x: while_training(x, x.astype(f64)), "differ in element type"),
        (lambda x: while_training(x, x[:, 0]), "not known to have the same shape"),
    ],
)
def test_mistakes_name_the_layer(make: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        model_of(make, x=f32["n", 3, 8, 8])
