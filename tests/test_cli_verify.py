"""The command `nncompile verify`."""

from __future__ import annotations

from pathlib import Path

import pytest

from nncompile.ops.reduction.softmax import Softmax
from tests.command_line import GOOD, fails, line, run, succeeds, written


def test_the_command(good: Path) -> None:
    text = succeeds("verify", good, "--quick")
    assert text.startswith("net: largest error against numpy in float64")
    assert "rows of the data" not in text
    assert text.rstrip().endswith("all agree")


def test_the_command_fails_where_a_backend_mismatches(
    good: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Softmax.onnx
    monkeypatch.setattr(Softmax, "onnx", lambda self, o, x: right(self, o, o.Neg(x)))
    result = run("verify", good, "--quick", "--seed", 3)
    assert result.exit_code == 1, result.output
    assert "onnxruntime none, 1 thread and 1 more: forward mismatches" in result.stdout
    assert "softmax(" in result.stdout
    assert line("softmax(logits)") in result.stdout
    assert f"nncompile verify {good} --seed 3 --quick" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sizes", "batch"], "is not NAME=N,NAME=N"),
        (["--sizes", "batch=x"], "is not NAME=N,NAME=N"),
        (["--sizes", "time=3"], "has no size 'time'"),
    ],
)
def test_mistakes_of_the_command(good: Path, options: list[str], message: str) -> None:
    assert message in fails("verify", good, *options)


def test_the_command_takes_a_model_alone(tmp_path: Path) -> None:
    source = GOOD.partition("recipe = ")[0]
    assert "all agree" in succeeds("verify", written(tmp_path, source), "--quick")
