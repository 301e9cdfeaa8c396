"""The command line: what it writes and prints, and how it answers every kind of mistake."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from typer.testing import CliRunner, Result

from nncompile.check import relative_error
from nncompile.cli import app
from nncompile.passes import PASSES
from nncompile.runtime import StepRunner, load_state, save_state

GOOD = """\
import numpy as np
from dsl import Dense, Dropout, accuracy, adam, cross_entropy, f32, i64, model, softmax, tanh
from dsl import training

@model(predict=("probabilities", "best"))
def net(x=f32["batch", 4], label=i64["batch"]):
    logits = x >> Dense(8, tanh, name="stem") >> Dropout(0.1) >> Dense(3, name="head")
    return {
        "probabilities": softmax(logits),
        "best": logits.argmax(-1),
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
    }

recipe = training(net, optimizer=adam(3e-2), batch=16, epochs=8)

def data():
    random = np.random.default_rng(0)
    x = random.normal(size=(90, 4)).astype(np.float32)
    label = x[:, :3].argmax(1)
    return {"x": x[:60], "label": label[:60]}, {"x": x[60:], "label": label[60:]}
"""


def run(*args: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in args])


def succeeds(*args: object) -> str:
    result = run(*args)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    return result.stdout


def fails(*args: object) -> str:
    """The message of a mistake: exit code 2, one error by name, no traceback."""
    result = run(*args)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output
    name, colon, _ = result.stderr.partition(": ")
    assert colon
    assert name.endswith("Error")
    assert result.stderr.count("Error: ") <= 2  # its own name, and that of what a file raised
    return result.stderr


@pytest.fixture
def good(tmp_path: Path) -> Path:
    return written(tmp_path, GOOD)


def line(text: str, source: str = GOOD) -> str:
    """`net.py:7`, the line that holds the text."""
    number = next(i for i, x in enumerate(source.splitlines(), start=1) if text in x)
    return f"net.py:{number}"


def written(directory: Path, source: str, name: str = "net.py") -> Path:
    path = directory / name
    path.write_text(source, encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished training of `GOOD`."""
    directory = tmp_path_factory.mktemp("trained")
    succeeds("train", written(directory, GOOD), "--output", directory / "runs")
    return directory / "runs"


# What commands do


def test_train_writes_models_that_plain_onnxruntime_runs(good: Path) -> None:
    output = good.parent / "runs"
    printed = succeeds("train", good, "--output", output, "--epochs", 40)
    assert sorted(os.listdir(output)) == [
        "checkpoint.safetensors",
        "model.onnx",
        "step.onnx",
        "step.state.safetensors",
    ]
    for part in ("net: 67 parameters in 4 tensors", "val_accuracy", "trained 160 steps of 16"):
        assert part in printed
    held_out = next(line for line in printed.splitlines() if line.startswith("held out"))
    assert float(held_out.split()[-1]) > 0.8
    session = onnxruntime.InferenceSession(output / "model.onnx")
    assert [x.name for x in session.get_inputs()] == ["x"]
    probabilities, best = session.run(None, {"x": np.zeros((2, 4), np.float32)})
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-6)
    assert best.dtype == np.int64
    step = onnxruntime.InferenceSession(output / "step.onnx")
    state, _ = load_state(output / "step.state.safetensors")
    assert state["step"] == 0
    assert {x.name for x in step.get_inputs()} == {*state, "x", "label"}


def test_training_is_the_same_twice_and_another_seed_is_not(good: Path) -> None:
    def weights(name: str, seed: int) -> dict[str, np.ndarray]:
        output = good.parent / name
        succeeds("train", good, "--output", output, "--seed", seed, "--epochs", 2)
        state, first = (
            load_state(output / file)[0]
            for file in ("checkpoint.safetensors", "step.state.safetensors")
        )
        assert state["seed"] == first["seed"] == seed
        return state

    one, again, other = weights("a", 1), weights("b", 1), weights("c", 2)
    for name, x in one.items():
        np.testing.assert_array_equal(x, again[name])
    assert not np.array_equal(one["stem.weight"], other["stem.weight"])


