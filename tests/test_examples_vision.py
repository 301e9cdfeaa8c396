"""The examples of convolutions: each reaches its figure, and its exported file runs on inputs of
several sizes in plain onnxruntime."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from tests.trained_examples import exported, held_out, measured, recognised, trained

pytestmark = pytest.mark.thorough  # they share trainings of examples


def operators(path: Path) -> Counter[str]:
    """How many nodes of each type are in an exported file."""
    return Counter(node.op_type for node in onnx.load(path).graph.node)


def weights_of(path: Path) -> int:
    """How many numbers the weights of an exported file are."""
    return sum(int(np.prod(x.dims)) for x in onnx.load(path).graph.initializer)


def test_digits_cnn(tmp_path: Path) -> None:
    trainer, declared = trained("digits_cnn")
    assert measured(trainer, declared)["accuracy"] >= 0.98
    path, _ = exported(trainer, declared, tmp_path)
    images = held_out(declared)["image"]
    ours = trainer.predict({"image": images})["logits"].argmax(-1).tolist()
    assert recognised(path, images) == {1: ours[:1], 7: ours[:7], 360: ours}
    # No normalization is left: its scale is in the kernels, its shift the bias of the convolution.
    assert operators(path)["Conv"] == 3
    assert not operators(path).keys() & {"BatchNormalization", "Sqrt", "Reciprocal", "Sub"}
    kernels, biases, head = 16 * 9 + 32 * 16 * 9 + 64 * 32 * 9, 16 + 32 + 64, 256 * 10 + 10
    constants = weights_of(path) - (kernels + biases + head)
    # A shape, the scale of the pixels, and what maxima of numbers that are not finite are made of.
    assert 0 <= constants <= 3 + 6


def test_digits_resnet_finds_digits_in_images_of_any_size(tmp_path: Path) -> None:
    trainer, declared = trained("digits_resnet")
    assert measured(trainer, declared)["accuracy"] >= 0.96
    path, session = exported(trainer, declared, tmp_path)
    # Stem, two of each block, and the projections of the two with a stride.
    assert operators(path)["Conv"] == 1 + 3 * 2 + 2
    assert not operators(path).keys() & {"BatchNormalization", "Sqrt", "Reciprocal"}
    digits, labels = declared.module.digits.data()[1].values()
    for height, width in ((8, 8), (12, 12), (13, 17), (16, 24)):
        images = declared.module.placed(digits, height, width)
        assert images.shape == (360, 1, height, width)
        (logits,) = session.run(["logits"], {"image": images})
        accuracy = (logits.argmax(axis=-1) == labels).mean()
        assert accuracy >= 0.93, f"{accuracy:.3f} at {height}×{width}"


def test_edges_learns_the_sobel_filters_exactly(tmp_path: Path) -> None:
    trainer, declared = trained("edges")
    sobel = declared.module.SOBEL
    np.testing.assert_allclose(trainer.params["filter.weight"][:, 0], sobel, atol=1e-5)
    flower = held_out(declared)
    assert measured(trainer, declared)["loss"] < 1e-12
    _, session = exported(trainer, declared, tmp_path)
    image = flower["image"]
    assert image.shape == (1, 1, 427, 640)
    for rows, columns in ((3, 3), (5, 64), (427, 640)):
        (found,) = session.run(["edges"], {"image": image[..., :rows, :columns]})
        expected = flower["sobel"][..., : rows - 2, : columns - 2]
        np.testing.assert_allclose(found, expected, atol=2e-5)
    # And what is learned is the filter, not the photograph: it filters noise as well.
    noise = np.random.default_rng(0).uniform(size=(2, 1, 20, 30)).astype(np.float32)
    (found,) = session.run(["edges"], {"image": noise})
    np.testing.assert_allclose(found, declared.module.filtered(noise), atol=2e-5)


def test_upscaling_is_better_than_interpolation(tmp_path: Path) -> None:
    trainer, declared = trained("upscaling")
    found = measured(trainer, declared)
    assert found["bilinear_decibels"] == pytest.approx(33.60, abs=0.01)
    assert found["decibels"] >= found["bilinear_decibels"] + 0.9
    _, session = exported(trainer, declared, tmp_path)
    flower = held_out(declared)
    (large,) = session.run(["large"], {"small": flower["small"]})
    assert large.shape == flower["true"].shape == (1, 1, 426, 640)
    error = np.square(large.astype(np.float64) - flower["true"]).mean()
    assert -10 * np.log10(error) == pytest.approx(found["decibels"], abs=1e-3)
    random = np.random.default_rng(0)
    for height, width in ((1, 1), (7, 10), (40, 30)):
        photograph = random.integers(256, size=(height, width, 3), dtype=np.uint8)
        large = declared.module.enlarged(session, photograph)
        assert large.shape == (2 * height, 2 * width, 3) and large.dtype == np.uint8


def test_waves_are_recognised_while_they_sound(tmp_path: Path) -> None:
    trainer, declared = trained("conv1d_waves")
    assert measured(trainer, declared)["accuracy"] >= 0.97
    _, session = exported(trainer, declared, tmp_path)
    waves, kinds = declared.module.waves(1000, 160, seed=2)
    (logits,) = session.run(["logits"], {"wave": waves})
    assert logits.shape == (1000, 160, 4)
    right = (logits.argmax(axis=-1) == kinds[:, None]).mean(axis=0)
    assert right[7] < 0.8 < right[15] < 0.97 <= right[159], "the longer it listens, the surer it is"
    # What is said of the first 50 samples is not changed by what comes after them.
    (early,) = session.run(["logits"], {"wave": waves[:, :50]})
    np.testing.assert_allclose(logits[:, :50], early, rtol=1e-4, atol=1e-4)
    # 63 samples are heard: 1 + 2·(1 + 2 + 4 + 8 + 16).
    heard = waves.copy()
    heard[:, : 159 - 62] = 0
    (later,) = session.run(["logits"], {"wave": heard})
    np.testing.assert_allclose(logits[:, 159], later[:, 159], rtol=1e-4, atol=1e-4)
    assert abs(logits[:, 158] - later[:, 158]).max() > 0.01
