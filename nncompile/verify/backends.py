"""The ways to run a graph that are compared."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from nncompile.backends.onnx import to_model
from nncompile.backends.optional import torch_backend
from nncompile.diagnostics.errors import CompileError
from nncompile.ir.graph import Graph
from nncompile.ir.types import Array
from nncompile.runtime import Session, available_providers
from nncompile.runtime.native import native_library
from nncompile.runtime.providers import Provider

Arrays = dict[str, Array]
Function = Callable[[Mapping[str, Array]], Arrays]

LEVELS = ("none", "basic", "extended", "all")  # of onnxruntime's own optimizations


class Lowered:
    """A graph in the form of each target, made on first use."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph

    @cached_property
    def onnx(self) -> bytes:
        """The bytes of the ONNX model."""
        return bytes(to_model(self.graph).SerializeToString())

    @cached_property
    def native(self) -> bytes:
        """The same with calls of native kernels."""
        return bytes(to_model(self.graph, kernels=True).SerializeToString())


class Backend(Protocol):
    """A way to run a graph."""

    @property
    def name(self) -> str: ...

    def load(self, lowered: Lowered) -> Function:
        """The graph as a function of arrays by the names of its leaves. Raises `CompileError`
        where the backend cannot express or load it."""
        ...


@dataclass(frozen=True)
class OnnxRuntime:
    """onnxruntime on one provider, at one level of its own optimizations."""

    level: str
    threads: int | None
    provider: str = "cpu"

    @property
    def name(self) -> str:
        """The provider, optimization level and threads, as the table shows them."""
        if self.provider != "cpu":
            return f"onnxruntime {self.provider}, {self.level}"
        threads = "all threads" if self.threads is None else _counted(self.threads)
        return f"onnxruntime {self.level}, {threads}"

    def load(self, lowered: Lowered) -> Function:
        """A function that runs the graph in a new session."""
        # By default, tensor cores compute in fewer digits than float32 has.
        exact: Provider = ("cuda", {"use_tf32": 0}) if self.provider == "cuda" else self.provider
        session = Session(lowered.onnx, exact, self.threads, optimization=self.level)

        def function(feeds: Mapping[str, Array]) -> Arrays:
            return session.run({port.name: feeds[port.name] for port in session.inputs})

        return function


@dataclass(frozen=True)
class Native:
    """onnxruntime on the CPU, with the native kernels."""

    threads: int | None = None

    name = "native kernels"

    def load(self, lowered: Lowered) -> Function:
        """A function that runs the graph in a new session, which calls kernels."""
        session = Session(lowered.native, "cpu", self.threads)
        return lambda feeds: session.run({port.name: feeds[port.name] for port in session.inputs})


@dataclass(frozen=True)
class TorchScript:
    """TorchScript in torch, on the CPU."""

    module: Any = field(repr=False)

    name = "torchscript"

    def load(self, lowered: Lowered) -> Function:
        """A function that runs the graph in TorchScript."""
        function: Function = self.module.to_function(lowered.graph)
        return function


def _counted(threads: int) -> str:
    return f"{threads} thread{'s' if threads > 1 else ''}"


def torchscript() -> TorchScript:
    """The TorchScript backend. Raises `BackendError` where torch is not installed, or has no
    TorchScript for this Python."""
    backend = torch_backend()
    backend.check_python()
    return TorchScript(backend)


def onnx_runtimes(quick: bool = False) -> tuple[list[Backend], list[str]]:
    """The onnxruntime configurations of this machine, and those skipped, with the reason. `quick`
    leaves out the levels and numbers of threads in between."""
    cores = os.cpu_count() or 1
    threads: Sequence[int | None] = (1,) if quick else (1, 2) if cores <= 2 else (1, 2, None)
    levels = (LEVELS[0], LEVELS[-1]) if quick else LEVELS
    backends: list[Backend] = [OnnxRuntime(level, n) for level in levels for n in threads]
    if "cuda" not in available_providers():
        return backends, ["onnxruntime cuda: this onnxruntime has no such provider"]
    return [*backends, *(OnnxRuntime(x, None, "cuda") for x in (LEVELS[0], LEVELS[-1]))], []


def all_backends(quick: bool = False) -> tuple[list[Backend], list[str]]:
    """The ways to run a graph on this machine, TorchScript among them; see `onnx_runtimes`."""
    backends, skipped = onnx_runtimes(quick)
    if native_library() is not None:
        backends.append(Native())
    try:
        backends.append(torchscript())
    except CompileError as error:
        skipped.append(f"{error.message}; {error.hint}")
    return backends, skipped