def test_a_resumed_training_is_the_uninterrupted_one(good: Path) -> None:
    directory = good.parent
    succeeds("train", good, "--output", directory / "whole", "--epochs", 4)
    succeeds("train", good, "--output", directory / "half", "--epochs", 2)
    half = directory / "half" / "checkpoint.safetensors"
    printed = succeeds(
        "train", good, "--output", directory / "rest", "--epochs", 2, "--resume", half
    )
    assert "trained 8 steps" in printed
    whole, rest = (
        load_state(directory / name / "checkpoint.safetensors")[0] for name in ("whole", "rest")
    )
    for name, x in whole.items():
        np.testing.assert_array_equal(x, rest[name])


def test_an_interrupted_training_keeps_what_it_learned(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = StepRunner.step

    def step(runner: StepRunner, batch: dict[str, np.ndarray]) -> None:
        if runner.steps == 6:
            raise KeyboardInterrupt
        made(runner, batch)

    monkeypatch.setattr(StepRunner, "step", step)
    output = good.parent / "runs"
    result = run("train", good, "--output", output)
    assert result.exit_code == 130
    assert "interrupted after 6 steps" in result.stdout
    assert load_state(output / "checkpoint.safetensors")[0]["step"] == 6
    onnxruntime.InferenceSession(output / "model.onnx")


def test_steps_batch_and_verbose(good: Path) -> None:
    args = ("--steps", 5, "--batch", 30, "--threads", 1, "--provider", "CPU", "--verbose")
    printed = succeeds("train", good, "--output", good.parent / "runs", *args)
    for part in ("trained 5 steps of 30", "gradients", "passes", "lowering", "before passes"):
        assert part in printed
    assert [line.split()[1] for line in printed.splitlines() if line.startswith("epoch")] == [
        "1",
        "2",
        "3",
    ]


@pytest.mark.parametrize(
    ("target", "files"),
    [
        ("onnx", ["out.onnx"]),
        ("step", ["out.onnx", "out.state.safetensors"]),
        ("gradient", ["out.onnx"]),
        ("update", ["out.onnx"]),
    ],
)
def test_compile_writes_what_is_asked_for(good: Path, target: str, files: list[str]) -> None:
    output = good.parent / "out" / "out.onnx"
    printed = succeeds("compile", good, "--to", target, "-o", output, "--verbose")
    assert sorted(os.listdir(output.parent)) == files
    onnxruntime.InferenceSession(output)
    for part in (*PASSES, "peak memory", "lowering", "checking", "ONNX"):
        assert part in printed


def test_compile_takes_weights_an_opset_and_fewer_passes(good: Path, trained: Path) -> None:
    directory = good.parent
    checkpoint = trained / "checkpoint.safetensors"
    x = {"x": np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)}
    (expected, _) = onnxruntime.InferenceSession(trained / "model.onnx").run(None, x)
    for i, options in enumerate(
        (("--opset", 22), ("--without", "all"), ("--without", "gemm"), ("--external-data",))
    ):
        output = directory / f"{i}.onnx"
        succeeds("compile", good, "-o", output, "--params", checkpoint, *options)
        (got, _) = onnxruntime.InferenceSession(output).run(None, x)
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_compile_to_torchscript(good: Path, trained: Path) -> None:
    torch = pytest.importorskip("torch")
    output = good.parent / "net.pt"
    checkpoint = trained / "checkpoint.safetensors"
    succeeds("compile", good, "--to", "torchscript", "-o", output, "--params", checkpoint)
    x = np.linspace(-1, 1, 20, dtype=np.float32).reshape(5, 4)
    (expected, _) = onnxruntime.InferenceSession(trained / "model.onnx").run(None, {"x": x})
    result = torch.jit.load(output)(torch.from_numpy(x))
    got = result["probabilities"] if isinstance(result, dict) else result[0]
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-5, atol=1e-6)


