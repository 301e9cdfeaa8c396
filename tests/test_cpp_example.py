"""The C++ example: built with the compiler at hand, it trains as Python does."""

from __future__ import annotations

import runpy
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "cpp"
EPOCHS, BATCH = 2, 64


def done(*command: object) -> str:
    result = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False)
    assert result.returncode == 0, f"{result.stdout}\n{result.stderr}"
    return result.stdout


@pytest.mark.skipif(
    shutil.which("cmake") is None or not any(map(shutil.which, ("c++", "g++", "clang++"))),
    reason="cmake and a C++ compiler build the example",
)
def test_cpp_trains_as_python_does(torchscript: SimpleNamespace, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    torch = torchscript.torch
    runpy.run_path(str(EXAMPLE / "prepare.py"))["prepare"](tmp_path)
    done(
        "cmake",
        "-S",
        EXAMPLE,
        "-B",
        tmp_path,
        f"-DTORCH={Path(torch.__file__).parent}",
    )
    done("cmake", "--build", tmp_path)
    step, data, out = (tmp_path / n for n in ("digits.step.pt", "digits.bin", "trained.step.pt"))
    printed = done(tmp_path / "train_digits", step, data, out, EPOCHS).splitlines()

    raw = data.read_bytes()
    count, _, height, width = np.frombuffer(raw, np.int64, 4)
    pixels = int(count * height * width)
    images = np.frombuffer(raw, np.float32, pixels, 32).reshape(count, 1, height, width)
    labels = np.frombuffer(raw, np.int64, int(count), 32 + 4 * pixels)
    digits = torch.from_numpy(images.copy()), torch.from_numpy(labels.copy())
    module = torch.jit.load(step)
    module.reset(0)
    torch.manual_seed(0)
    for _ in range(EPOCHS):
        for rows in torch.randperm(int(count)).split(BATCH):
            metrics = module.train_step(*(x[rows] for x in digits))
    trained = torch.jit.load(out)
    steps = EPOCHS * -(-int(count) // BATCH)
    assert trained.step == steps
    for path, x in module.get_state().items():
        assert torch.allclose(trained.get_state()[path], x, rtol=1e-5, atol=1e-6), path
    assert metrics["loss"] < 1.0
    assert [line.split()[:2] for line in printed[:2]] == [["epoch", "1"], ["epoch", "2"]]
    assert printed[-1].startswith(f"saved after {steps} steps; read again: held out accuracy 0.")
    wrong = subprocess.run([tmp_path / "train_digits", data, data, out], capture_output=True)
    assert wrong.returncode == 1 and wrong.stderr
