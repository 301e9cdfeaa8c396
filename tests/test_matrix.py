"""The matrix that `make matrix` and the CI workflow run."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests import matrix
from tests.matrix import Cell, cells, interpreter, main


def test_every_python_meets_both_runtimes_with_and_without_torch() -> None:
    pythons = {cell.python for cell in cells()}
    assert {"3.11", "3.12", "3.13"} <= pythons
    assert len(cells()) == len(set(cells())) == 4 * len(pythons)


def test_the_oldest_runtime_is_the_lower_bound_of_the_project() -> None:
    project = (matrix.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    old, new = (Cell("3.11", which, torch=True) for which in ("oldest", "newest"))
    torch, *oldest = old.requirements()
    for requirement in oldest:
        assert f'"{requirement.replace("==", ">=").removesuffix(".0")}"' in project
    assert len(oldest) == 2  # onnx, too
    assert f'"{torch}"' in project
    assert new.requirements() == [torch]
    assert Cell("3.11", "newest", torch=False).requirements() == []


def test_cells_are_printed_for_the_workflow(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--cells", "--python", "3.12", "--no-torch"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"python": "3.12", "onnxruntime": which, "torch": False} for which in ("oldest", "newest")
    ]
    workflow = (matrix.ROOT / ".github" / "workflows" / "test.yml").read_text(encoding="utf-8")
    assert "python -m tests.matrix --cells" in workflow
    assert "fromJSON(needs.cells.outputs.cells)" in workflow


def test_pythons_are_found_or_told_to_be_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    assert interpreter(own) is not None
    assert interpreter("3.0") is None
    monkeypatch.setattr(matrix, "WHERE", tmp_path / "cells")
    monkeypatch.setattr(matrix, "interpreter", lambda version: None)
    assert main(["--python", "3.12", "--onnxruntime", "newest", "--torch"]) == 1
    out = capsys.readouterr().out
    assert "absent  3.12-newest-torch" in out
    assert "0 of 1 cells passed" in out


def test_a_set_up_that_fails_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first command is Python's own, and says what is wrong in the log."""
    monkeypatch.setattr(matrix, "WHERE", tmp_path / ".matrix")
    monkeypatch.setattr(matrix, "ROOT", tmp_path)
    monkeypatch.setattr(matrix, "cells", lambda: [Cell("3.11", "newest", torch=False)])
    monkeypatch.setattr(matrix, "interpreter", lambda version: sys.executable)
    monkeypatch.setattr(matrix, "_pythons", lambda: ["3.11"])
    (tmp_path / "pyproject.toml").write_text("[project]\n", encoding="utf-8")
    (tmp_path / ".matrix").mkdir()
    (tmp_path / ".matrix" / "3.11-newest-bare").write_text("in the way", encoding="utf-8")
    assert main([]) == 1
    out = capsys.readouterr().out
    assert "FAILED  3.11-newest-bare" in out
    assert "set-up failed: .matrix/3.11-newest-bare.log" in out
    assert (tmp_path / ".matrix" / "3.11-newest-bare.log").read_text(encoding="utf-8")
