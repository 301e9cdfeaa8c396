"""The examples, trained as a user trains them."""

from __future__ import annotations

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import onnxruntime

from nncompile.compiler.export import export
from nncompile.program.model_file import Data, Declared, load
from nncompile.train import Trainer

EXAMPLES = Path(__file__).parent.parent / "examples"
PLAIN = """
import json, sys
import numpy as np, onnxruntime
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
images = np.load(sys.argv[2])
found = {}
for count in (1, 7, len(images)):
    logits = session.run(["logits"], {"image": images[:count]})[0]
    found[count] = logits.argmax(-1).tolist()
assert not {"nncompile", "dsl", "torch"} & sys.modules.keys()
print(json.dumps(found))
"""


@cache
def trained(name: str) -> tuple[Trainer, Declared]:
    """A trainer that has trained the example's recipe on its data. It is one for all tests of a
    process, which let it be as it is."""
    declared = load(EXAMPLES / f"{name}.py")
    trainer = Trainer(declared.recipe)
    trainer.fit(data_of(declared).train)
    return trainer, declared


def data_of(declared: Declared) -> Data:
    assert declared.data is not None
    return declared.data


def held_out(declared: Declared) -> dict[str, np.ndarray]:
    """The data that are held out."""
    data = data_of(declared).validation
    assert data is not None
    return data


def measured(trainer: Trainer, declared: Declared) -> dict[str, float]:
    """The metrics on the held-out data, or on all data where none are held out."""
    data = data_of(declared)
    return trainer.evaluate(data.validation or data.train)


def exported(
    trainer: Trainer, declared: Declared, directory: Path
) -> tuple[Path, onnxruntime.InferenceSession]:
    """The exported inference model, and a plain session of it."""
    path = directory / f"{declared.path.stem}.onnx"
    export(declared.recipe, path, params=trainer.state)
    return path, onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def recognised(path: Path, images: np.ndarray) -> dict[int, list[int]]:
    """What a process of its own, with onnxruntime alone, recognises in the first image, the first
    7 and all of them."""
    file = path.with_suffix(".npy")
    np.save(file, images)
    run = subprocess.run(
        [sys.executable, "-c", PLAIN, path, file], capture_output=True, text=True, check=True
    )
    return {int(count): found for count, found in json.loads(run.stdout).items()}
