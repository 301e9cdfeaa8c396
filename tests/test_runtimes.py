"""Other runtimes: what was found of them is on the page, and the program that finds it works."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.runtimes import files, one
from tests.runtimes.page import PAGE, reason, results, text


def test_the_page_has_what_was_found() -> None:
    page = PAGE.read_text("utf-8")
    assert page == text(page, results()), "python -m tests.runtimes writes it"


def test_every_runtime_was_tried_on_models_and_steps() -> None:
    found = results()
    assert {*found["results"]} == {*one.RUNTIMES}
    assert {*found["versions"]} == {*one.RUNTIMES, "onnxruntime"}
    for runtime, cases in found["results"].items():
        for kind in ("model", "step"):
            assert sum(name.endswith(f".{kind}") for name in cases) > 30, (runtime, kind)


def test_reasons_are_told_in_words() -> None:
    missing = "Converter is not implemented (OperationDescription(operation_type='If', version=16))"
    assert reason({"error": f"NotImplementedError: {missing}"}) == "no `If`"
    assert reason({"error": "KeyError: 'conv.weight'"}) == "`Conv` of weights that are inputs"
    assert reason({"error": "SomeError: of a | kind"}) == "SomeError"
    assert reason({"difference": 2e-3}) == "other numbers"
    assert reason({"difference": 1e-6}) is None


def test_the_state_goes_on_from_step_to_step() -> None:
    """And what differs in a later one is seen."""
    case = {
        **{"inputs": ["w", "x"], "outputs": ["loss", "w.next"], "state": {"w": "w.next"}},
        **{"batch": ["x"], "compared": ["loss"], "runs": 3},
    }
    arrays = {"state:w": np.array(1.0)}
    for i in range(3):
        arrays |= {f"{i}:x": np.array(2.0), f"{i}:=loss": np.array(2.0 ** (i + 1))}

    def run(rate: float) -> one.Run:
        return lambda feeds: [feeds["w"] * feeds["x"], feeds["w"] * rate]

    assert one.largest_difference(case, run(2.0), arrays) == 0
    assert one.largest_difference(case, run(2.2), arrays) == pytest.approx(0.21)
    assert one.largest_difference(case, run(np.nan), arrays) == np.inf


def test_the_reference_of_onnx_trains_as_onnxruntime_does(tmp_path: Path) -> None:
    files.write("xor", tmp_path, 21)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    (tmp_path / "broken.json").write_text("{}")
    command = [sys.executable, one.__file__, "onnx.reference", str(tmp_path), "60"]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    version, broken, model, step = map(json.loads, printed.splitlines())
    assert version["version"]
    assert "error" in broken
    assert [x["file"] for x in (model, step)] == ["xor.model", "xor.step"]
    assert max(x["difference"] for x in (model, step)) < 1e-5
