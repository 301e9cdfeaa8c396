"""`nncompile doctor`: what it says of this installation, and that it sees what is wrong."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import numpy as np
import pytest

from nncompile.diagnostics.errors import ProviderError
from nncompile.runtime import StepRunner, available_providers
from nncompile.verify import doctor
from tests.command_line import run
from tests.test_cli_json import found
from tests.test_docs import ROOT


def finding(what: str) -> Any:
    return next(x for x in doctor.examine() if x.what == what)


def test_this_installation_is_well() -> None:
    described = {x["what"]: x for x in found("doctor")["findings"]}
    assert all(x["holds"] is not False for x in described.values())
    assert {*doctor.NEEDED, "python", "torch", "provider cpu", "training"} <= {*described}
    assert re.fullmatch(r"3 steps differ .* [\d.]+e-\d\d", described["training"]["figures"])


def test_what_is_needed_is_what_the_project_says() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = dict((*re.split(">=", x), "0")[:2] for x in project["dependencies"])
    assert needed == doctor.NEEDED


@pytest.mark.parametrize(
    ("changed", "wrong", "says"),
    [
        ({"numpy": "1.26.4"}, "numpy", "pip install --upgrade 'numpy>=2'"),
        ({"onnxruntime": "1.22.1"}, "onnxruntime", "needs 1.23"),
        ({"onnx": "1.19.0"}, "onnx", "needs 1.20"),
        (
            {"onnxruntime-gpu": "1.32.0"},
            "wheels of onnxruntime",
            "pip uninstall onnxruntime onnxruntime-gpu",
        ),
    ],
)
def test_wheels_that_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, changed: dict[str, str], wrong: str, says: str
) -> None:
    installed = doctor._installed()
    monkeypatch.setattr(doctor, "_installed", lambda: installed | changed)
    monkeypatch.setattr(doctor, "available_providers", lambda: ())
    result = run("doctor")
    assert result.exit_code == 1
    assert f"FAIL  {wrong}: " in result.stdout
    assert says in result.stdout
    assert result.stdout.endswith(f"wrong: {wrong}\n")


def test_a_runtime_of_another_wheel_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {k: v for k, v in doctor._installed().items() if k != "onnxruntime"}
    installed["onnxruntime-gpu"] = "1.30.0"
    monkeypatch.setattr(doctor, "_installed", lambda: installed)
    assert finding("onnxruntime").figures == "1.30.0"
    assert finding("wheels of onnxruntime").holds is True


def test_the_libraries_of_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = {"onnxruntime-gpu": "1.31.1", "nvidia-cudnn-cu13": "9.24"}
    monkeypatch.setattr(doctor, "_installed", lambda: gpu)
    assert finding("libraries of CUDA").figures == "nvidia-cudnn-cu13 9.24"
    monkeypatch.setattr(doctor, "_installed", lambda: {"onnxruntime-gpu": "1.31.1"})
    assert "onnxruntime-gpu[cuda,cudnn]" in finding("libraries of CUDA").details[0]


def test_tensorrt_is_tried_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "find_library", lambda name: None)
    missing = doctor._without_tensorrt({}, "tensorrt")
    assert missing is not None and missing.holds is None
    assert doctor._without_tensorrt({"tensorrt-cu13": "10"}, "tensorrt") is None
    assert doctor._without_tensorrt({}, "cuda") is None


def test_a_provider_that_does_not_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(_: object, provider: str) -> None:
        if provider == "cpu":
            raise ProviderError("provider 'cpu' did not start", hint="check its driver")

    monkeypatch.setattr(doctor, "_predict", predict)
    found = finding("provider cpu")
    assert found.holds is False
    assert found.details == ("provider 'cpu' did not start", "check its driver")


def test_a_provider_that_must_be_there() -> None:
    found = next(f for f in doctor.examine("cuda") if f.what == "provider cuda")
    if "cuda" not in available_providers():
        assert found.holds is False
        assert "this onnxruntime has no provider 'cuda'" in found.details[0]
        assert "pip install onnxruntime-gpu" in found.details[1]
    assert not [f for f in doctor.examine("cpu") if f.what == "provider cuda"]


def test_steps_that_are_not_those_of_numpy(monkeypatch: pytest.MonkeyPatch) -> None:
    states = StepRunner.state

    def state(runner: StepRunner) -> dict[str, np.ndarray]:
        return {path: x + x.dtype.type(1) for path, x in states(runner).items()}

    monkeypatch.setattr(StepRunner, "state", state)
    assert finding("training").holds is False
