"""The examples of ways to learn: each reaches the figure that it states, and beats what it is
compared with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from nncompile.compiler.export import export
from nncompile.program.model_file import load
from nncompile.train import Trainer
from tests.trained_examples import EXAMPLES, data_of, held_out, trained

pytestmark = pytest.mark.thorough  # they share trainings of examples


def module_of(name: str) -> Any:
    return load(EXAMPLES / f"{name}.py").module


def test_batch_sizes() -> None:
    module = module_of("batch_sizes")
    patients = module.data()
    least = module.least(patients)
    full, mini, single = (
        module.losses(recipe, patients) - least
        for recipe in (module.full_batch, module.mini_batch, module.stochastic)
    )
    assert (np.diff(full) < 0).all()
    assert 0.03 < full[-1] < 0.06
    assert 0 < mini[-1] < 0.01
    # Fast at first, then held up by the noise of its own steps.
    assert single[0] < 0.5 * full[0]
    assert single[-20:].mean() > 5 * mini[-20:].mean()
    assert 5 < (np.diff(single) > 0).sum() < 45


def test_averages_of_weights_are_nearer_to_the_optimum() -> None:
    trainer, declared = trained("averaging")
    found = declared.module.excess(trainer, data_of(declared).train)
    assert found["last"] > 0.02
    assert 0 < found["ema"] < 0.003
    assert -1e-6 < found["swa"] < 0.0003


def test_multi_task() -> None:
    trainer, declared = trained("multi_task")
    found = trainer.evaluate(held_out(declared))
    assert found["accuracy"] >= 0.97
    assert found["even_accuracy"] >= 0.97
    assert found["ink_r2"] >= 0.9
    weighted = found["digit_loss"] + 0.5 * found["even_loss"] + 0.5 * found["ink_loss"]
    assert found["loss"] == pytest.approx(weighted, rel=1e-5)
    # What is exported needs the image alone.
    assert declared.model.inference().of_kind("input").keys() == {"image"}


def test_siamese_networks_tell_unseen_digits_apart() -> None:
    module = module_of("siamese")
    images, labels = module.digits()
    trainer = Trainer(module.recipe)
    trainer.fit(module.data(), shuffle=False)
    images = module.shifted(images, np.random.default_rng(1))
    vectors = trainer.predict(images)["vector"]
    assert vectors.shape == (len(images), 64)
    assert module.one_shot_accuracy(images.reshape(-1, 64), labels) < 0.45
    assert module.one_shot_accuracy(vectors, labels) > 0.6


def test_maml_learns_to_fit_a_sine_in_one_step() -> None:
    module = module_of("maml")
    train, tasks = module.data()
    found = {}
    for name, recipe in {"maml": module.meta_recipe, "plain": module.plain_recipe}.items():
        trainer = Trainer(recipe)
        trainer.fit(train)
        found[name] = trainer.evaluate(tasks)
    assert found["maml"]["after"] < 0.7
    assert found["maml"]["after"] < 0.25 * found["maml"]["before"]
    assert found["maml"]["after"] < 0.4 * found["plain"]["after"]


def test_transfer_beats_from_scratch_at_equal_data() -> None:
    module = module_of("transfer")
    found = module.compared(choices=3)
    assert (found["transferred"] > found["from scratch"]).all()
    assert found["transferred"].mean() > 0.85
    assert found["transferred"].mean() > found["from scratch"].mean() + 0.05


def test_what_is_frozen_stays_in_transfer() -> None:
    module = module_of("transfer")
    trainer = Trainer(module.tuning)
    before = trainer.params
    labelled, _ = module.few(module.data()[1], seed=0)
    trainer.fit(labelled, steps=3)
    moved = {path for path, x in trainer.params.items() if not np.array_equal(x, before[path])}
    assert moved == {"head.weight", "head.bias"}


def test_lora_learns_mirrored_digits(tmp_path: Path) -> None:
    module = module_of("lora_digits")
    upright, mirrored = module.data(), module.data(mirrored=True)
    base = Trainer(module.pretraining)
    base.fit(upright[0])
    before = base.evaluate(mirrored[1])["accuracy"]
    adapted = Trainer(module.tuning)
    report = adapted.load_params(base)
    assert set(report.loaded) == set(base.params)
    assert adapted.evaluate(mirrored[1])["accuracy"] == before
    adapted.fit(mirrored[0])
    assert base.evaluate(upright[1])["accuracy"] >= 0.97
    assert before < 0.6
    assert adapted.evaluate(mirrored[1])["accuracy"] >= 0.95
    for path, x in base.params.items():
        np.testing.assert_array_equal(adapted.params[path], x, err_msg=path)
    few = sum(x.size for path, x in adapted.params.items() if path not in base.params)
    assert few < 0.05 * sum(x.size for x in base.params.values())
    # In the exported file the products are done: it is as large as the base's.
    files = []
    for trainer in (base, adapted):
        file = tmp_path / f"{trainer.model.name}.onnx"
        export(trainer.recipe, file, params=trainer.state)
        files.append(file)
    sizes = [file.stat().st_size for file in files]
    assert abs(sizes[0] - sizes[1]) < 500
    images = mirrored[1]["image"]
    session = onnxruntime.InferenceSession(files[1], providers=["CPUExecutionProvider"])
    (logits,) = session.run(["logits"], {"image": images})
    ours = adapted.predict({"image": images})["logits"]
    np.testing.assert_allclose(logits, ours, rtol=1e-4, atol=1e-4)


def test_augmentation_teaches_what_does_not_matter() -> None:
    module = module_of("augmentation")
    plain, augmented = (
        module.accuracies(recipe, choices=1)[0] for recipe in (module.plain, module.augmented)
    )
    shifted, centred = 0, 1
    assert plain[shifted] < 0.5
    assert augmented[shifted] > 0.8
    assert augmented[centred] > plain[centred] - 0.05
