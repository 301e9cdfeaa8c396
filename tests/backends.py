"""What the backends compute of a graph, or of values by their names."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from nncompile.backends.onnx import to_model
from nncompile.ir.graph import Graph
from nncompile.ir.interpreter import evaluate
from nncompile.ir.op import Value
from nncompile.ir.types import bf16, dtype_of
from nncompile.passes import optimize
from nncompile.runtime.buffers import array_of, buffer_of

Arrays = dict[str, np.ndarray]
Feeds = Mapping[str, np.ndarray]
Values = Graph | Mapping[str, Value]


def graph_of(values: Values) -> Graph:
    return values if isinstance(values, Graph) else Graph("values", dict(values))


def valid_model(graph: Graph, **options: Any) -> onnx.ModelProto:
    """The ONNX model, after the checker and the strict inference of shapes and of known values."""
    model = to_model(graph, **options)
    onnx.checker.check_model(model)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return model


def session(model: onnx.ModelProto) -> Callable[..., Arrays]:
    """Runs a model on its own copies of the feeds that it needs; where arrays like the outputs
    (or their shapes) are given, into buffers that hold garbage before."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    loaded = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    types = {o.name: o.type for o in loaded.get_outputs()}

    def run(feeds: Feeds, like: Mapping[str, Any] | None = None) -> Arrays:
        binding = loaded.io_binding()
        fresh = {i.name: np.array(feeds[i.name], order="C") for i in loaded.get_inputs()}
        for name, array in fresh.items():
            if array.dtype == bf16.numpy:  # whose arrays onnxruntime does not take as they are
                binding.bind_ortvalue_input(name, buffer_of(array))
            else:
                binding.bind_cpu_input(name, array)
        for name, type_ in types.items():
            if like is None:
                binding.bind_output(name, "cpu")
            else:
                shape = getattr(like[name], "shape", like[name])
                binding.bind_ortvalue_output(name, poisoned(shape, type_))
        loaded.run_with_iobinding(binding)
        for name, array in fresh.items():
            assert array.tobytes() == feeds[name].tobytes(), f"the run wrote over {name}"
        return dict(zip(types, map(array_of, binding.get_outputs()), strict=True))

    return run


def poisoned(shape: tuple[int, ...], runtime_type: str) -> ort.OrtValue:
    """A buffer for an output: NaN, or bits that no result is made of."""
    name = re.sub(r"tensor\((\w+)\)", r"\1", runtime_type)
    dtype = dtype_of({"float": "float32", "double": "float64"}.get(name, name))
    filling = np.nan if dtype.is_float else 1 if dtype.is_bool else 0x5A
    return buffer_of(np.full(shape, filling, dtype.numpy))


def script_of(graph: Graph, weights: Feeds | None = None) -> Callable[[Feeds], Arrays]:
    """Runs the graph as TorchScript. Skips the test where there is no torch."""
    torch = pytest.importorskip("torch")
    from nncompile.backends.torchscript import arrays, to_script

    module = to_script(graph, dict(weights or {}))
    names = [name for name in graph.leaves if name not in (weights or {})]

    def run(feeds: Feeds) -> Arrays:
        with torch.no_grad():
            results = module(*(arrays.tensor_of(feeds[name]) for name in names))
        return {name: arrays.array_of(results[name]) for name in graph.outputs}

    return run


def in_onnxruntime(values: Values, feeds: Feeds, like: Mapping[str, Any] | None = None) -> Arrays:
    """By onnxruntime, of the graph as it is."""
    return session(valid_model(graph_of(values)))(feeds, like)


def optimized(values: Values, **feeds: np.ndarray) -> Arrays:
    """By onnxruntime, after all passes."""
    return in_onnxruntime(optimize(graph_of(values)), feeds)


def everywhere(
    values: Values, feeds: Feeds, lower: Callable[[Graph], onnx.ModelProto] = valid_model
) -> dict[str, Arrays]:
    """By each backend, by its name. Skips the test where there is no torch."""
    graph = graph_of(values)
    expected = evaluate(graph, dict(feeds))
    return {
        "numpy": expected,
        "ONNX": session(lower(graph))(feeds, expected),
        "TorchScript": script_of(graph)(feeds),
    }
