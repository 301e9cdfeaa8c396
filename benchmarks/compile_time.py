"""From a model file to a ready session, and how compile time grows with depth."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dsl import Dense, Residual, f32, mean, model, sgd, tanh, training
from nncompile.backends.onnx import to_model
from nncompile.passes import optimize
from nncompile.program.composition import compose
from nncompile.program.recipe import Recipe

DEPTHS = (250, 500, 1000, 2000)

_IMPORT = "import time; t = time.perf_counter(); import nncompile; print(time.perf_counter() - t)"

_READY = """
import time; t = time.perf_counter()
from nncompile.compiler.compile import compile_step
from nncompile.program.model_file import load
step = compile_step(load({file!r}).recipe)
step.runner(step.source.initial())
print(time.perf_counter() - t)
"""


@dataclass(frozen=True)
class Depth:
    """Seconds of each stage for a residual perceptron of that many layers."""

    layers: int
    nodes: int
    build: float
    differentiate: float
    optimize: float
    lower: float

    @property
    def total(self) -> float:
        return self.build + self.differentiate + self.optimize + self.lower


def import_seconds() -> float:
    """`import nncompile` in a fresh interpreter, the best of three."""
    return min(_fresh(_IMPORT) for _ in range(3))


def ready_seconds(file: str) -> float:
    """A model file to a session that is ready to train, in a fresh interpreter with all of its
    imports; the best of three."""
    return min(_fresh(_READY.format(file=file)) for _ in range(3))


def _fresh(code: str) -> float:
    run = [sys.executable, "-c", code]
    # Installed packages have their bytecode beside them, whatever this shell says of new one.
    kept = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    kept["NNCOMPILE_CACHE"] = "off"  # what is measured is compiled
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=kept)
    return float(done.stdout)


def depth(layers: int) -> Depth:
    """Compiles the training step of that many layers."""
    recipe, build = _timed(lambda: _residual(layers))
    step, differentiate = _timed(lambda: compose(recipe).step)
    optimized, passes = _timed(lambda: optimize(step))
    # As a training runner does: with one way to sum, for batches of the usual sizes.
    onnx_model, lower = _timed(lambda: to_model(optimized, bounds={}))
    nodes = len(onnx_model.graph.node)
    return Depth(layers, nodes, build, differentiate, passes, lower)


def _residual(layers: int) -> Recipe:
    @model
    def deep(x: Any = f32["batch", 16]) -> dict[str, Any]:
        y = x
        for i in range(layers):
            y = y >> Residual(Dense(16, tanh, name=f"dense{i}"), name=f"block{i}")
        return {"y": y, "loss": mean(y * y)}

    return training(deep, minimize="loss", optimizer=sgd(0.01))


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = call()
    return result, time.perf_counter() - start
