"""The command line: what it writes and prints."""

from __future__ import annotations

import gc
import os
import re
import tomllib
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from typer.main import get_command

from nncompile.cli.app import app, main
from nncompile.ops.reduction.softmax import Softmax
from nncompile.passes import PASSES
from nncompile.runtime import StepRunner, load_state
from tests.command_line import GOOD, WRONG_SLOPE, line, run, succeeds, written

pytestmark = pytest.mark.usefixtures("unmeasured")
ROOT = Path(__file__).parent.parent


def test_each_installed_command_is_a_function_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    for name, target in project["scripts"].items():
        assert callable(EntryPoint(name, target, "console_scripts").load()), name


def test_the_end_of_the_program_searches_for_no_cycles(monkeypatch: pytest.MonkeyPatch) -> None:
    """That took a third of the time of a short command."""
    calls: list[str] = []
    monkeypatch.setattr("sys.argv", ["nncompile", "--version"])
    monkeypatch.setattr(gc, "freeze", lambda: calls.append("freeze"))
    with pytest.raises(SystemExit):
        main()
    assert calls == ["freeze"]


def test_train_writes_models_that_plain_onnxruntime_runs(good: Path) -> None:
    output = good.parent / "runs"
    printed = succeeds("train", good, "--output", output, "--epochs", 40)
    assert sorted(os.listdir(output)) == [
        ".lock",
        "best",
        "checkpoint.safetensors",
        "checkpoints",
        "config.json",
        "log.csv",
        "model.onnx",
        "report.html",
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
    args = ("--steps", 5, "--batch-size", 30, "--threads", 1, "--provider", "CPU", "--verbose")
    args = (*args, "--no-cache")
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
    printed = succeeds("compile", good, "--to", target, "-o", output, "--verbose", "--initial")
    assert sorted(os.listdir(output.parent)) == files
    onnxruntime.InferenceSession(output)
    for part in (*PASSES, "peak memory", "lowering", "checking", "ONNX"):
        assert part in printed


def test_compile_says_that_weights_are_initial(good: Path, trained: Path) -> None:
    output = good.parent / "out.onnx"
    checkpoint = trained / "checkpoint.safetensors"
    shown = run("compile", good, "-o", output)
    assert shown.exit_code == 0 and "holds initial weights: --params" in shown.stderr
    for options in (("--initial",), ("--params", checkpoint), ("--to", "step")):
        succeeds("compile", good, "-o", output, *options)


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
    assert set(re.findall(r"\w+\.py(?=:\d)", step)) == {"net.py"}  # and no line of the command line
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
    assert [line.split(":")[0] for line in lines] == [
        "pass  gradient of loss",
        *(f"pass  ONNX {column}" for column in ("forward", "gradients", "ten steps")),
        "pass  learns one batch",
    ]
    assert "relative error" in lines[0] and "over 4 parameters" in lines[0]
    assert all(re.search(r" ε against numpy in float64, of \w", line) for line in lines[1:4])
    assert "200 steps" in lines[4]


@pytest.mark.parametrize(
    ("changes", "failing"),
    [
        ({"x >> Dense(8": "Twice()(x >> Dense(4)) >> Dense(8"}, "gradient of loss"),
        ({"adam(3e-2)": "adam(0)", " >> Dropout(0.1)": ""}, "learns one batch"),
    ],
)
def test_check_fails_with_exit_code_1(
    tmp_path: Path, changes: dict[str, str], failing: str
) -> None:
    source = GOOD
    for old, new in changes.items():
        assert old in source
        source = source.replace(old, new)
    lines = source.splitlines(keepends=True)
    source = "".join([*lines[:3], WRONG_SLOPE, *lines[3:]])
    result = run("check", written(tmp_path, source))
    assert result.exit_code == 1, result.output
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAIL")]
    assert [failing in line for line in failed] == [True]
    if "Twice()" in source:  # the node, and its line
        assert re.search(r"first at +%\d+ = twice\(", result.stdout), result.stdout
        assert line("Twice()", source) in result.stdout


def test_check_names_the_node_that_a_backend_computes_wrongly(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Softmax.onnx
    monkeypatch.setattr(Softmax, "onnx", lambda self, o, x: right(self, o, o.Neg(x)))
    result = run("check", good)
    assert result.exit_code == 1, result.output
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAIL")]
    assert [line.split(":")[0] for line in failed] == ["FAIL  ONNX forward"]
    assert "onnxruntime none, 1 thread and 1 more: forward mismatches" in result.stdout
    assert "softmax(" in result.stdout
    assert line("softmax(logits)") in result.stdout


def test_check_knows_gradients_that_are_declared_or_stopped(tmp_path: Path) -> None:
    source = GOOD.replace("model, softmax", "model, softmax, stop_gradient")
    source = source.replace("x >> Dense(8", "x * stop_gradient(x >> Dense(4)) >> Dense(8")
    stopped = succeeds("check", written(tmp_path, source)).splitlines()
    assert stopped[0].startswith("pass  gradient of loss")
    source = GOOD.replace("model, softmax", "formula, model, softmax").replace(
        "@model",
        "@formula(derivative=lambda x: 1.0)\ndef straight(x):\n    return round(x)\n\n@model",
    )
    source = source.replace("x >> Dense(8", "straight(x >> Dense(4)) >> Dense(8")
    declared = succeeds("check", written(tmp_path, source)).splitlines()
    assert declared[0].startswith("  -   gradient of loss: not compared, for it goes through")
    assert "the gradient declared at net.py:" in declared[0]


def test_check_does_not_compare_steps_along_gradients_of_rounding(tmp_path: Path) -> None:
    """The gradient at the bias of attention's keys is zero: Adam makes a step of its rounding."""
    source = """
from dsl import Dense, MultiHeadAttention, adamw, cross_entropy, f32, flatten, i64, model, training


@model
def net(x=f32["batch", 5, 8], label=i64["batch"]):
    logits = x >> MultiHeadAttention(2) >> flatten >> Dense(3)
    return {"loss": cross_entropy(logits, label)}


recipe = training(net, optimizer=adamw(1e-3))
"""
    lines = succeeds("check", written(tmp_path, source)).splitlines()
    assert all(line.startswith("pass") for line in lines)
    assert any("ten steps" in line for line in lines), lines


def test_check_without_recipe_or_data(tmp_path: Path) -> None:
    source = GOOD[: GOOD.index("recipe =")]
    lines = succeeds("check", written(tmp_path, source)).splitlines()
    assert [line.split(":")[0] for line in lines] == ["pass  ONNX forward"]
    source = GOOD[: GOOD.index("def data")]
    assert len(succeeds("check", written(tmp_path, source)).splitlines()) == 5


def test_steps_are_counted_from_the_checkpoint(good: Path) -> None:
    first, more = good.parent / "first", good.parent / "more"
    succeeds("train", good, "--output", first, "--steps", 3)
    checkpoint = first / "checkpoint.safetensors"
    succeeds("train", good, "--output", more, "--steps", 2, "--resume", checkpoint)
    assert load_state(more / "checkpoint.safetensors")[0]["step"] == 5
    assert "--steps count from there" in " ".join(succeeds("train", "--help").split())


@pytest.mark.parametrize("command", get_command(app).commands)  # type: ignore[attr-defined]  # a group
def test_help_has_examples(command: str) -> None:
    printed = succeeds(command, "--help")
    assert "Example" in printed
    assert f"nncompile {command} " in printed
    assert "--debug" in printed
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    shown = rf"\n## {command}\n\n```\nnncompile {command}\b"
    assert re.search(shown, page), "the page has no section of it"
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    row = rf"\n\|[^|]*`(nncompile )?{command}[ `]"
    assert re.search(row, readme), "the table of commands has no row of it"
