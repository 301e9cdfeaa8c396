"""Training steps on the device: ours, in the ways that onnxruntime has, and torch's."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import onnxruntime as ort
import sympy as sp
import torch

from benchmarks.networks import in_torch
from benchmarks.peers.torch_eager import Step, module_of
from benchmarks.recipes import recipe_of
from benchmarks.workloads import WORKLOADS, Workload, inputs_of, target_of
from nncompile.backends.onnx import to_model
from nncompile.compiler.compile import compile_step
from nncompile.ir.graph import Graph, Input, toposort
from nncompile.ir.op import Value, apply
from tests.cuda.device import FULL_NAMES, placed

ROUNDS = 9
SECONDS = 0.1  # of a round


def rows(only: str = "", compiled: bool = True) -> list[str]:
    """A line for each workload, as it is measured; `compiled`: beside torch.compile too."""
    lines = []
    for workload in WORKLOADS:
        if only in workload.name:
            try:
                lines.append(_row(workload, compiled))
            except Exception as error:
                lines.append(f"  {workload.name}: {type(error).__name__} {str(error)[:300]}")
            print(lines[-1], flush=True)
    return lines


def _row(workload: Workload, compiled_peers: bool) -> str:
    compiled = compile_step(recipe_of(workload))
    state = compiled.source.initial()
    batch = workload.batches(1)[0]
    fixed = to_model(bound(compiled.step, batch), metadata=compiled.metadata(compiled.step))
    sides: dict[str, Callable[[], Any]] = {}
    problems: list[str] = []
    makers: dict[str, Callable[[], Callable[[], Any]]] = {
        "ours": lambda: _ours(compiled, state, batch, {}),
        "device": lambda: _bound(compiled.step_model, state, batch, {}),
        "fixed": lambda: _bound(fixed, state, batch, {}),
        "graph": lambda: _bound(fixed, state, batch, {"enable_cuda_graph": "1"}),
        "eager": lambda: _torch(workload, state, batch, None),
    }
    if compiled_peers:
        makers["inductor"] = lambda: _torch(workload, state, batch, "default")
        makers["graphs"] = lambda: _torch(workload, state, batch, "reduce-overhead")
    memory: dict[str, int] = {}
    for name, make in makers.items():
        free = _free()
        try:
            sides[name] = make()
            for _ in range(3):
                sides[name]()
            memory[name] = free - _free()
        except Exception as error:
            sides.pop(name, None)
            problems.append(f"{name}: {' '.join(str(error).split())[:300]}")
    taken = ", ".join(f"{name} {size / 2**20:.0f}" for name, size in memory.items())
    problems.append(f"MB of the GPU that each takes while the ones before it are there: {taken}")
    metrics = len(compiled.source.model.metrics)
    problems.append(
        f"copies a step of ours: {placed(compiled.step_model).copies} in the graph, {len(batch)} "
        f"of the batch, {metrics} of metrics"
    )
    where = placed(fixed)
    problems.append(
        f"of one size: {where.nodes} nodes, on the CPU {where.kinds}, {where.sizes_on_cpu} of "
        f"sizes, {where.copies} copies"
    )
    counts = {n: max(3, int(SECONDS / _seconds(call, 5))) for n, call in sides.items()}
    order = np.random.default_rng(0)
    times: dict[str, list[float]] = {n: [] for n in sides}
    for _ in range(ROUNDS):
        for name in order.permutation(list(sides)):
            times[name].append(_seconds(sides[name], counts[name]))
    found = ", ".join(f"{n} {statistics.median(t) * 1e3:.3f}" for n, t in times.items())
    said = "".join(f"\n    {p}" for p in problems)
    return f"  {workload.key}: ms {found}{said}"


def _free() -> int:
    """Bytes of the GPU that nothing has, when torch has given back what it does not use."""
    torch.cuda.synchronize()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info()
    return int(free)


def bound(graph: Graph, batch: Mapping[str, np.ndarray]) -> Graph:
    """The graph for batches of the sizes of this one, which it knows."""
    nodes = toposort([*graph.outputs.values(), *graph.inputs])
    sizes = {
        d: n
        for x in nodes
        if isinstance(x.op, Input) and x.op.name in batch
        for d, n in zip(x.type.shape, batch[x.op.name].shape, strict=True)
        if isinstance(d, sp.Symbol)
    }
    made: dict[Value, Value] = {}
    for value in nodes:
        made[value] = apply(value.op.at(sizes), *(made[x] for x in value.args))
    outputs = {name: made[y] for name, y in graph.outputs.items()}
    return Graph(graph.name, outputs, tuple(made[x] for x in graph.inputs))


def _seconds(call: Callable[[], Any], count: int) -> float:
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(count):
        call()
    torch.cuda.synchronize()
    return (time.perf_counter() - start) / count


def _ours(compiled: Any, state: Any, batch: Any, options: dict[str, str]) -> Callable[[], Any]:
    runner = compiled.runner(state, providers=("cuda", options))
    return lambda: runner.step(batch)


def _bound(model: Any, state: Any, batch: Any, options: dict[str, str]) -> Callable[[], Any]:
    """All inputs and outputs on the device; nothing waits for the end of a run."""
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    names = [(FULL_NAMES["cuda"], options), "CPUExecutionProvider"]
    session = ort.InferenceSession(model.SerializeToString(), settings, names)
    pairs = json.loads(session.get_modelmeta().custom_metadata_map["nncompile.state"])
    sets = [
        {n: ort.OrtValue.ortvalue_from_numpy(np.asarray(x), "cuda", 0) for n, x in state.items()}
        for _ in range(2)
    ]
    fed = {n: ort.OrtValue.ortvalue_from_numpy(np.asarray(x), "cuda", 0) for n, x in batch.items()}
    results = {
        o.name: ort.OrtValue.ortvalue_from_shape_and_type(o.shape, np.float32, "cuda", 0)
        for o in session.get_outputs()
        if o.name not in pairs.values()
    }
    calls = []
    for side in range(2):
        binding = session.io_binding()
        for port in session.get_inputs():
            source = sets[side] if port.name in sets[side] else fed
            binding.bind_ortvalue_input(port.name, source[port.name])
        for name, result in pairs.items():
            binding.bind_ortvalue_output(result, sets[1 - side][name])
        for name, value in results.items():
            binding.bind_ortvalue_output(name, value)
        run = ort.RunOptions()
        if options:
            run.add_run_config_entry("gpu_graph_id", str(side + 1))
        else:
            run.add_run_config_entry("disable_synchronize_execution_providers", "1")
        calls.append((binding, run))
    at = [0]

    def step() -> None:
        binding, run = calls[at[0] % 2]
        session.run_with_iobinding(binding, run)
        at[0] += 1

    return step


def _torch(workload: Workload, state: Any, batch: Any, mode: str | None) -> Callable[[], Any]:
    network = module_of(in_torch, workload, state).cuda()
    wrapped = partial(torch.compile, mode=mode) if mode else _as_it_is
    step = Step(torch, workload, network, {"fused": workload.optimizer != "momentum"}, wrapped)
    on_device = {n: torch.from_numpy(x).cuda() for n, x in batch.items()}
    inputs, target = inputs_of(on_device), target_of(on_device)

    def call() -> None:
        step.optimizer.zero_grad()
        step.loss(target, *inputs).backward()
        step.optimizer.step()

    return call


def _as_it_is(function: Any) -> Any:
    return function
