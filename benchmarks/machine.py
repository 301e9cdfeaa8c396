"""What the figures were measured on: the processor, the versions, and how fast each side multiplies
matrices there."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from benchmarks.peers.base import Peer, installed

PACKAGES = ("nncompile", "nncompile-kernels", "onnxruntime", "numpy", "torch", "jax", "jaxlib")
SIZE, REPEATS = 1024, 7  # of the matrices


def environment(threads: int, peers: tuple[Peer, ...] = ()) -> dict[str, Any]:
    """The machine and the versions; `gflops` of a product of matrices by each framework that is
    here, in billions of multiplications and additions a second."""
    return {
        "processor": processor(),
        "instructions": instructions(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": threads,
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": versions(),
        "gflops": gflops(threads, {peer.name for peer in peers}),
    }


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def processor() -> str:
    """Its name as the system gives it."""
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def instructions() -> str:
    """The widest vectors that it has."""
    flags = _cpuinfo("flags").split()
    known = {"avx512f": "AVX-512", "avx2": "AVX2", "avx": "AVX"}
    return next((name for flag, name in known.items() if flag in flags), platform.machine())


def _cpuinfo(key: str) -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")


def gflops(threads: int, peers: set[str]) -> dict[str, float]:
    """Of a product of two matrices of 1024 × 1024 float32."""
    rng = np.random.default_rng(0)
    a, b = (rng.standard_normal((SIZE, SIZE), np.float32) for _ in range(2))
    calls: dict[str, Callable[[], Any]] = {"onnxruntime": _onnxruntime(a, b, threads)}
    calls["numpy"] = lambda: a @ b
    if any(name.startswith("torch") for name in peers) and find_spec("torch"):
        (torch,) = installed("torch")
        x, y = torch.from_numpy(a), torch.from_numpy(b)
        calls["torch"] = lambda: x @ y
    if any(name.startswith("jax") for name in peers) and find_spec("jax"):
        (jax,) = installed("jax")
        product = jax.jit(lambda x, y: x @ y)
        u, v = jax.device_put(a), jax.device_put(b)
        calls["jax"] = lambda: product(u, v).block_until_ready()
    work = 2 * SIZE**3 / 1e9
    return {name: work / _seconds(call) for name, call in calls.items()}


def _seconds(call: Callable[[], Any]) -> float:
    call()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)  # what it can do, not what else used the core


def _onnxruntime(a: Any, b: Any, threads: int) -> Callable[[], Any]:
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [SIZE, SIZE]) for name in "aby"]
    node = helper.make_node("MatMul", ["a", "b"], ["y"])
    graph = helper.make_graph([node], "product", ports[:2], ports[2:])
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"a": a, "b": b})
