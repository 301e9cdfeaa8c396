"""The examples, as a user runs them: each learns what it says, and its exports do what it did."""

from __future__ import annotations

import ast
import json
import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile.export import export
from nncompile.load import Declared, load
from nncompile.train import Trainer

EXAMPLES = Path(__file__).parent.parent / "examples"
# Run by themselves, on what examples/digits.py exports.
SCRIPTS = {"recognise", "train_with_onnxruntime"}


def trained(name: str) -> tuple[Trainer, Declared]:
    declared = load(EXAMPLES / f"{name}.py")
    trainer = Trainer(declared.recipe)
    assert declared.data is not None
    trainer.fit(declared.data.train)
    return trainer, declared


def measured(trainer: Trainer, declared: Declared) -> dict[str, float]:
    """The metrics on the held-out data, or on all data where none are held out."""
    assert declared.data is not None
    return trainer.evaluate(declared.data.validation or declared.data.train)


QUALITY = {
    "digits": {"accuracy": (0.97, 1.0)},
    "xor": {"accuracy": (1.0, 1.0), "loss": (0.0, 0.05)},
    "linear_regression": {"loss": (0.0, 0.02), "error": (0.0, 0.12)},
    "logistic_regression": {"accuracy": (0.95, 1.0)},
    "perceptron": {"accuracy": (1.0, 1.0)},
    "fit_function": {"squared_error": (0.0, 0.002)},
}


def test_every_example_is_tested() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == QUALITY.keys() | SCRIPTS


@pytest.mark.parametrize("name", QUALITY)
def test_examples_learn_what_they_say(name: str) -> None:
    found = measured(*trained(name))
    for metric, (low, high) in QUALITY[name].items():
        assert low <= found[metric] <= high, f"{metric} = {found[metric]}"


def test_linear_regression_finds_the_plane() -> None:
    trainer, declared = trained("linear_regression")
    weight, bias = trainer.params["line.weight"], trainer.params["line.bias"]
    # The noise is 0.1 and there are 512 points: a standard error of 0.1/√512.
    np.testing.assert_allclose(weight[:, 0], declared.module.WEIGHT, atol=0.02)
    np.testing.assert_allclose(bias, [declared.module.BIAS], atol=0.02)


def test_the_perceptron_separates_and_stops_changing() -> None:
    trainer, declared = trained("perceptron")
    assert declared.data is not None
    before = trainer.params["weight"]
    trainer.fit(declared.data.train, epochs=1)
    np.testing.assert_array_equal(trainer.params["weight"], before)


def test_held_out_digits_are_36_of_each_and_not_trained_on() -> None:
    data = load(EXAMPLES / "digits.py").data
    assert data is not None and data.validation is not None
    assert data.validation["image"].shape == (360, 1, 8, 8)
    assert data.train["image"].shape == (1437, 1, 8, 8)
    np.testing.assert_array_equal(np.bincount(data.validation["label"]), np.full(10, 36))
    trained_on = {image.tobytes() for image in data.train["image"]}
    assert not any(image.tobytes() in trained_on for image in data.validation["image"])


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer, Declared]:
    """A directory with what `nncompile train examples/digits.py` writes."""
    directory = tmp_path_factory.mktemp("digits")
    trainer, declared = trained("digits")
    export(declared.recipe, directory / "model.onnx", "onnx", trainer.state)
    export(declared.recipe, directory / "step.onnx", "step")
    return directory, trainer, declared


PLAIN = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = np.load(sys.argv[2])
found = {}
for count in (1, 7, len(images)):
    logits = session.run(["logits"], {"image": images[:count]})[0]
    found[count] = logits.argmax(-1).tolist()
