"""One call of a native kernel, by the library and by the function that says what it computes."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper

from nncompile.ir.native import DOMAIN, FUNCTIONS_KEY
from nncompile.runtime.native import names_of

IS_INSTALLED = importlib.util.find_spec("nncompile_kernels") is not None
needs_library = pytest.mark.skipif(
    not IS_INSTALLED, reason="nncompile-kernels is not installed: pip install ./kernels"
)


def library_path() -> str:
    kernels: Any = importlib.import_module("nncompile_kernels")
    path: str = kernels.library()
    return path


def session(
    proto: onnx.ModelProto, with_library: bool = True, threads: int = 1, names: str | None = None
) -> ort.InferenceSession:
    """The model in onnxruntime. The library is told which kernels it calls, as the product does:
    that takes a millisecond, and all names (`names=""`) fifty times as long."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if with_library:
        wanted = names_of(proto) if names is None else names
        options.add_session_config_entry(f"{DOMAIN}.names", wanted)
        options.add_session_config_entry(f"{DOMAIN}.threads", str(threads))
        options.register_custom_ops_library(library_path())
    return ort.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(
    proto: onnx.ModelProto,
    feeds: Mapping[str, Any],
    with_library: bool = False,
    threads: int = 1,
    names: str | None = None,
) -> dict[str, Any]:
    """The outputs of a model by name."""
    made = session(proto, with_library, threads, names)
    fed = {i.name: feeds[i.name] for i in made.get_inputs()}
    return dict(zip([o.name for o in made.get_outputs()], made.run(None, fed), strict=True))


def called(
    kernel: str,
    arrays: Sequence[np.ndarray[Any, Any]],
    attributes: Mapping[str, Any],
    body: Sequence[onnx.NodeProto] = (),
    results: int = 1,
) -> onnx.ModelProto:
    """A model of one call, whose arguments are x0, x1 …, and whose results y0, y1 … of float32;
    with a function of the nodes in `body`, if there are any."""
    inputs = [f"x{i}" for i in range(len(arrays))]
    outputs = [f"y{i}" for i in range(results)]
    node = helper.make_node(kernel, inputs, outputs, domain=DOMAIN)
    for name, x in attributes.items():
        node.attribute.append(helper.make_attribute(name, x))
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(DOMAIN, 1)]
    types = [helper.np_dtype_to_tensor_dtype(x.dtype) for x in arrays]
    graph = helper.make_graph(
        [node],
        "call",
        [
            helper.make_tensor_value_info(name, type_, x.shape)
            for name, type_, x in zip(inputs, types, arrays, strict=True)
        ],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in outputs],
    )
    functions = (
        [helper.make_function(DOMAIN, kernel, inputs, outputs, body, opsets[:1], [*attributes])]
        if body
        else []
    )
    model = helper.make_model(graph, functions=functions, opset_imports=opsets, ir_version=10)
    helper.set_model_props(model, {FUNCTIONS_KEY: f"{kernel}:1"})
    return model


def feeds(arrays: Sequence[np.ndarray[Any, Any]]) -> dict[str, Any]:
    return {f"x{i}": x for i, x in enumerate(arrays)}
