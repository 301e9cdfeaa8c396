"""A training step of an ONNX file that was loaded, against that of the same network as it is
written in the language."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Effort, Turn, interleaved
from benchmarks.networks import sizes
from benchmarks.peers.base import installed
from benchmarks.peers.torch_eager import NETWORKS, module_of
from benchmarks.recipes import OPTIMIZERS, recipe_of
from benchmarks.workloads import Array, Batch, Workload, numbers, padded
from dsl import cross_entropy, f32, i64, model
from nncompile import export, load_onnx, training
from nncompile.compiler.compile import CompiledStep, compile_step
from nncompile.program.model import Model

TARGET = 1.03
_EFFORT = Effort(rounds=61, seconds=10.0)
_BATCHES = 5


@dataclass(frozen=True)
class ImportedRow:
    """Medians over the rounds, in milliseconds a step: `ratio` is that of the file by that of the
    network; the nodes of the two steps."""

    workload: str
    batch: int
    threads: int
    source: str
    native_ms: float
    imported_ms: float
    ratio: float
    quartiles: tuple[float, float]
    native_nodes: int
    imported_nodes: int
    target: float = TARGET


@dataclass(frozen=True)
class _Case:
    workload: Workload
    imported: Callable[[Path], Model]  # the model of a file, with a loss
    sources: tuple[str, ...]  # what writes the file


def _images(file: Path) -> Model:
    base = load_onnx(file)

    @model
    def net(x: Any = f32["batch", 3, 32, 32], label: Any = i64["batch"]) -> dict[str, Any]:
        logits = base(x)["logits"]
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return net


def _texts(file: Path) -> Model:
    base, shape = load_onnx(file), ("batch", sizes.SENTENCE)

    @model
    def net(x: Any = i64[shape], mask: Any = i64[shape], label: Any = i64["batch"]) -> Any:
        logits = base(x, mask)["logits"]
        return {"logits": logits, "loss": cross_entropy(logits, label)}

    return net


CASES = (
    # What we export for inference has its batch normalizations within the convolutions.
    _Case(
        Workload(
            *("resnet-18", 16, "sgd", "resnet", numbers(3, 32, 32, classes=10)),
            {"stages": sizes.SLIM_18, "depth": sizes.DEPTH_18},
            checked=3,
        ),
        _images,
        ("torch",),
    ),
    _Case(
        Workload("encoder", 16, "adam", "encoder", padded),
        _texts,
        ("torch", "nncompile"),
    ),
)


def measure_imported(threads: int = 1, only: str = "") -> list[ImportedRow]:
    """Raises `AssertionError` where a file and its network have different losses."""
    return [
        _measure(case, source, threads)
        for case in CASES
        if only in case.workload.name
        for source in case.sources
    ]


def _measure(case: _Case, source: str, threads: int) -> ImportedRow:
    workload = case.workload
    native = compile_step(recipe_of(workload))
    state = native.source.initial()
    batches = workload.batches(_BATCHES)
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "model.onnx"
        if source == "torch":
            _export_by_torch(workload, state, batches[0], file)
        else:
            export(native.source.recipe, file, params=state)
        net = case.imported(file)
    optimizer = OPTIMIZERS[workload.optimizer](workload.learning_rate)
    recipe = training(net, minimize="loss", optimizer=optimizer, batch_size=workload.batch)
    steps = (native, compile_step(recipe))
    _check_equal(workload, steps, batches, threads)
    runners = [step.runner(threads=threads) for step in steps]
    calls = [[partial(runner.step, batch) for batch in batches] for runner in runners]
    timings = interleaved({str(i): Turn(side) for i, side in enumerate(calls)}, _EFFORT)
    mine, theirs = (1e3 * timing.median for timing in timings.values())
    middle, quartiles = timings["1"].ratio(timings["0"])
    nodes = (len(step.step_model.graph.node) for step in steps)
    return ImportedRow(
        *(workload.name, workload.batch, threads, source),
        *(mine, theirs, middle, quartiles, *nodes),
    )


def _check_equal(
    workload: Workload, steps: Sequence[CompiledStep], batches: Sequence[Batch], threads: int
) -> None:
    losses: list[list[float]] = []
    for step in steps:
        runner = step.runner(threads=threads)
        losses.append([])
        for batch in batches[: workload.checked]:
            runner.step(batch)
            losses[-1].append(float(runner.metrics()["loss"]))
    np.testing.assert_allclose(*losses, rtol=workload.tolerance)


def _export_by_torch(workload: Workload, state: dict[str, Array], batch: Batch, file: Path) -> None:
    """The peer with these weights, as torch writes it where layers are to be trained further. Its
    attention is written out: there is one operator of it only in files of later versions."""
    torch, written = installed("torch", NETWORKS)
    if workload.network == "encoder":
        workload = replace(workload, options={"written_out": True})
    network = module_of(written, workload, state).eval()
    names = [name for name in batch if name != "label"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is traced, and of the older exporter
        torch.onnx.export(
            network,
            tuple(torch.from_numpy(batch[name][:2]) for name in names),
            file,
            input_names=names,
            output_names=["logits"],
            dynamic_axes={name: {0: "batch"} for name in names},
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
            opset_version=17,
            dynamo=False,
        )
