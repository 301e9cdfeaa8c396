"""Inference: our TorchScript and our ONNX file against the module written by hand in torch."""

from __future__ import annotations

import io
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch

from benchmarks.measure import interleaved
from benchmarks.peers import copy_parameters
from benchmarks.workloads import WORKLOADS, Workload
from nncompile import export
from nncompile.compiler.compile import compile_step

NAMES = ("mlp-64-64-64-10", "mlp-784-256-128-10", "lenet", "resnet-20", "gpt")
TARGET = 0.95


@dataclass(frozen=True)
class Inference:
    """Medians over the rounds, in milliseconds a batch: `ratios` are torch's time by ours."""

    workload: str
    batch: int
    threads: int
    peer: str
    peer_ms: float
    torchscript_ms: float
    onnx_ms: float
    torchscript_ratio: float
    torchscript_quartiles: tuple[float, float]
    onnx_ratio: float
    target: float = TARGET


def inferences(only: str = "") -> list[Workload]:
    """The workloads whose inference is measured, one of each name that has `only` in it."""
    named = {w.name: w for w in WORKLOADS if w.name in NAMES and only in w.name}
    return [named[name] for name in NAMES if name in named]


def measure_inference(workload: Workload, threads: int = 1) -> Inference:
    """Raises `AssertionError` where the three compute different logits."""
    step = compile_step(workload.recipe())
    state = step.source.initial()
    batch = workload.batches(1)[0]
    calls = [
        _peer(workload, state, batch, threads),
        _torchscript(step.source.recipe, state, batch),
        _onnx(step.source.recipe, state, batch, threads),
    ]
    expected, *others = [np.asarray(call()) for call in calls]
    for found in others:
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    rounds = interleaved([[call] for call in calls])
    peer, script, onnx = (statistics.median(times) for times in rounds)
    low, _, high = statistics.quantiles([a / b for a, b in zip(*rounds[:2], strict=True)], n=4)
    name = f"torch {torch.__version__} eager, hand-written"
    milliseconds = (peer * 1e3, script * 1e3, onnx * 1e3)
    return Inference(
        workload.name,
        workload.batch,
        threads,
        name,
        *milliseconds,
        peer / script,
        (low, high),
        peer / onnx,
    )


def _peer(workload: Workload, state: Any, batch: Any, threads: int) -> Callable[[], Any]:
    torch.set_num_threads(threads)
    network = workload.peer().eval()
    copy_parameters(network, state)
    x = torch.from_numpy(batch["x"])
    return _without_grad(lambda: network(x))


def _torchscript(recipe: Any, state: Any, batch: Any) -> Callable[[], Any]:
    with tempfile.TemporaryDirectory() as directory:
        (file,) = export(recipe, Path(directory) / "model.pt", to="torchscript", params=state)
        network = torch.jit.load(io.BytesIO(file.read_bytes()))
    x = torch.from_numpy(batch["x"])
    return _without_grad(lambda: network(x)["logits"])


def _onnx(recipe: Any, state: Any, batch: Any, threads: int) -> Callable[[], Any]:
    with tempfile.TemporaryDirectory() as directory:
        (file,) = export(recipe, Path(directory) / "model.onnx", params=state)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(["logits"], {"x": batch["x"]})[0]


def _without_grad(call: Callable[[], Any]) -> Callable[[], Any]:
    def called() -> Any:
        with torch.inference_mode():
            return call()

    return called
