"""Our own sides: a training step in onnxruntime, and the files of inference."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.peers.base import NO_KERNELS, Absent, Lacking, Plain, State, installed
from benchmarks.recipes import recipe_of
from benchmarks.sides import OURS, SCRIPT
from benchmarks.workloads import Array, Batch, Workload, inputs_of
from nncompile import export
from nncompile.compiler.compile import compile_step
from nncompile.runtime.native import native_library

KERNELS = "nncompile_kernels"


class Ours:
    """The portable file in the runtime as it is, `in_place` with states that are written over the
    one before, as in torch and jax, or with the native kernels, which do that as well."""

    def __init__(self, name: str = OURS, native: bool = False, in_place: bool = False) -> None:
        self.name = name
        self.native, self.in_place = native, in_place or native

    def start(self, threads: int) -> None:
        if self.native:
            installed(KERNELS)
            if native_library() is None:
                raise Absent("this onnxruntime does not take the native kernels")

    def training(self, workload: Workload, state: State, threads: int) -> _Step:
        return _Step(workload, state, threads, self.native, self.in_place)

    def inference(self, workload: Workload, state: State, threads: int) -> _Inference:
        if self.native:
            raise Lacking(NO_KERNELS)
        return _Inference(workload, state, threads)

    def finish(self) -> None:
        return


class _Step(Plain):
    def __init__(
        self, workload: Workload, state: State, threads: int, native: bool, in_place: bool
    ) -> None:
        compiled = compile_step(recipe_of(workload))
        self.runner = compiled.runner(state, threads=threads, native=native, in_place=in_place)

    def call(self, batch: Batch) -> Callable[[], Any]:
        step = self.runner.step
        return lambda: step(batch)

    def read(self, result: Any) -> Array:
        return self.runner.metrics()["loss"]


class _Inference(Plain):
    def __init__(self, workload: Workload, state: State, threads: int) -> None:
        recipe = recipe_of(workload)
        with tempfile.TemporaryDirectory() as directory:
            (file,) = export(recipe, Path(directory) / "model.onnx", params=state)
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            self.session = onnxruntime.InferenceSession(
                file, options, providers=["CPUExecutionProvider"]
            )

    def call(self, batch: Batch) -> Callable[[], Any]:
        feeds = {port.name: batch[port.name] for port in self.session.get_inputs()}
        return lambda: self.session.run(["logits"], feeds)[0]


class OursInTorchScript:
    """Our TorchScript in torch."""

    name = SCRIPT

    def start(self, threads: int) -> None:
        (self.torch,) = installed("torch")
        self.torch.set_num_threads(threads)

    def inference(self, workload: Workload, state: State, threads: int) -> _Scripted:
        return _Scripted(self.torch, workload, state)

    def finish(self) -> None:
        return


class _Scripted(Plain):
    def __init__(self, torch: Any, workload: Workload, state: State) -> None:
        self.torch = torch
        recipe = recipe_of(workload)
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "model.pt"
            (file,) = export(recipe, file, to="torchscript", params=state)
            self.network = torch.jit.load(io.BytesIO(file.read_bytes()))

    def call(self, batch: Batch) -> Callable[[], Any]:
        inputs = [self.torch.from_numpy(x) for x in inputs_of(batch)]

        def called() -> Any:
            with self.torch.inference_mode():
                return self.network(*inputs)["logits"]

        return called

    def read(self, result: Any) -> Array:
        return np.asarray(result)
