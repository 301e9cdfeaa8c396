"""Small ONNX files as exporters write them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.sessions import plain_session

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def nodes_of(lines: str) -> list[onnx.NodeProto]:
    """The nodes of lines in the textual syntax of onnx."""
    return list(onnx.parser.parse_graph(f"main () => () {{ {lines} }}").node)


def parsed(
    graph: str, weights: Mapping[str, Any] = {}, opset: int = 17, more: str = ""
) -> onnx.ModelProto:
    """The model of a graph in the textual syntax of onnx, with these initializers."""
    head = f'<ir_version: {10 if opset > 20 else 8}, opset_import: ["" : {opset}{more}]>'
    model: onnx.ModelProto = onnx.parser.parse_model(head + graph)
    for name, numbers in weights.items():
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(numbers), name))
    return model


def written(
    path: Path,
    nodes: Sequence[onnx.NodeProto] | str,
    inputs: Mapping[str, tuple[int, Sequence[Any]]],
    outputs: Sequence[str],
    weights: Mapping[str, Any] = {},
    opset: int = 17,
    **more: Any,
) -> Path:
    """A file of these nodes, or lines of them; the types of its outputs are left to onnxruntime."""
    graph = helper.make_graph(
        nodes_of(nodes) if isinstance(nodes, str) else list(nodes),
        "main",
        [helper.make_tensor_value_info(n, t, s) for n, (t, s) in inputs.items()],
        [onnx.ValueInfoProto(name=n) for n in outputs],
        [numpy_helper.from_array(np.asarray(w), n) for n, w in weights.items()],
    )
    opsets = [helper.make_opsetid("", opset), *more.pop("opsets", ())]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8, **more)
    onnx.save(model, path)
    return path


def run(path: Path, feeds: Mapping[str, Any], outputs: Sequence[str] | None = None) -> list[Any]:
    """What onnxruntime computes of a file, as it is."""
    results: list[Any] = plain_session(path, optimized=False).run(outputs, dict(feeds))
    return results


def ints(*numbers: int) -> Any:
    """Whole numbers, as shapes and axes are."""
    return np.asarray(numbers, np.int64)


def weight(*shape: int, seed: int = 0) -> Any:
    """Random numbers."""
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32) / 3


def tied_language_model(path: Path) -> Path:
    """An embedding that is, transposed, the last layer too, with heads whose shapes are computed
    as torch's legacy exporter writes them."""
    node = helper.make_node
    table = weight(20, 8, seed=1)
    nodes = [
        node("Gather", ["tok.weight", "ids"], ["x"], name="/tok/Gather"),
        node("Shape", ["ids"], ["shape"]),
        node("Gather", ["shape", "zero"], ["batch"], axis=0),
        node("Gather", ["shape", "one"], ["seq"], axis=0),
        node("Unsqueeze", ["batch", "axis"], ["batch_1"]),
        node("Unsqueeze", ["seq", "axis"], ["seq_1"]),
        node("Concat", ["batch_1", "seq_1", "two", "four"], ["heads"], axis=0),
        node("Reshape", ["x", "heads"], ["split"]),
        node("Transpose", ["split"], ["q"], perm=[0, 2, 1, 3]),
        node("Transpose", ["split"], ["k"], perm=[0, 2, 3, 1]),
        node("MatMul", ["q", "k"], ["scores"]),
        node("Shape", ["q"], ["q_shape"]),
        node("Slice", ["q_shape", "minus", "large"], ["depth"]),
        node("Cast", ["depth"], ["depth_float"], to=FLOAT),
        node("Sqrt", ["depth_float"], ["root"]),
        node("Div", ["scores", "root"], ["scaled"]),
        node("Softmax", ["scaled"], ["weights"], axis=-1),
        node("MatMul", ["weights", "q"], ["mixed"]),
        node("Transpose", ["mixed"], ["back"], perm=[0, 2, 1, 3]),
        node("Concat", ["batch_1", "seq_1", "eight"], ["flat"], axis=0),
        node("Reshape", ["back", "flat"], ["joined"]),
        node("MatMul", ["joined", "onnx::MatMul_9"], ["projected"], name="/block/o/MatMul"),
        node("Add", ["block.o.bias", "projected"], ["y"], name="/block/o/Add"),
        node("MatMul", ["y", "onnx::MatMul_12"], ["logits"], name="/head/MatMul"),
    ]
    numbers = {
        **{"zero": np.int64(0), "one": np.int64(1), "axis": np.array([0])},
        **{"two": np.array([2]), "four": np.array([4]), "eight": np.array([8])},
        **{"minus": np.array([-1]), "large": np.array([2**63 - 1])},
    }
    weights = {
        "tok.weight": table,
        "onnx::MatMul_9": weight(8, 8, seed=2),
        "block.o.bias": weight(8, seed=3),
        "onnx::MatMul_12": np.ascontiguousarray(table.T),
    }
    return written(
        path, nodes, {"ids": (INT64, ["batch", "seq"])}, ["logits"], {**numbers, **weights}
    )


def convolutional(path: Path) -> Path:
    """A convolution with batch normalization as in use, and a linear layer."""
    node = helper.make_node
    nodes = [
        node("Conv", ["image", "stem.weight"], ["a"], name="/stem/Conv", kernel_shape=[3, 3],
             pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["a", "bn.weight", "bn.bias", "bn.mean", "bn.var"], ["b"],
             name="/bn/BatchNormalization", momentum=0.9),
        node("Relu", ["b"], ["features"]),
        node("GlobalAveragePool", ["features"], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "fc.weight", "fc.bias"], ["logits"], name="/fc/Gemm", transB=1),
    ]  # fmt: skip
    weights = {
        "stem.weight": weight(4, 3, 3, 3),
        "bn.weight": 1 + weight(4, seed=1),
        "bn.bias": weight(4, seed=2),
        "bn.mean": weight(4, seed=3),
        "bn.var": 1 + abs(weight(4, seed=4)),
        "fc.weight": weight(5, 4, seed=5),
        "fc.bias": weight(5, seed=6),
    }
    inputs = {"image": (FLOAT, ["batch", 3, "height", 8])}
    return written(path, nodes, inputs, ["logits"], weights)
