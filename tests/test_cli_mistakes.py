"""The command line: its answer to every kind of mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nncompile.diagnostics.errors import FileError
from nncompile.passes import PASSES
from nncompile.runtime import load_state, save_state
from nncompile.train.progress import Snapshot
from tests.command_line import GOOD, WRONG_SLOPE, fails, line, run, succeeds, written

pytestmark = pytest.mark.usefixtures("unmeasured")

# A file, what stands in the line that the message names, and what the message says.
BAD_FILES = {
    "raises": (GOOD + "\n1 / 0\n", "1 / 0", ["ZeroDivisionError: division by zero"]),
    "does not parse": (GOOD + "\ndef (:\n", "def (:", ["not Python"]),
    "exits": ("raise SystemExit(3)\n", "raise", ["SystemExit: 3"]),
    "imports what is not there": ("import nowhere\n", "import", ["nowhere", "install"]),
    "declares nothing": ("x = 1\n", None, ["net.py declares no model", "@model"]),
    "wrong shapes": (
        GOOD.replace("Dense(3", "(lambda h: h @ np.ones((7, 2), np.float32)) >> Dense(3"),
        "np.ones",
        ["ShapeError", "inner sizes", "f32[batch, 8]", "f32[7, 2]"],
    ),
    "wrong dtype": (
        GOOD.replace("cross_entropy(logits, label)", "cross_entropy(logits, x > 0)"),
        "x > 0",
        ["bool"],
    ),
    "a value as a truth value": (
        GOOD.replace("return {", "if x > 0: pass\n    return {"),
        "if x > 0",
        ["FormulaError", "where"],
    ),
    "no such loss": (
        GOOD.replace("training(net, ", 'training(net, minimize="lost", '),
        "recipe =",
        ["no output 'lost' to minimize", "did you mean 'loss'?"],
    ),
    "an op without gradient": (
        GOOD.replace("@model", WRONG_SLOPE.replace("pullback", "other") + "@model").replace(
            "x >> Dense(8", "Twice()(x >> Dense(4)) >> Dense(8"
        ),
        "Twice()",
        ["GradientError: twice"],
    ),
    "no data": (GOOD[: GOOD.index("def data")], None, ["declares no data"]),
    "no recipe": (GOOD[: GOOD.index("recipe =")], None, ["declares no recipe"]),
    "data that raise": (GOOD.replace("label = x", "label = y"), "label = y", ["NameError"]),
    "NaN data": (
        GOOD.replace("label = x", "x[7, 1] = np.nan; label = x"),
        None,
        ["FeedError: the data of input 'x' hold NaN", "x[7, 1]"],
    ),
    "missing feed": (
        GOOD.replace('{"x": x[:60], "label": label[:60]}', '{"x": x[:60]}'),
        None,
        ["FeedError: no data for input 'label'", "i64[batch]"],
    ),
    "unknown feed": (
        GOOD.replace('{"x": x[:60], ', '{"x": x[:60], "lable": label, '),
        None,
        ["no input 'lable'", "did you mean 'label'?"],
    ),
    "feeds of another type": (
        GOOD.replace(".astype(np.float32)", ".astype(np.complex64)"),
        None,
        [
            "FeedError: input 'x' has the wrong element type",
            "complex64[60, 4]",
            "x.real and x.imag",
        ],
    ),
    "feeds of another shape": (
        GOOD.replace("size=(90, 4)", "size=(90, 5)"),
        None,
        ["FeedError: input 'x' has size 5 on axis 1, not 4"],
    ),
    "feeds of two lengths": (
        GOOD.replace("label[:60]", "label[:50]"),
        None,
        ["FeedError: input 'label' has size 50 on axis 0", "60 by input 'x'"],
    ),
    "labels that are out of range": (
        GOOD.replace("x[:, :3].argmax(1)", "x.argmax(1) + 40"),
        None,
        ["FeedError: input 'label' holds 4", "axis of size 3", "60 of 60"],
    ),
    "infinite data": (
        GOOD.replace("label = x", "x[7, 1] = np.inf; label = x"),
        None,
        ["TrainingError: loss is nan", "the data are not all finite", "input 'x'  1 of"],
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_a_bad_file_is_answered_with_one_message(tmp_path: Path, case: str) -> None:
    source, place, parts = BAD_FILES[case]
    assert source != GOOD
    output = tmp_path / "runs"
    output.mkdir()
    names = ("model.onnx", "step.onnx", "step.state.safetensors", "checkpoint.safetensors")
    for name in names:
        (output / name).write_text("precious")
    args = ("--output", output, "--overwrite", "--epochs", 1)
    message = fails("train", written(tmp_path, source), *args)
    for part in parts:
        assert part in message
    assert f"at {line(place, source)}" in message if place else "  at " not in message
    if case == "infinite data":  # which only the first step meets: the old run is replaced
        files = [".lock", "best", "checkpoints", "config.json", "report.html"]
        assert sorted(os.listdir(output)) == files
        return
    assert sorted(os.listdir(output)) == sorted(names)
    assert {(output / name).read_text() for name in names} == {"precious"}


def test_a_loss_that_explodes_leaves_the_last_good_state(tmp_path: Path) -> None:
    exploding = "cross_entropy(logits, label) / where(x.mean() > 1e6, 0.0, 1.0)"
    source = GOOD.replace("cross_entropy(logits, label)", exploding)
    source = source.replace("import Dense", "import where, Dense")
    source = source.replace('    return {"x": x[:60]', '    x[50] = 1e9\n    return {"x": x[:60]')
    run = tmp_path / "run"
    message = fails("train", written(tmp_path, source), "--output", run)
    for part in ("TrainingError: loss is inf", f"{run}\n", "checkpoints/step-00000000"):
        assert part in message
    (file,) = (run / "checkpoints").iterdir()
    state, _ = load_state(file)
    assert 0 < state["step"] < 4
    assert all(np.isfinite(x).all() for x in state.values())
    assert not (run / "model.onnx").exists()


@pytest.mark.parametrize("command", ["train", "compile", "show", "check"])
def test_a_file_that_is_not_there_or_no_model(command: str, tmp_path: Path) -> None:
    assert "gone.py" in fails(command, tmp_path / "gone.py")
    binary = tmp_path / "model.onnx"
    binary.write_bytes(b"\x08\x0a\xff\xfe")
    assert "model.onnx is not an ONNX model" in fails(command, binary)
    other = binary.rename(tmp_path / "model.bin")
    assert "not a Python file" in fails(command, other)


def test_an_unknown_provider(good: Path, trained: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    given = ("run", trained / "model.onnx", "-i", f"x={tmp_path / 'x.npy'}")
    for command in (("train", good, "--output", tmp_path / "runs"), given):
        message = fails(*command, "--provider", "coda")
        assert "ProviderError: unknown execution provider 'coda'" in message
        assert "hint: " in message


def test_checkpoints_that_are_truncated_foreign_or_of_another_model(
    good: Path, trained: Path, tmp_path: Path
) -> None:
    whole = (trained / "checkpoint.safetensors").read_bytes()
    truncated, foreign, other, partial = (
        tmp_path / f"{n}.safetensors" for n in ("cut", "npz", "other", "part")
    )
    truncated.write_bytes(whole[:-100])
    with foreign.open("wb") as file:
        np.savez(file, weight=np.ones(3))
    save_state(other, {"steam.weight": np.ones((4, 8), np.float32)})
    state, _ = load_state(trained / "checkpoint.safetensors")
    state.pop("head.bias")
    save_state(partial, state)
    output = tmp_path / "model.onnx"
    output.write_text("precious")
    for path, part in (
        (truncated, "CheckpointError"),
        (foreign, "CheckpointError"),
        (other, f"CheckpointError: {other} does not fit this model"),
        (other, "'steam.weight' may be 'stem.weight' renamed"),
        (partial, "missing  head.bias"),
        (tmp_path / "gone.safetensors", "FileError: cannot read checkpoint"),
    ):
        for command in (
            ("train", good, "--output", tmp_path / "runs", "--resume", path),
            ("compile", good, "-o", output, "--params", path),
            ("compile", good, "--to", "step", "-o", output, "--params", path),
        ):
            message = fails(*command)
            assert part in message
    assert output.read_text() == "precious"
    assert not (tmp_path / "runs").exists()


def test_places_that_cannot_be_written(good: Path, trained: Path, tmp_path: Path) -> None:
    blocker = tmp_path / "blocker"
    blocker.write_text("precious")
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    for command in (
        ("train", good, "--output", blocker / "runs"),
        ("compile", good, "--output", blocker / "model.onnx"),
        ("compile", good, "--to", "step", "--output", blocker / "step.onnx"),
        (
            "run",
            trained / "model.onnx",
            "-i",
            f"x={tmp_path / 'x.npy'}",
            "-o",
            blocker / "out.npz",
        ),
    ):
        assert "FileError: cannot write to directory" in (message := fails(*command))
        assert "blocker" in message
    assert blocker.read_text() == "precious"
    assert "it is a directory" in fails("compile", good, "--output", tmp_path)


def test_run_answers_bad_models_and_feeds(trained: Path, tmp_path: Path) -> None:
    model = trained / "model.onnx"
    np.save(tmp_path / "x.npy", np.ones((2, 4), np.float32))
    np.save(tmp_path / "wide.npy", np.ones((2, 5), np.float32))
    np.save(tmp_path / "double.npy", np.ones((2, 4)))
    (tmp_path / "text.npy").write_text("hello")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    (tmp_path / "objects.npy").unlink(missing_ok=True)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(model.read_bytes()[:200])
    x = f"x={tmp_path / 'x.npy'}"
    for args, part in (
        ((model,), "FeedError: no data for input 'x'"),
        ((model, "-i", x, "-i", f"y={tmp_path / 'x.npy'}"), "no input 'y'"),
        ((model, "-i", f"x={tmp_path / 'wide.npy'}"), "has size 5 on axis 1, not 4"),
        ((model, "-i", f"x={tmp_path / 'double.npy'}"), "the wrong element type"),
        ((model, "-i", f"x={tmp_path / 'text.npy'}"), "is not a complete .npy file"),
        ((model, "-i", f"x={tmp_path / 'cut.npy'}"), "is not a complete .npy file"),
        ((model, "-i", f"x={tmp_path / 'objects.npy'}"), "is not a complete .npy file"),
        ((model, "-i", f"x={tmp_path / 'gone.npy'}"), "FileError: cannot read"),
        ((model, "-i", "x"), "is neither NAME=FILE.npy nor FILE.npz"),
        ((tmp_path / "gone.onnx", "-i", x), "no such file"),
        ((cut, "-i", x), "cut.onnx"),
        ((tmp_path / "text.npy", "-i", x), "text.npy is not an ONNX model"),
    ):
        assert part in (message := fails("run", *args)) and "  at " not in message


def test_unknown_passes_and_models(good: Path) -> None:
    for command in (
        ("show", good, "--without", "gem"),
        ("show", good, "--pass", "gem"),
        ("compile", good, "--without", "gem"),
    ):
        message = fails(*command)
        assert f"there is no pass 'gem'; the passes are {', '.join(PASSES)}" in message
        assert "did you mean 'gemm'?" in message
    assert "declares no model 'nut'" in fails("show", good, "--model", "nut")
    assert "opset 12 is not supported" in fails(
        "compile", good, "--opset", 12, "-o", good.parent / "x.onnx"
    )
    assert "show needs the FILE" in fails("show", "--stage", "model")


def test_what_needs_a_recipe_says_how_to_declare_one(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD[: GOOD.index("recipe =")])
    message = fails("compile", path, "--to", "step", "-o", tmp_path / "step.onnx")
    assert "step of model net needs a recipe" in message
    assert "recipe = training(net, optimizer=" in message


def test_a_full_disk_leaves_the_files_of_the_last_training(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = good.parent / "runs"
    succeeds("train", good, "--output", output, "--epochs", 1)
    before = {x.name: x.read_bytes() for x in output.iterdir() if x.is_file()}

    def full(*_: object) -> Path:
        raise FileError("cannot write: no space left on device")

    monkeypatch.setattr(Snapshot, "write", full)
    message = fails("train", good, "--output", output, "--epochs", 1, "--resume")
    assert "no space left" in message
    for name, content in before.items():
        changing = ("log.csv", "config.json", ".lock", "report.html")
        assert name in changing or (output / name).read_bytes() == content


def test_options_that_do_not_exist_have_exit_code_2(good: Path) -> None:
    for args in (("train", good, "--epoch", 3), ("train", good, "--epochs", 0), ("fly",)):
        assert run(*args).exit_code == 2


def test_as_a_program_and_with_debug(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "\n1 / 0\n")
    program = [sys.executable, "-m", "nncompile", "show", str(path)]
    plain = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert plain.returncode == 2
    assert plain.stdout == ""
    assert plain.stderr == (
        "ModelError: ZeroDivisionError: division by zero\n  1 / 0\n"
        f"  at {line('1 / 0', path.read_text())}\n"
    )
    debug = run("show", path, "--debug")
    assert debug.exit_code == plain.returncode
    assert debug.stderr.startswith("Traceback")
    assert debug.stderr.endswith(plain.stderr)


def test_a_model_file_is_not_run_but_compiled(good: Path, tmp_path: Path) -> None:
    message = fails("run", good)
    assert f"{good} is a model file in Python: compile it first" in message
    assert f"hint: nncompile compile {good}" in message
    assert "no such file" in fails("run", tmp_path / "missing.py")
