"""`nncompile serve`, as clients of others see it."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from dsl import Dense, adam, f32, i64, model, relu, softmax, training
from dsl import cross_entropy as loss_of
from nncompile.compiler.compile import compile_step
from nncompile.compiler.export import export
from nncompile.runtime import StepRunner, load_state
from tests.command_line import GOOD, fails

http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(16, 4)).astype(np.float32)
LABEL = X[:, :3].argmax(1)


@model(predict="probabilities")
def net(x=f32["batch", 4], label=i64["batch"]):
    logits = x >> Dense(8, relu) >> Dense(3)
    return {"probabilities": softmax(logits), "loss": loss_of(logits, label)}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[tuple[Any, subprocess.Popen[str]]]:
    """A client of a server of the model and its training step, and its process."""
    recipe = training(net, optimizer=adam(1e-2), batch_size=16)
    export(recipe, tmp_path / "net.onnx", seed=0)
    export(compile_step(recipe), tmp_path / "step.onnx", "step")
    files = [str(tmp_path / name) for name in ("net.onnx", "step.onnx")]
    options = ["--port", "0", "--threads", "1", "--save", str(tmp_path / "saved.safetensors")]
    process = subprocess.Popen(
        [sys.executable, "-m", "nncompile", "serve", *files, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    try:
        line = next((text for text in process.stdout if "serving on" in text), "")
        yield http.InferenceServerClient(line.split("//")[1].split(",")[0]), process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def tensors(*, binary: bool = True, **arrays: np.ndarray) -> list[Any]:
    made = []
    for name, array in arrays.items():
        datatype = {"float32": "FP32", "int64": "INT64"}[array.dtype.name]
        made.append(http.InferInput(name, list(array.shape), datatype))
        made[-1].set_data_from_numpy(array, binary_data=binary)
    return made


def test_tritonclient_predicts_and_trains(
    served: tuple[Any, subprocess.Popen[str]], tmp_path: Path
) -> None:
    client, process = served
    assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("net")
    assert client.get_model_metadata("step")["outputs"][0]["name"] == "loss"
    plain = onnxruntime.InferenceSession(tmp_path / "net.onnx")
    expected = plain.run(None, {"x": X})[0]
    for binary in (True, False):
        wanted = [http.InferRequestedOutput("probabilities", binary_data=binary)]
        result = client.infer("net", tensors(binary=binary, x=X), outputs=wanted, request_id="7")
        np.testing.assert_allclose(result.as_numpy("probabilities"), expected, rtol=1e-6)
        assert result.get_response()["id"] == "7"
    with pytest.raises(Exception, match=r"\[400\] input 'x' has size 3 on axis 1, not 4"):
        client.infer("net", tensors(x=X[:, :3].copy()))

    losses = [
        client.infer("step", tensors(x=X, label=LABEL)).as_numpy("loss").item() for _ in range(4)
    ]
    runner = StepRunner(str(tmp_path / "step.onnx"), threads=1)
    for loss in losses:
        runner.step({"x": X, "label": LABEL})
        assert runner.metrics()["loss"].item() == loss
    client.close()
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None and process.stdout.read() == "stopped\n"
    assert process.wait(20) == 0
    for name, x in load_state(tmp_path / "saved.safetensors")[0].items():
        np.testing.assert_array_equal(x, runner.state()[name])


def test_who_is_in_a_hurry_reads_no_traceback(
    served: tuple[Any, subprocess.Popen[str]], tmp_path: Path
) -> None:
    """Also while a client sends its request."""
    client, process = served
    host, port = client._parsed_url.host, client._parsed_url.port
    with socket.create_connection((host, port)) as slow:
        slow.sendall(b"POST /v2/models/net/infer HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{")
        assert client.is_server_live()
        for _ in range(2):
            process.send_signal(signal.SIGINT)
            time.sleep(0.1)
        assert process.stdout is not None and process.stdout.read() == "stopped\n"
    assert process.wait(20) == 0
    assert (tmp_path / "saved.safetensors").exists()
    client.close()


def test_a_port_in_use_is_told_in_a_line(tmp_path: Path) -> None:
    file = export(net, tmp_path / "net.onnx", seed=0)[0]
    with socket.create_server(("127.0.0.1", 0)) as other:
        printed = fails("serve", file, "--port", other.getsockname()[1])
    assert "cannot listen on port" in printed and "it is in use" in printed


@pytest.mark.parametrize("package", ["fastapi", "uvicorn", "prometheus_client"])
def test_what_is_not_installed_is_told(
    package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [n for n in sys.modules if n.startswith("nncompile.serving.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    printed = fails("serve", tmp_path / "net.onnx")
    assert f"needs {package}, which is not installed" in printed
    assert "pip install 'nncompile[serve]'" in printed


def test_mistakes_on_the_command_line(tmp_path: Path) -> None:
    file = export(net, tmp_path / "net.onnx", seed=0)[0]
    assert "those of one training step" in fails("serve", file, "--save", tmp_path / "a")
    step = export(
        compile_step(training(net, optimizer=adam(1e-2))), tmp_path / "step.onnx", "step"
    )[1]
    (tmp_path / "file").write_text("")
    assert "cannot write" in fails("serve", step, "--save", tmp_path / "file" / "a")
    assert "two files are named net" in fails("serve", file, file)
    assert "--name is that of one model" in fails("serve", file, file, "--name", "a")
    model_file = tmp_path / "net.py"
    model_file.write_text(GOOD)
    assert "compile it first" in fails("serve", model_file)
    assert "no such file" in fails("serve", tmp_path / "other.onnx")
