"""Sessions on the device, with what onnxruntime did with each node."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from nncompile.ir.types import bf16
from nncompile.runtime.buffers import run_bound
from nncompile.runtime.cuda.model import OnCuda, preload_libraries
from nncompile.runtime.cuda.placement import RECORD, HostNode, predicted, reported
from nncompile.runtime.cuda.spelling import spelled
from nncompile.runtime.cuda.spellings import SPELLINGS

Arrays = dict[str, np.ndarray]
# Tensor cores compute in fewer digits than float32 has.
EXACT = {"CUDAExecutionProvider": {"use_tf32": "0"}}
FULL_NAMES = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}


@dataclass(frozen=True)
class Placement:
    """Where the nodes of a model were placed."""

    nodes: int
    on_cpu: tuple[HostNode, ...]  # that compute with data
    sizes_on_cpu: int  # nodes that compute with sizes only, which the provider leaves to the CPU
    unforeseen: tuple[HostNode, ...]  # of those with data, which the table of kernels has on CUDA
    copies: int  # between the device and the host

    @property
    def kinds(self) -> tuple[str, ...]:
        """What is on the CPU, as "OpType(type, type)"."""
        return tuple(f"{x.operator}({', '.join(x.types)})" for x in self.on_cpu)


def load(model: onnx.ModelProto, provider: str) -> ort.InferenceSession:
    """The model in onnxruntime on the provider, spelled for it, and on the CPU what it lacks."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    source: str | bytes = model.SerializeToString()
    if provider == "cuda":
        source = OnCuda(source, options).source
    return ort.InferenceSession(source, options, providers(provider))


def providers(provider: str) -> list[Any]:
    """The provider as onnxruntime names it, computing float32 in float32."""
    name = FULL_NAMES[provider]
    return [(name, EXACT.get(name, {}))] + ([] if provider == "cpu" else ["CPUExecutionProvider"])


def run(session: ort.InferenceSession, feeds: Arrays) -> Arrays:
    """The outputs by name."""
    names = [port.name for port in session.get_outputs()]
    needed = {port.name: feeds[port.name] for port in session.get_inputs()}
    if any("bfloat16" in port.type for port in (*session.get_inputs(), *session.get_outputs())):
        return dict(zip(names, run_bound(session, needed, names), strict=True))
    arrays = {n: np.asarray(x, order="C") for n, x in needed.items()}
    assert not any(x.dtype == bf16.numpy for x in arrays.values())
    return {n: np.asarray(x) for n, x in zip(names, session.run(names, arrays), strict=True)}


def placed(model: onnx.ModelProto) -> Placement:
    """Where a session on CUDA places the nodes of the model, and how many copies it inserts."""
    preload_libraries()
    spelled_model, _ = spelled(model, SPELLINGS)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "optimized.onnx")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = file
        options.add_session_config_entry(RECORD, "1")
        session = ort.InferenceSession(
            spelled_model.SerializeToString(), options, providers("cuda")
        )
        kinds = Counter(n.op_type for n in _all_nodes(onnx.load(file).graph))
    device = FULL_NAMES["cuda"]
    told = session.get_provider_graph_assignment_info()
    groups = [(group.ep_name == device, group.get_nodes()) for group in told]
    on_cpu = reported(spelled_model, session)
    assert on_cpu is not None, "onnxruntime 1.31 or later tells where nodes are"
    foreseen = {x.name for x in predicted(spelled_model)}
    return Placement(
        sum(len(nodes) for _, nodes in groups),
        tuple(on_cpu),
        sum(len(nodes) for is_there, nodes in groups if not is_there) - len(on_cpu),
        tuple(x for x in on_cpu if x.name not in foreseen),
        kinds["MemcpyToHost"] + kinds["MemcpyFromHost"],
    )


def card() -> dict[str, str]:
    """The GPU, its driver and the versions of what runs on it."""
    query = "--query-gpu=name,driver_version,memory.total"
    try:
        line = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError) as error:
        line = f"no nvidia-smi: {error}"
    return {
        "card": line,
        "onnxruntime": ort.__version__,
        "onnx": onnx.__version__,
        "build": re.sub(r"\s+", " ", ort.get_build_info())[:200],
    }


def _all_nodes(graph: onnx.GraphProto) -> list[onnx.NodeProto]:
    found = []
    for node in graph.node:
        found.append(node)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                found += _all_nodes(attribute.g)
    return found
