"""The examples, as a user runs them: each learns what it says, and its exports do what it did."""

from __future__ import annotations

import ast
import itertools
import json
import re
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nncompile.compiler.export import export
from nncompile.program.model_file import Declared, load
from nncompile.train import Trainer
from tests.trained_examples import EXAMPLES, data_of, held_out, measured, recognised, trained

QUALITY = {
    "digits": {"accuracy": (0.97, 1.0)},
    "xor": {"accuracy": (1.0, 1.0), "loss": (0.0, 0.05)},
    "linear_regression": {"explained": (0.34, 1.0)},
    "logistic_regression": {"accuracy": (0.95, 1.0)},
    "perceptron": {"accuracy": (1.0, 1.0)},
    "tabular": {"accuracy": (0.9, 1.0)},
    "fit_function": {"squared_error": (0.0, 0.002)},
}


# Where examples are run.
TESTS = (
    *Path(__file__).parent.glob("test_examples*.py"),
    Path(__file__).parent / "test_parallel_jobs.py",
)


def test_every_example_is_tested() -> None:
    tests = "".join(p.read_text("utf-8") for p in TESTS)
    imported = set().union(*(imports_of(path) for path in EXAMPLES.glob("*.py")))
    for path in EXAMPLES.glob("*.py"):
        named = re.search(rf"[\"/]{path.stem}(\.py)?[\"'/ ]", tests)
        assert named or path.stem in imported, f"no test runs {path.name}"


def imports_of(script: Path) -> set[str]:
    """The packages and modules that a script names in its imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(script.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(str(node.module).partition(".")[0])
    return found


def test_every_example_is_in_the_documentation_with_its_command() -> None:
    page = (EXAMPLES.parent / "docs" / "examples.md").read_text("utf-8")
    rows = {line.split("`")[1]: line for line in page.splitlines() if line.startswith("| `")}
    assert sorted(rows) == sorted(path.name for path in EXAMPLES.glob("*.py"))
    for name, row in rows.items():
        shows, figure, command = (cell.strip() for cell in row.split(" | ")[1:])
        assert shows and figure
        assert f"examples/{name}" in command or command == "– |", row


@pytest.mark.parametrize("name", QUALITY)
def test_examples_learn_what_they_say(name: str) -> None:
    found = measured(*trained(name))
    for metric, (low, high) in QUALITY[name].items():
        assert low <= found[metric] <= high, f"{metric} = {found[metric]}"


def test_the_exported_table_model_takes_raw_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    module = runpy.run_path(str(EXAMPLES / "tabular.py"))
    module["main"](str(tmp_path / "wine.onnx"))
    first, second = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"held out: 9\d% right", first)
    assert re.fullmatch(r"without \S.*: (\w+), \d+%; it is \1", second)


@pytest.mark.slow  # it shares a training
def test_linear_regression_finds_the_weights_of_least_squares() -> None:
    trainer, declared = trained("linear_regression")
    weights, bias = declared.module.least_squares()
    # Weights up to 37 and a bias of 152, in f32: what was measured is 4e-6.
    np.testing.assert_allclose(trainer.params["line.weight"][:, 0], weights, atol=5e-5)
    np.testing.assert_allclose(trainer.params["line.bias"], [bias], atol=5e-5)


def test_the_perceptron_separates_and_stops_changing() -> None:
    separating, declared = trained("perceptron")
    trainer = Trainer(declared.recipe)
    trainer.load_params(separating)
    before = separating.params["weight"]
    trainer.fit(data_of(declared).train, epochs=1)
    np.testing.assert_array_equal(trainer.params["weight"], before)


@pytest.mark.parametrize("name", ["AND", "OR", "NOT", "loan"])
def test_the_perceptron_learns_tables(name: str) -> None:
    module = load(EXAMPLES / "perceptron.py").module
    table = module.TABLES[name]
    accuracies, trainer = module.learned(table, epochs=20)
    assert accuracies[0] < 1, "nothing was learned"
    assert accuracies[-10:] == [1.0] * 10
    before = trainer.params["weight"]
    trainer.fit(table, epochs=2)
    np.testing.assert_array_equal(trainer.params["weight"], before)
    np.testing.assert_array_equal(trainer.predict({"x": table["x"]})["decision"], table["label"])


def test_the_perceptron_does_not_learn_exclusive_or() -> None:
    module = load(EXAMPLES / "perceptron.py").module
    accuracies, trainer = module.learned(module.TABLES["XOR"], epochs=50)
    assert max(accuracies) <= 0.75
    assert abs(trainer.params["weight"]).max() <= 4, "it cycles, and goes nowhere"


def test_a_wider_layer_approximates_better() -> None:
    module = load(EXAMPLES / "universal_approximation.py").module
    errors = [module.error(width) for width in module.WIDTHS]
    assert module.WIDTHS == (1, 2, 4, 8, 16)
    for narrow, wide in itertools.pairwise(errors):
        assert wide < 0.75 * narrow, errors
    assert errors[-1] < 0.03


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


def test_plain_onnxruntime_predicts_the_same_at_any_batch_size(
    digits: tuple[Path, Trainer, Declared],
) -> None:
    directory, trainer, declared = digits
    images = held_out(declared)["image"]
    ours = trainer.predict({"image": images})["logits"].argmax(-1).tolist()
    found = recognised(directory / "model.onnx", images)
    assert found == {1: ours[:1], 7: ours[:7], 360: ours}


@pytest.mark.slow  # it shares a training
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
    names = imports_of(EXAMPLES / "train_with_onnxruntime.py")
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
    step = directory / "plain.onnx"  # that with calls of kernels rounds as they do
    export(declared.recipe, step, to="step", kernels=False)
    run = subprocess.run(
        [sys.executable, script, step, data, "2", "64", trained],
        capture_output=True,
        text=True,
        check=True,
    )
    losses: list[float] = []
    trainer = Trainer(declared.recipe, native=False)
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


def test_the_fitted_curve_is_drawn(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / "fit_function.py"), run_name="__main__")
    *page, _, error = capsys.readouterr().out.splitlines()
    assert len(page) == 17
    met, missed = "".join(page).count("@"), "".join(page).count("o")
    assert met > 3 * missed
    assert float(error.rpartition(" ")[2]) < 0.002
