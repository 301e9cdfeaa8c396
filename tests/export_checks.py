"""A recipe to export, and exported files run by onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnxruntime

from nncompile.optim import adam
from nncompile.program.recipe import Recipe, training
from tests.small_models import perceptron


def recipe(**options: Any) -> Recipe:
    options = {"optimizer": adam(1e-2), "batch_size": 16, **options}
    return training(perceptron(drop=0.5), **options)


def session(path: Path) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def run(path: Path, feeds: dict[str, Any]) -> dict[str, Any]:
    """What the file computes of those of the feeds that it has inputs for."""
    loaded = session(path)
    needed = {i.name: feeds[i.name] for i in loaded.get_inputs()}
    names = [o.name for o in loaded.get_outputs()]
    return dict(zip(names, loaded.run(names, needed), strict=True))
