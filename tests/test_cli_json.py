"""`--json`, `--version`, completion and suggestions: what programs and shells ask of a command."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import nncompile
from nncompile.cli.app import app
from nncompile.cli.outcome import Outcome, as_json
from nncompile.passes import PASSES
from nncompile.verify.check import Finding
from tests.command_line import run, written
from tests.test_docs import ROOT


def found(*args: object, exit_code: int = 0) -> Any:
    """The object that a command prints; text for people is on the standard error."""
    result = run(*args, "--json")
    assert result.exit_code == exit_code, result.output
    assert result.stdout.endswith("}\n") and result.stdout.count("\n") == 1
    assert result.stderr
    described = json.loads(result.stdout)
    assert described["exit_code"] == exit_code
    return described


def test_what_was_written(good: Path) -> None:
    output = good.parent / "net.onnx"
    described = found("compile", good, "-o", output)
    assert described["files"] == [{"path": str(output), "bytes": output.stat().st_size}]
    assert described["initial_weights"] is True
    assert described["model"] == "net"
    x = good.parent / "x.npy"
    np.save(x, np.zeros((2, 4), np.float32))
    described = found("run", output, "-i", f"x={x}", "-o", good.parent / "out.npz")
    assert [x["name"] for x in described["outputs"]] == ["probabilities", "best"]
    assert described["outputs"][0]["type"] == "f32[2, 3]"
    assert len(described["files"]) == 1


def test_graphs_passes_and_options(good: Path) -> None:
    assert "stem.weight : f32[4, 8]" in found("show", good)["text"]
    assert list(found("show", "--list-passes")["passes"]) == list(PASSES)
    source = good.read_text() + "from dsl import option\nn = option((1, 2), help='several')\n"
    (described,) = found("show", written(good.parent, source), "--options")["options"]
    assert described["name"] == "n"
    assert described["value"] == described["default"] == [1, 2]
    assert described["help"] == "several"


def test_arguments_that_no_command_begins_with(good: Path) -> None:
    for arguments, part in (
        (("compile", good, "--what"), "--what"),
        (("train", good, "--seed", "abc"), "'--seed'"),
        (("compile", "--to", "step"), "FILE"),
    ):
        assert part in found(*arguments, exit_code=2)["error"]["message"]


def test_a_learning_rate_and_a_table_of_errors(good: Path) -> None:
    described = found("lr-find", good, "--steps", 5)
    assert described["metric"] == "loss"
    assert len(described["rates"]) == len(described["losses"]) == 5
    described = found("verify", good, "--quick")
    assert described["agrees"] is True
    assert described["faults"] == []
    assert any(described["errors"].values())


def test_findings_of_a_check_that_fails(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    findings = [Finding("a", True, "fine"), Finding("b", False, "wrong", ("at x",))]
    monkeypatch.setattr("nncompile.cli.check.findings", lambda *_: iter(findings))
    described = found("check", good, exit_code=1)
    assert [(x["what"], x["holds"]) for x in described["findings"]] == [("a", True), ("b", False)]
    assert described["findings"][1]["details"] == ["at x"]


def test_a_mistake_is_an_object_too(good: Path) -> None:
    source = good.read_text().replace('"loss"', "1 / 0")
    error = found("show", written(good.parent, source), exit_code=2)["error"]
    assert error["type"] == "ModelError"
    assert error["message"] == "ZeroDivisionError: division by zero"
    assert error["file"].endswith("net.py")
    assert error["line"] == 11
    assert found("show", good, "--pass", "gem", exit_code=2)["error"]["hint"]


def test_an_interrupt_ends_any_command(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("nncompile.cli.check.findings", interrupted)
    assert found("check", good, exit_code=130)["error"]["type"] == "KeyboardInterrupt"


def test_numbers_that_json_lacks_are_null() -> None:
    x = {"a": np.float32([1, np.nan]), "b": float("inf"), "c": (np.int64(3), Path("d"), None, True)}
    assert as_json(Outcome(x, 1)) == (
        '{"exit_code": 1, "a": [1.0, null], "b": null, "c": [3, "d", null, true]}'
    )


def test_text_without_json_is_on_the_standard_output(good: Path) -> None:
    found("show", good)
    result = run("show", good)
    assert result.stdout.startswith("net\n")
    assert result.stderr == ""


def test_the_version() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout == f"nncompile {nncompile.__version__}\n"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == nncompile.__version__


def test_every_command_has_json_and_debug() -> None:
    for command in app.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        assert {"--json", "--debug"} <= set(run(name, "--help").stdout.split()), name


@pytest.mark.parametrize(
    ("args", "suggestion"),
    [
        (("trian",), "Did you mean 'train'?"),
        (("train", "x.py", "--epoch", "3"), "--epochs"),
        (("show", "x.py", "--stage", "grad"), "gradient"),
        (("compile",), "Usage: nncompile compile"),
    ],
)
def test_mistakes_of_arguments_suggest(args: tuple[str, ...], suggestion: str) -> None:
    result = run(*args)
    assert result.exit_code == 2
    assert suggestion in result.output


@pytest.mark.parametrize(
    ("name", "meant"), [("gpu", "cuda"), ("NVIDIA", "cuda"), ("mps", "coreml")]
)
def test_a_provider_by_the_name_of_the_device(good: Path, name: str, meant: str) -> None:
    error = found("train", good, "--provider", name, exit_code=2)["error"]
    assert error["hint"] == f"did you mean {meant!r}?"


def test_a_metric_that_is_none_is_told_before_a_run(good: Path) -> None:
    output = good.parent / "run"
    error = found("train", good, "-o", output, "--monitor", "val_los", exit_code=2)["error"]
    assert error["hint"] == "did you mean 'val_loss'?"
    assert not output.exists()


def test_a_shell_completes_commands_and_options() -> None:
    def completed(words: str) -> str:
        asked = {"_NNCOMPILE_COMPLETE": "complete_bash", "COMP_WORDS": words}
        asked["COMP_CWORD"] = str(len(words.split()) - 1)
        return CliRunner().invoke(app, [], prog_name="nncompile", env=asked).stdout

    assert completed("nncompile comp").split() == ["compile"]
    assert "--external-data" in completed("nncompile compile --ext")
