"""Changed tensors of ONNX models: their types, sizes, numbers and bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.faults.onnx_parts import (
    FLOATS,
    SIZES,
    TYPES,
    Random,
    all_graphs,
    some_graph,
    some_name,
    some_tensor,
)


def element_types(r: Random, model: onnx.ModelProto) -> None:
    """Of a stored tensor, an input or an output."""
    infos = [i for g in all_graphs(model) for i in (*g.input, *g.output, *g.value_info)]
    if infos and r.random() < 0.5:
        info = r.choice(infos)
        kind = r.random()
        if kind < 0.6:
            info.type.tensor_type.elem_type = r.choice(TYPES)
        elif kind < 0.7:
            info.type.sequence_type.elem_type.tensor_type.elem_type = 1
        elif kind < 0.8:
            info.type.optional_type.elem_type.tensor_type.elem_type = 1
        elif kind < 0.9:
            info.type.sparse_tensor_type.elem_type = 1
        else:
            info.ClearField("type")
    else:
        some_tensor(r, model).data_type = r.choice(TYPES)


def converted(r: Random, model: onnx.ModelProto) -> None:
    """A stored tensor, or an input, of another element type, with numbers that fit it."""
    kind = r.choice((np.float16, np.float64, np.int32, np.int64, np.int8, np.uint8, np.bool_))
    if r.random() < 0.3 and model.graph.input:
        number = helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        r.choice(model.graph.input).type.tensor_type.elem_type = number
        return
    tensor = some_tensor(r, model)
    try:
        with np.errstate(all="ignore"):
            tensor.CopyFrom(numpy_helper.from_array(_array(tensor).astype(kind), tensor.name))
    except Exception:
        tensor.data_type = 1


def _array(tensor: TensorProto) -> Any:
    return np.array(numpy_helper.to_array(tensor))


def sizes(r: Random, model: onnx.ModelProto) -> None:
    """Of a stored tensor, an input or an output: negative and huge."""
    infos = [i for g in all_graphs(model) for i in (*g.input, *g.output)]
    if infos and r.random() < 0.5:
        dims = r.choice(infos).type.tensor_type.shape.dim
        kind = r.random()
        if not dims or kind < 0.1:
            dims.add(dim_value=r.choice(SIZES))
        elif kind < 0.6:
            r.choice(dims).dim_value = r.choice(SIZES)
        elif kind < 0.8:
            r.choice(dims).dim_param = r.choice(_FORMULAS)
        elif kind < 0.9:
            r.choice(dims).Clear()
        else:
            del dims[r.randrange(len(dims))]
    else:
        tensor = some_tensor(r, model)
        kind = r.random()
        if not tensor.dims or kind < 0.2:
            tensor.dims.insert(r.randrange(len(tensor.dims) + 1), r.choice(SIZES))
        elif kind < 0.3:
            del tensor.dims[r.randrange(len(tensor.dims))]
        else:
            tensor.dims[r.randrange(len(tensor.dims))] = r.choice(SIZES)


_FORMULAS = (
    "", "n", "batch", "2*n", "n + 1", "n/2", "1/0", "2**2**2**2**9", "9**9**9**9", "n**n", "-n",
    "__import__('os')", "(" * 5000, "a b", "lambda: 0", "n" * 9000, "0x10", "floor(n)", "1e999",
    "nan", "oo", "factorial(99999)", "None", "x.y", "ü", "\0", "self", "n//0", "n % 0", "I", "0",
)  # fmt: skip


def numbers(r: Random, model: onnx.ModelProto) -> None:
    """Other numbers in a stored tensor: of shapes, axes and scales, NaN and zero."""
    tensor = some_tensor(r, model)
    try:
        array = _array(tensor)
        flat = array.reshape(-1)
        places = range(flat.size) if r.random() < 0.2 else [r.randrange(flat.size)]
        chosen = r.choice(FLOATS if array.dtype.kind == "f" else SIZES)
        for place in places:
            flat[place] = np.array(chosen).astype(array.dtype)
    except Exception:
        tensor.ClearField("raw_data")
        return
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def content(r: Random, model: onnx.ModelProto) -> None:
    """Bytes of another length, or in the wrong field, or none."""
    tensor = some_tensor(r, model)
    kind = r.randrange(7)
    if kind == 0:
        tensor.raw_data = tensor.raw_data[: r.randrange(len(tensor.raw_data) + 1)]
    elif kind == 1:
        tensor.raw_data += b"\0" * r.choice((1, 4, 1000))
    elif kind == 2:
        tensor.ClearField("raw_data")
    elif kind == 3:
        tensor.float_data.extend([1.0] * r.choice((1, 100)))
    elif kind == 4:
        tensor.int64_data.extend([1] * r.choice((1, 100)))
    elif kind == 5:
        tensor.string_data.append(b"text")
    else:
        tensor.segment.begin, tensor.segment.end = 0, r.choice(SIZES)


def initializers(r: Random, model: onnx.ModelProto) -> None:
    """A stored tensor less, one twice, called otherwise, or in another graph."""
    graph = some_graph(r, model)
    kind = r.randrange(4)
    if not graph.initializer or kind == 3:
        name = some_name(r, model)
        graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), name))
    elif kind == 0:
        del graph.initializer[r.randrange(len(graph.initializer))]
    elif kind == 1:
        graph.initializer.append(r.choice(list(graph.initializer)))
    else:
        r.choice(graph.initializer).name = some_name(r, model)


def declared(r: Random, model: onnx.ModelProto) -> None:
    """Types of tensors within that contradict the nodes."""
    graph = some_graph(r, model)
    shape = [r.choice(SIZES) for _ in range(r.randrange(5))]
    info = onnx.ValueInfoProto(name=some_name(r, model))
    info.type.tensor_type.elem_type = r.choice(TYPES)
    for size in shape:
        info.type.tensor_type.shape.dim.add(dim_value=size)
    graph.value_info.append(info)


def external(r: Random, model: onnx.ModelProto) -> None:
    """A stored tensor that is said to be in another file."""
    tensor = some_tensor(r, model)
    tensor.data_location = TensorProto.EXTERNAL
    places = ("w.bin", "../w.bin", "/etc/passwd", "missing.bin", "", "folder", "link.bin", "\0",
              "large.bin", "pipe", "w.bin/x", "*/_ORT_MEM_ADDR_/*", "a" * 5000)  # fmt: skip
    tensor.external_data.add(key="location", value=r.choice(places))
    for key in ("offset", "length"):
        if r.random() < 0.6:
            value = r.choice(("0", "4", "-1", "x", "", str(2**40), str(2**63), "9" * 5000))
            tensor.external_data.add(key=key, value=value)