assert not {"nncompile", "dsl", "torch"} & sys.modules.keys()
print(json.dumps(found))
"""


def test_plain_onnxruntime_predicts_the_same_at_any_batch_size(
    digits: tuple[Path, Trainer, Declared],
) -> None:
    directory, trainer, declared = digits
    assert declared.data is not None and declared.data.validation is not None
    images = declared.data.validation["image"]
    np.save(directory / "images.npy", images)
    run = subprocess.run(
        [sys.executable, "-c", PLAIN, directory / "model.onnx", directory / "images.npy"],
        capture_output=True,
        text=True,
        check=True,
    )
    ours = trainer.predict({"image": images})["logits"].argmax(-1).tolist()
    found = json.loads(run.stdout)
    assert found == {"1": ours[:1], "7": ours[:7], "360": ours}


def test_the_exported_model_recognises_raw_images(
    digits: tuple[Path, Trainer, Declared], capsys: pytest.CaptureFixture[str]
) -> None:
    directory, trainer, declared = digits
    script = runpy.run_path(str(EXAMPLES / "recognise.py"))
    accuracy = script["main"](str(directory / "model.onnx"))
    assert accuracy == pytest.approx(measured(trainer, declared)["accuracy"], abs=1e-6)
    printed = capsys.readouterr().out
    assert "of 360 right" in printed
    assert sum(printed.count(shade) for shade in "*%#@") > 40


def imported_by(script: Path) -> set[str]:
    """The packages that are loaded once the script is, besides the standard library's."""
    code = (
        "import runpy, sys, json; before = set(sys.modules); "
        f"runpy.run_path({str(script)!r}); "
        "new = {name.partition('.')[0] for name in set(sys.modules) - before}; "
        "print(json.dumps(sorted(new - set(sys.stdlib_module_names))))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(json.loads(run.stdout))


def test_recognising_does_not_need_the_compiler() -> None:
    assert not {"nncompile", "dsl", "onnx", "torch"} & imported_by(EXAMPLES / "recognise.py")


def test_training_needs_onnxruntime_and_numpy_alone() -> None:
    tree = ast.parse((EXAMPLES / "train_with_onnxruntime.py").read_text())
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    assert not any(isinstance(node, ast.ImportFrom) for node in ast.walk(tree))
    assert names - sys.stdlib_module_names == {"numpy", "onnxruntime"}


def test_twenty_lines_of_plain_onnxruntime_train_to_the_same_bits(
    digits: tuple[Path, Trainer, Declared],
) -> None:
    directory, _, declared = digits
    script = EXAMPLES / "train_with_onnxruntime.py"
    assert sum(1 for line in script.read_text().splitlines()[1:] if line.strip()) == 20
    assert declared.data is not None
    data, trained = directory / "train.npz", directory / "trained.npz"
    np.savez(data, **declared.data.train)
    run = subprocess.run(
        [sys.executable, script, directory / "step.onnx", data, "2", "64", trained],
        capture_output=True,
        text=True,
        check=True,
    )
    losses: list[float] = []
    trainer = Trainer(declared.recipe)
    trainer.fit(declared.data.train, epochs=2, callbacks=[lambda event: heard(event, losses)])
    printed = [np.float32(line.rpartition(" ")[2]) for line in run.stdout.splitlines()]
    per_epoch = len(losses) // 2
    assert printed == [np.float32(x) for x in losses[per_epoch - 1 :: per_epoch]]
    with np.load(trained) as state:
        assert state.keys() == trainer.state.keys()
        for path, array in trainer.state.items():
            np.testing.assert_array_equal(state[path], array, strict=True)


def heard(event: Any, losses: list[float]) -> None:
    if event.kind == "step":
        losses.append(event.metrics["loss"])


def test_the_fitted_curve_is_drawn() -> None:
    run = subprocess.run(
        [sys.executable, EXAMPLES / "fit_function.py"],
        capture_output=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent), "PYTHONIOENCODING": "utf-8"},
        encoding="utf-8",
    )
    *page, _, error = run.stdout.splitlines()
    assert len(page) == 17
    met, missed = "".join(page).count("@"), "".join(page).count("o")
    assert met > 3 * missed
    assert float(error.rpartition(" ")[2]) < 0.002
