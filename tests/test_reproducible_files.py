"""Equal runs give equal files, byte by byte, whatever the hashes of Python are."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

PROGRAM = """
import sys
from pathlib import Path
import numpy as np
from dsl import BatchNorm, Conv2d, Dense, Dropout, accuracy, adamw, cross_entropy, f32, flatten
from dsl import gelu, i64, model, relu, softmax, training
from nncompile import Trainer, export
from nncompile.runtime import write_arrays

@model
def net(image=f32["batch", 1, 8, 8], label=i64["batch"]):
    h = image >> Conv2d(4, 3, name="conv") >> BatchNorm(name="norm") >> relu >> flatten
    logits = h >> Dropout(0.1) >> Dense(8, gelu, name="stem") >> Dense(3, name="head")
    return {
        "logits": logits,
        "probabilities": softmax(logits),
        "loss": cross_entropy(logits, label),
        "accuracy": accuracy(logits, label),
    }

recipe = training(net, minimize="loss", optimizer=adamw(1e-3), batch_size=4)
directory = Path(sys.argv[1])
random = np.random.default_rng(0)
data = {"image": random.normal(size=(8, 1, 8, 8)).astype(np.float32)}
trainer = Trainer(recipe)
trainer.fit({**data, "label": random.integers(0, 3, 8)}, epochs=1, verbose=0)
trainer.save(directory / "checkpoint.safetensors")
write_arrays(directory / "outputs.npz", trainer.predict(data))
for target in sys.argv[2:]:
    export(recipe, directory / target, to=target, params=trainer.state)
export(recipe, directory / "outer", params=trainer.state, external_data=True)
"""
TARGETS = ("onnx", "step", "gradient", "update")
TORCH_TARGETS = ("torchscript", "torchscript-step", "pt2")


def test_equal_runs_give_equal_files(tmp_path: Path) -> None:
    targets = (*TARGETS, *(TORCH_TARGETS if find_spec("torch") is not None else ()))
    found: list[dict[str, bytes]] = []
    for seed in "01":
        directory = tmp_path / f"directory {seed}"  # whose name must not be in a file
        directory.mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONWARNINGS": "ignore"}
        subprocess.run(
            [sys.executable, "-c", PROGRAM, directory, *targets], env=environment, check=True
        )
        found.append({file.name: file.read_bytes() for file in directory.iterdir()})
    assert len(found[0]) == len(targets) + 5  # the state of the step, and external weights
    assert found[0].keys() == found[1].keys()
    assert [name for name in found[0] if found[0][name] != found[1][name]] == []
    for content in found[0].values():
        assert b"directory 0" not in content