def test_run_prints_and_writes_outputs(trained: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones((9, 4), np.float32))
    given = ("run", trained / "model.onnx", "--input", f"x={tmp_path / 'x.npy'}")
    printed = succeeds(*given, "--output", tmp_path / "out")
    for part in ("probabilities", "f32[9, 3]", "min ", "i64[9]", " ms on cpu"):
        assert part in printed
    assert sorted(os.listdir(tmp_path / "out")) == ["best.npy", "probabilities.npy"]
    succeeds(*given, "--output", tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        np.testing.assert_array_equal(
            arrays["probabilities"], np.load(tmp_path / "out" / "probabilities.npy")
        )


def test_run_tells_of_numbers_that_are_not_finite(trained: Path, tmp_path: Path) -> None:
    x = np.ones((9, 4), np.float32)
    x[0, 0] = np.nan
    np.save(tmp_path / "x.npy", x)
    printed = succeeds("run", trained / "model.onnx", "--input", f"x={tmp_path / 'x.npy'}")
    assert "3 of 27 not finite" in printed


def test_show_prints_every_stage(good: Path) -> None:
    assert "softmax(" in succeeds("show", good)
    assert "stem.weight.grad" in succeeds("show", good, "--stage", "gradient")
    step = succeeds("show", good, "--stage", "step")
    assert "stem.weight.next" in step
    assert line("Dense(8") in step
    onnx = succeeds("show", good, "--stage", "onnx")
    assert "Gemm" in onnx
    assert "Dropout" not in onnx
    assert "Gemm" not in succeeds("show", good, "--stage", "onnx", "--without", "all")


def test_show_prints_a_pass_before_and_after(good: Path) -> None:
    printed = succeeds("show", good, "--stage", "step", "--pass", "gemm")
    first_round = printed.split("--- before gemm")[1]
    before, _, after = first_round.partition("--- after gemm")
    assert before.count("gemm(") < after.count("gemm(")
    listed = succeeds("show", "--list-passes")
    assert [line.split()[0] for line in listed.splitlines()] == list(PASSES)


def test_check_passes_with_figures(good: Path) -> None:
    lines = succeeds("check", good).splitlines()
    assert [line.split("  ")[0] for line in lines] == ["pass"] * 4
    assert "relative error" in lines[0]
    assert "200 steps" in lines[3]


WRONG_SLOPE = """
from nncompile.graph import Op
class Twice(Op):
    def infer(self, x): return x
    def pullback(self, g, y, x): return (3 * g,)
    def numpy(self, x): return 2 * x
    def onnx(self, o, x): return o.Add(x, x)
"""


@pytest.mark.parametrize(
    ("change", "failing"),
    [
        (("x >> Dense(8", "Twice()(x >> Dense(4)) >> Dense(8"), "gradient of loss"),
        (("adam(3e-2)", "adam(1e3)"), "learns one batch"),
    ],
)
def test_check_fails_with_exit_code_1(
    tmp_path: Path, change: tuple[str, str], failing: str
) -> None:
    source = GOOD.replace(*change)
    assert source != GOOD
    lines = source.splitlines(keepends=True)
    path = written(tmp_path, "".join([*lines[:3], WRONG_SLOPE, *lines[3:]]))
    result = run("check", path)
    assert result.exit_code == 1, result.output
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAIL")]
    assert [failing in line for line in failed] == [True]


def test_check_knows_slopes_that_are_declared_or_stopped(tmp_path: Path) -> None:
    source = GOOD.replace("model, softmax", "model, softmax, stop_gradient")
    source = source.replace("x >> Dense(8", "x * stop_gradient(x >> Dense(4)) >> Dense(8")
    stopped = succeeds("check", written(tmp_path, source)).splitlines()
    assert stopped[0].startswith("pass  gradient of loss")
    source = GOOD.replace("model, softmax", "formula, model, softmax").replace(
        "@model", "@formula(slope=lambda x: 1.0)\ndef straight(x):\n    return round(x)\n\n@model"
    )
    source = source.replace("x >> Dense(8", "straight(x >> Dense(4)) >> Dense(8")
    declared = succeeds("check", written(tmp_path, source)).splitlines()
    assert declared[0].startswith("  -   gradient of loss: it has 1 declared slopes (net.py:")


def test_check_without_recipe_or_data(tmp_path: Path) -> None:
    source = GOOD[: GOOD.index("recipe =")]
    lines = succeeds("check", written(tmp_path, source)).splitlines()
    assert [line.split(":")[0] for line in lines] == ["pass  ONNX inference"]
    source = GOOD[: GOOD.index("def data")]
    assert len(succeeds("check", written(tmp_path, source)).splitlines()) == 4


def test_relative_error_of_shapes_nan_and_infinity() -> None:
    x = np.array([1.0, np.inf, np.nan])
    assert relative_error(x, x) == 0
    assert relative_error(x, x[:2]) == np.inf
    assert np.isnan(relative_error(np.array([np.nan]), np.array([1.0])))
    assert relative_error(np.array([1.0, 2.0]), np.array([1.0, 4.0])) == pytest.approx(0.5)


@pytest.mark.parametrize("command", ["train", "compile", "run", "show", "check"])
def test_help_has_examples(command: str) -> None:
    printed = succeeds(command, "--help")
    assert "Example" in printed
    assert f"nncompile {command} " in printed
    assert "--debug" in printed


# What is answered to mistakes

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
        GOOD.replace(".astype(np.float32)", ""),
        None,
        ["FeedError: input 'x' has another element type", "f64[60, 4]", "astype(np.float32)"],
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
        ["failed on these data", "i64[16]"],
    ),
    "a loss that explodes": (
        GOOD.replace("cross_entropy(logits, label)", "(logits * 1e30).sum() * 1e30"),
        None,
        ["TrainingError: loss is", "learning rate"],
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
    message = fails("train", written(tmp_path, source), "--output", output, "--epochs", 1)
    for part in parts:
        assert part in message
    assert f"at {line(place, source)}" in message if place else "  at " not in message
    assert sorted(os.listdir(output)) == sorted(names)
    assert {(output / name).read_text() for name in names} == {"precious"}


@pytest.mark.parametrize("command", ["train", "compile", "show", "check"])
def test_a_file_that_is_not_there_or_no_model(command: str, tmp_path: Path) -> None:
    assert "gone.py" in fails(command, tmp_path / "gone.py")
    binary = tmp_path / "model.onnx"
    binary.write_bytes(b"\x08\x0a\xff\xfe")
    assert "not a Python file" in fails(command, binary)


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
    truncated, foreign, other = (tmp_path / f"{n}.safetensors" for n in ("cut", "npz", "other"))
    truncated.write_bytes(whole[:-100])
    with foreign.open("wb") as file:
        np.savez(file, weight=np.ones(3))
    save_state(other, {"steam.weight": np.ones((4, 8), np.float32)})
    output = tmp_path / "model.onnx"
    output.write_text("precious")
    for path, part in (
        (truncated, "CheckpointError"),
        (foreign, "CheckpointError"),
        (other, "steam.weight"),
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
    assert os.listdir(tmp_path / "runs") == []


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
        ((model, "-i", f"x={tmp_path / 'double.npy'}"), "another element type"),
        ((model, "-i", f"x={tmp_path / 'text.npy'}"), "is not a whole .npy file"),
        ((model, "-i", f"x={tmp_path / 'cut.npy'}"), "is not a whole .npy file"),
        ((model, "-i", f"x={tmp_path / 'objects.npy'}"), "is not a whole .npy file"),
        ((model, "-i", f"x={tmp_path / 'gone.npy'}"), "FileError: cannot read"),
        ((model, "-i", "x"), "is not NAME=FILE.npy"),
        ((tmp_path / "gone.onnx", "-i", x), "no such file"),
        ((cut, "-i", x), "cut.onnx"),
        ((tmp_path / "text.npy", "-i", x), "text.npy is not an ONNX model"),
    ):
        assert part in fails("run", *args)


def test_unknown_passes_and_models(good: Path) -> None:
    for command in ("show", "compile"):
        assert "there is no pass 'gem'" in fails(command, good, "--without", "gem")
    assert "there is no pass 'gem'" in fails("show", good, "--pass", "gem")
    assert "declares no model 'nut'" in fails("show", good, "--model", "nut")
    assert "opset 12 is not supported" in fails(
        "compile", good, "--opset", 12, "-o", good.parent / "x.onnx"
    )
    assert "show needs the FILE" in fails("show", "--stage", "model")


def test_options_that_do_not_exist_have_exit_code_2(good: Path) -> None:
    for args in (("train", good, "--epoch", 3), ("train", good, "--epochs", 0), ("fly",)):
        assert run(*args).exit_code == 2


def test_as_a_program_and_with_debug(tmp_path: Path) -> None:
    path = written(tmp_path, GOOD + "\n1 / 0\n")
    program = [sys.executable, "-m", "nncompile", "show", str(path)]
    plain, debug = (
        subprocess.run([*program, *more], capture_output=True, text=True, timeout=120)
        for more in ([], ["--debug"])
    )
    assert plain.returncode == 2
    assert plain.stdout == ""
    assert plain.stderr == (
        "ModelError: ZeroDivisionError: division by zero\n  1 / 0\n"
        f"  at {line('1 / 0', path.read_text())}\n"
    )
    assert debug.returncode != 0
    assert "Traceback" in debug.stderr
