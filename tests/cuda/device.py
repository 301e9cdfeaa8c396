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

Arrays = dict[str, np.ndarray]
# Tensor cores compute in fewer digits than float32 has.
EXACT = {"CUDAExecutionProvider": {"use_tf32": "0"}}
FULL_NAMES = {"cuda": "CUDAExecutionProvider", "cpu": "CPUExecutionProvider"}
ASSIGNMENT = "session.record_ep_graph_assignment_info"


@dataclass(frozen=True)
class Placement:
    """Where the nodes of a model were placed."""

    nodes: int
    on_cpu: tuple[str, ...]  # "OpType(type, type)", of nodes that compute with data
    sizes_on_cpu: int  # nodes that compute with sizes only, which the provider leaves to the CPU
    copies: int  # nodes that copy between the device and the host


def load(model: onnx.ModelProto, provider: str) -> ort.InferenceSession:
    """The model in onnxruntime on the provider, and on the CPU what the provider lacks."""
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.add_session_config_entry(ASSIGNMENT, "1")
    return ort.InferenceSession(model.SerializeToString(), options, providers(provider))


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


def placed(model: onnx.ModelProto, session: ort.InferenceSession, provider: str) -> Placement:
    """Where that session placed the nodes of the model, and how many copies it inserted."""
    device = FULL_NAMES[provider]
    inferred = onnx.shape_inference.infer_shapes(model)
    types = _element_types(inferred.graph)
    nodes = {node.name: node for node in _all_nodes(inferred.graph)}
    made_of_data = _made_of_data(inferred.graph)
    count, sizes, found = 0, 0, []
    for group in session.get_provider_graph_assignment_info():
        for assigned in group.get_nodes():
            count += 1
            if group.ep_name == device:
                continue
            node = nodes.get(assigned.name)
            if node is not None and not made_of_data & set(node.output):
                sizes += 1
                continue
            taken = [] if node is None else [types.get(name, "?") for name in node.input if name]
            found.append(f"{assigned.op_type}({', '.join(taken)})")
    return Placement(count, tuple(found), sizes, 0)


def copies(model: onnx.ModelProto, provider: str) -> int:
    """How many copies between device and host onnxruntime inserts into the model."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "optimized.onnx")
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = file
        ort.InferenceSession(model.SerializeToString(), options, providers(provider))
        kinds = Counter(n.op_type for n in _all_nodes(onnx.load(file).graph))
    return kinds["MemcpyToHost"] + kinds["MemcpyFromHost"]


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


def _element_types(graph: onnx.GraphProto) -> dict[str, str]:
    types = {}
    for info in (*graph.input, *graph.output, *graph.value_info):
        types[info.name] = onnx.TensorProto.DataType.Name(info.type.tensor_type.elem_type).lower()
    for tensor in graph.initializer:
        types[tensor.name] = onnx.TensorProto.DataType.Name(tensor.data_type).lower()
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                types |= _element_types(attribute.g)
    return types


def _made_of_data(graph: onnx.GraphProto, outer: frozenset[str] = frozenset()) -> set[str]:
    """The values that depend on elements of inputs, not only on their sizes."""
    found = set(outer) | {info.name for info in graph.input}
    for node in graph.node:
        inner = [a.g for a in node.attribute if a.HasField("g")]
        within = set().union(*(_made_of_data(g, frozenset(found)) for g in inner))
        if node.op_type not in ("Shape", "Size") and (found & set(node.input) or inner):
            found |= set(node.output)
        found |= within
    return found
