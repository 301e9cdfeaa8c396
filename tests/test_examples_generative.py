"""The examples that generate: each reaches the figure that it states, by files that plain
onnxruntime runs."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from nncompile.compiler.export import export
from nncompile.ir.types import Array
from nncompile.program.model_file import Declared, load
from nncompile.train import Trainer
from tests.trained_examples import EXAMPLES, data_of, held_out, measured, trained

pytestmark = pytest.mark.thorough  # they share trainings of examples

IMAGES = EXAMPLES.parent / "docs" / "images"


def error_relative_to_components(name: str) -> tuple[Trainer, Declared, float]:
    """A trained example, and its squared error divided by that of principal components."""
    trainer, declared = trained(name)
    train, test = data_of(declared).train, held_out(declared)
    images = (test["image"], test["clean"]) if "clean" in test else (test["image"],)
    components = declared.module.error_of_components(train["image"], *images)
    return trainer, declared, measured(trainer, declared)["loss"] / components


def test_the_autoencoder_beats_as_many_principal_components(tmp_path: Path) -> None:
    trainer, declared, ratio = error_relative_to_components("autoencoder")
    assert ratio < 0.65
    images = held_out(declared)["image"]
    assert measured(trainer, declared)["loss"] < 0.22 * np.var(images, axis=0).mean()
    found = trainer.predict(images)
    assert found["code"].shape == (360, 8)
    # What is exported does the same, at another batch size.
    file = tmp_path / "autoencoder.onnx"
    export(declared.recipe, file, params=trainer.state)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    code, reconstruction = session.run(["code", "reconstruction"], {"image": images[:7]})
    np.testing.assert_allclose(code, found["code"][:7], rtol=1e-4, atol=1e-4)
    error = np.square(reconstruction - images[:7]).mean()
    assert error == pytest.approx(np.square(found["reconstruction"][:7] - images[:7]).mean(), 1e-3)


def test_the_denoising_autoencoder_beats_any_number_of_principal_components() -> None:
    trainer, declared, ratio = error_relative_to_components("denoising_autoencoder")
    assert ratio < 0.6
    test = held_out(declared)
    noise = np.square(test["image"] - test["clean"]).mean()
    assert measured(trainer, declared)["loss"] < 0.25 * noise
    # After training nothing is random.
    first, second = (trainer.predict({"image": test["image"]})["restored"] for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.fixture(scope="module")
def judge() -> Declared:
    """The judge, with the classes and functions that the examples use."""
    return load(EXAMPLES / "vae.py", "vae")


def judged(declared: Declared, images: Array) -> tuple[float, int, float]:
    """Confidence, number of digits, and how well they are told apart from real ones."""
    verdict = declared.module.judged(images)
    return verdict.confidence, verdict.digits, verdict.told_apart


def test_the_judge_tells_real_digits_from_normal_numbers(judge: Declared) -> None:
    train = judge.module.digits()[0]
    confidence, digits, told_apart = judged(judge, train[:360])
    assert confidence > 0.95
    assert digits == 10
    assert abs(told_apart - 0.5) < 0.06
    confidence, _, told_apart = judged(
        judge, runpy.run_path(str(EXAMPLES / "judge.py"))["of_moments"]()
    )
    assert confidence < 0.8
    assert told_apart > 0.85
    _, digits, _ = judged(judge, np.repeat(train[:3], 120, axis=0))
    assert digits <= 3


def test_the_vae_bounds_the_likelihood_of_digits() -> None:
    declared = load(EXAMPLES / "vae.py", "vae")
    train, test = data_of(declared).train, held_out(declared)
    trainer = Trainer(declared.recipe)
    trainer.fit(train)
    found = trainer.evaluate(test)
    assert found["loss"] == pytest.approx(found["surprise"] + found["divergence"], rel=1e-5)
    assert found["divergence"] > 2, "the code says nothing"
    tables = declared.module.a_table_for_each_digit(train["image"], test["image"]).mean()
    assert found["loss"] < 18.5 < 19.5 < tables
    assert tables < declared.module.independent(train["image"], test["image"]).mean()
    confidence, digits, told_apart = judged(declared, declared.module.drawn(trainer.params, 360))
    assert confidence > 0.82
    assert digits == 10
    assert told_apart < 0.88


def test_the_gan_draws_digits() -> None:
    declared = load(EXAMPLES / "gan.py", "gan")
    trainer = Trainer(declared.recipe)
    before = judged(declared, declared.module.drawn(trainer.params, 360))
    assert before[2] > 0.99, "untrained, no image is like a digit"
    trainer.fit(data_of(declared).train)
    images = declared.module.drawn(trainer.averaged(), 360)
    confidence, digits, told_apart = judged(declared, images)
    assert confidence > 0.8
    assert digits >= 9  # whether it leaves one out is a matter of the last bits
    assert told_apart < 0.9


def test_each_network_of_the_gan_has_an_optimizer() -> None:
    declared = load(EXAMPLES / "gan.py", "gan")
    trainer = Trainer(declared.recipe)
    networks = {path.partition(".")[0] for path in trainer.params}
    assert networks == {"disc", "gen"}
    losses = declared.recipe.updates[:2]
    for network, update in zip(("disc", "gen"), losses, strict=True):
        assert all(p.startswith(f"{network}.") for p in update.trained(declared.model))
    averaged = {path.partition(".")[0] for path in trainer.state if path.endswith(".ema")}
    assert averaged == {"gen"}


def test_images_are_drawn_from_noise_by_the_exported_denoiser(tmp_path: Path) -> None:
    declared = load(EXAMPLES / "diffusion.py", "diffusion")
    trainer = Trainer(declared.recipe)
    trainer.fit(data_of(declared).train)
    assert trainer.evaluate(held_out(declared), params=trainer.averaged())["loss"] < 0.37
    file = tmp_path / "denoiser.onnx"
    declared.module.export_denoiser(trainer, file)
    confidence, digits, told_apart = judged(declared, declared.module.drawn(file, 360))
    assert confidence > 0.8
    assert digits == 10
    assert told_apart < 0.87


@pytest.mark.parametrize("name", ["vae", "gan", "diffusion"])
def test_the_drawn_images_are_in_the_documentation(name: str) -> None:
    file = IMAGES / f"{name}.png"
    assert file.read_bytes().startswith(b"\x89PNG")
    assert file.stat().st_size < 60_000
    assert f"images/{name}.png" in (IMAGES.parent / "generated-images.md").read_text("utf-8")


def test_images_are_drawn_as_a_png(judge: Declared, tmp_path: Path) -> None:
    pictures = pytest.importorskip("matplotlib.image")
    file = tmp_path / "page.png"
    images = judge.module.digits()[0][:40]
    judge.module.draw(images, file)
    page = pictures.imread(file)[..., 0]
    assert page.shape == (2 * 10 * 4, 20 * 10 * 4)
    # One of four dots a pixel, of the second image of the second row, without its border.
    found = 1 - page[40:80:4, 40:80:4][1:9, 1:9]
    np.testing.assert_allclose(found, images[21].reshape(8, 8), atol=0.01)
