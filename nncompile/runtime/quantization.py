"""Integers of 8 and 4 bits in the place of a file's weights, by onnxruntime's own quantizers.

Convolutions are quantized statically: of their inputs and results the ranges are measured on data,
and pairs of QuantizeLinear and DequantizeLinear stand in the file. Matrix products of a network
without convolutions are quantized dynamically: the range is that of each batch. Both ways weights
are i8, with a scale for each channel, and activations u8. (Measured: onnxruntime computes dynamic
convolutions seven times slower than static ones, dynamic products as fast.)
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from nncompile.backends.onnx.protos import attributes_of, needs, replace_nodes
from nncompile.diagnostics.errors import BackendError, FeedError
from nncompile.diagnostics.extras import extra
from nncompile.ir.names import matches
from nncompile.ir.types import Array
from nncompile.program.rows import METADATA_KEY
from nncompile.runtime.session import Session

Batches = Sequence[Mapping[str, Array]]

PRODUCTS = ("Conv", "Gemm", "MatMul")
# What runs on integers between products, so that they need not be floats on the way.
_BETWEEN = ("Relu", "Clip", "MaxPool", "Add", "Reshape")
_FOLDED = "_folded"  # after the names of weights that were computed beforehand
BLOCK = 32  # weights that share a scale of 4 bits


@dataclass(frozen=True)
class Layer:
    """A node with weights: its name in the file, the path of its layer, what it is, and its
    tensors."""

    node: str
    path: str
    operator: str
    weight: str
    result: str


def layers(model: onnx.ModelProto) -> list[Layer]:
    """The products with float32 weights of a model, in the order they are computed."""
    float32 = onnx.TensorProto.FLOAT
    weights = {x.name for x in model.graph.initializer if x.data_type == float32}
    return [
        Layer(node.name, _path(node), node.op_type, node.input[1], node.output[0])
        for node in model.graph.node
        if node.op_type in PRODUCTS and node.input[1] in weights
    ]


def _path(node: onnx.NodeProto) -> str:
    """The path of the layer: what its weight is called, without the last word."""
    weight: str = node.input[1]
    return weight.rpartition(".")[0] or weight


def chosen(model: onnx.ModelProto, skip: Sequence[str]) -> list[Layer]:
    """The layers to be quantized: none whose paths match `skip`. Raises `BackendError` where there
    is none, a pattern matches none, or a weight is not finite."""
    every = layers(model)
    for pattern in skip:
        if not any(matches(layer.path, pattern) for layer in every):
            raise BackendError(
                f"{pattern!r} matches no layer of {model.graph.name} with weights",
                rows=[("layer", layer.path, layer.operator) for layer in every],
            )
    found = [layer for layer in every if not matches(layer.path, tuple(skip))]
    if not found:
        raise BackendError(
            f"{model.graph.name} has no matrix product or convolution with float32 weights to "
            "quantize",
            hint="leave precision out",
        )
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for layer in found:
        if not np.isfinite(onnx.numpy_helper.to_array(tensors[layer.weight])).all():
            raise BackendError(
                f"the weight {layer.weight} holds NaN or infinities, which whole numbers are not",
                hint=f"skip={[layer.path]} (--skip {layer.path}) leaves it in float32",
            )
    return found


def quantized(
    model: onnx.ModelProto, batches: Batches | None, skip: Sequence[str] = ()
) -> onnx.ModelProto:
    """The model with weights of 8 bits. `batches` are data of its inputs, which a model with
    convolutions needs. Layers whose paths match `skip` stay as they are. Raises `BackendError` for
    a model that has nothing to quantize, `FeedError` where data are needed or are not finite."""
    tools = _tools()
    found = chosen(model, skip)
    names = {layer.node for layer in found}
    excluded = [n.name for n in model.graph.node if n.op_type in PRODUCTS and n.name not in names]
    integers = {"weight_type": tools.QuantType.QInt8, "per_channel": True}
    with _quiet():
        if any(layer.operator == "Conv" for layer in found):
            return _static(tools, model, batches, {**integers, "nodes_to_exclude": excluded})
        result = _saved(
            tools.quantize_dynamic,
            model,
            op_types_to_quantize=["MatMul", "Gemm"],
            nodes_to_exclude=excluded,
            **integers,
        )
    # The range is that of the batch: no row is apart from the others any more.
    about = {x.key: x.value for x in result.metadata_props if x.key != METADATA_KEY}
    onnx.helper.set_model_props(result, about)
    return result


def _static(
    tools: Any, model: onnx.ModelProto, batches: Batches | None, options: dict[str, Any]
) -> onnx.ModelProto:
    if not batches:
        raise FeedError(
            f"the convolutions of {model.graph.name} are quantized by the ranges of their inputs, "
            "which data must show",
            hint="calibration=data (--calibrate DATA): some hundred examples, as they will come",
        )
    given = list(batches)
    for batch in given:
        for name, array in batch.items():
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                raise FeedError(f"the calibration data hold NaN or infinities in {name!r}")

    class Reader(tools.CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter(given)

        def get_next(self) -> Any:
            return next(self.batches, None)

    return _saved(
        lambda source, target, **given: tools.quantize_static(source, target, Reader(), **given),
        model,
        quant_format=tools.QuantFormat.QDQ,
        activation_type=tools.QuantType.QUInt8,
        op_types_to_quantize=[*PRODUCTS, *_BETWEEN],
        **options,
    )


def weights_of_4_bits(model: onnx.ModelProto, skip: Sequence[str] = ()) -> onnx.ModelProto:
    """The model with the weights of its matrix products in 4 bits: whole numbers from −8 to 7 with
    a scale for each block of `BLOCK` in a column, and activations as they are. onnxruntime
    multiplies by them as they lie (`MatMulNBits`, of its own domain). Raises `BackendError` where
    there is no such product, or onnx_ir is not installed, which onnxruntime's quantizer needs."""
    name, hint = "matmul_nbits_quantizer", "pip install 'nncompile[quantization]'"
    what = "a file with weights of 4 bits"
    module = extra(f"onnxruntime.quantization.{name}", "onnx_ir", what, hint, BackendError)
    found = chosen(model, skip)
    names = {layer.node for layer in found if layer.operator != "Conv"}
    if not names:
        raise BackendError(
            f"{model.graph.name} has no matrix product to store in 4 bits",
            hint="precision='int8' takes convolutions, too",
        )
    plain = _with_products(model, names)
    excluded = [n.name for n in plain.graph.node if n.op_type == "MatMul" and n.name not in names]
    with _quiet():
        quantizer = module.MatMulNBitsQuantizer(
            plain, block_size=BLOCK, is_symmetric=True, nodes_to_exclude=excluded
        )
        quantizer.process()
    result: onnx.ModelProto = quantizer.model.model
    return result


def _with_products(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """The model with a MatMul, and an Add of the bias, in place of each Gemm of these names: of
    Gemm with weights of 4 bits there is no kernel."""
    result = deepcopy(model)
    tensors = {tensor.name: tensor for tensor in result.graph.initializer}
    nodes = list(result.graph.node)
    del result.graph.node[:]
    for node in nodes:
        attributes = attributes_of(node)
        scales = attributes.get("alpha", 1), attributes.get("beta", 1)
        is_plain = not attributes.get("transA") and scales == (1, 1)
        if node.op_type != "Gemm" or node.name not in names or not is_plain:
            result.graph.node.append(node)
            continue
        x, w, *bias = node.input
        if attributes.get("transB"):
            array = onnx.numpy_helper.to_array(tensors[w]).T
            w = f"{w}_transposed"
            if w not in tensors:
                tensors[w] = onnx.numpy_helper.from_array(np.ascontiguousarray(array), w)
                result.graph.initializer.append(tensors[w])
        product = f"{node.output[0]}_product" if bias else node.output[0]
        result.graph.node.append(onnx.helper.make_node("MatMul", [x, w], [product], node.name))
        if bias:
            sum_ = onnx.helper.make_node("Add", [product, *bias], node.output, f"{node.name}_sum")
            result.graph.node.append(sum_)
    return result


def _tools() -> Any:
    return extra("onnxruntime.quantization", "onnxruntime", "quantization", "", BackendError)


def _saved(quantize: Any, model: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """What one of onnxruntime's functions, which write a file, makes of a copy of the model."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "quantized.onnx"
        quantize(deepcopy(model), file, **options)
        return _in_order(onnx.load(file))


def _in_order(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with each node after those that it needs. onnxruntime's functions do not look at
    what the branches of an `If` need, and put it too early, which other runtimes refuse."""
    nodes = list(model.graph.node)
    made = {name: i for i, node in enumerate(nodes) for name in node.output}
    before = {i: [made[n] for n in needs(node) if n in made] for i, node in enumerate(nodes)}
    replace_nodes(model.graph, (nodes[i] for i in TopologicalSorter(before).static_order()))
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the advice that onnxruntime's quantizer logs for files that it has not prepared."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


@dataclass(frozen=True)
class LayerError:
    """How far what a layer gives is from that of the float32 file: the ratio of the squares of the
    float32 numbers to those of the differences, in decibels; 20 dB are a tenth of the numbers."""

    path: str
    operator: str
    decibels: float


def layer_errors(file: Path, quantized_file: Path, batches: Batches) -> list[LayerError]:
    """The error on the data of each layer that has one, with what those before it add; the
    largest first."""
    model, after = onnx.load(file), onnx.load(quantized_file)
    pairs = _of_halves(model, after) or _of_integers(model, after)
    exact = _with_outputs(model, [here for _, here, _ in pairs])
    session = _with_outputs(after, [there for *_, there in pairs])
    signal, noise = np.zeros(len(pairs)), np.zeros(len(pairs))
    for batch in batches:
        before, found = exact.run(batch), session.run(batch)
        for i, (_, here, there) in enumerate(pairs):
            x = before[here].astype(np.float64)
            signal[i] += (x[np.isfinite(x)] ** 2).sum()
            noise[i] += (apart(x, found[there]) ** 2).sum()
    errors = [
        LayerError(layer.path, layer.operator, _decibels(s, n))
        for (layer, *_), s, n in zip(pairs, signal, noise, strict=True)
    ]
    rounded = [error for error in errors if error.decibels < math.inf]
    return sorted(rounded, key=lambda error: error.decibels)


def apart(x: Array, y: Array) -> Array:
    """|x − y| in float64: 0 where both are the same, infinities and NaN too, and infinite where one
    alone is NaN."""
    with np.errstate(invalid="ignore"):
        difference = np.abs(np.asarray(x, np.float64) - y)
    difference[(x == y) | (np.isnan(x) & np.isnan(y))] = 0
    difference[np.isnan(difference)] = np.inf
    return difference


def _of_integers(model: onnx.ModelProto, after: onnx.ModelProto) -> list[tuple[Layer, str, str]]:
    """Of each layer the tensors that are its result in both files, the second of which
    onnxruntime's quantizer has made: it keeps names."""
    tensors = {node.name: node.output[0] for node in after.graph.node}
    produced = set(tensors.values())
    pairs = []
    for layer in layers(model):
        there = tensors.get(layer.node, layer.result)
        here = there.removesuffix("_QuantizeLinear_Input")
        # What follows a node may be part of how its result is quantized, such as a ReLU.
        after_it = (f"{here}_DequantizeLinear_Output", here, there)
        there = next((name for name in after_it if name in produced), "")
        if there:
            pairs.append((layer, here, there))
    return pairs


def _of_halves(model: onnx.ModelProto, after: onnx.ModelProto) -> list[tuple[Layer, str, str]]:
    """The same of a file with weights of 16 bits, whose nodes are known by these: they are not
    those of the other file, and have other numbers in their names."""
    halves = {x.name for x in after.graph.initializer if x.data_type == onnx.TensorProto.FLOAT16}
    biased = {node.name for node in model.graph.node if len(node.input) > 2}
    products: dict[str, list[onnx.NodeProto]] = {}
    for node in after.graph.node:
        if node.op_type in PRODUCTS and node.input[1] in halves:
            products.setdefault(node.input[1].removesuffix(_FOLDED), []).append(node)
    pairs = []
    for layer in layers(model):
        of_weight = products.get(layer.weight.removesuffix(_FOLDED))
        if not of_weight:
            continue
        product = of_weight.pop(0)
        lacks_bias = layer.node in biased and len(product.input) == 2
        result = _after(after, product, ("Cast", "Add") if lacks_bias else ("Cast",))
        if result:
            pairs.append((layer, layer.result, result))
    return pairs


def _after(model: onnx.ModelProto, node: onnx.NodeProto, operators: Sequence[str]) -> str:
    """The result of the operators that follow a node one by one; empty where they do not."""
    result: str = node.output[0]
    for operator in operators:
        following = [n for n in model.graph.node if n.op_type == operator and result in n.input]
        result = following[0].output[0] if len(following) == 1 else ""
    return result


def _decibels(signal: float, noise: float) -> float:
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal and noise < math.inf else -math.inf


def _with_outputs(model: onnx.ModelProto, names: Sequence[str]) -> Session:
    """The model with these tensors as outputs, too."""
    copy = deepcopy(model)
    present = {output.name for output in copy.graph.output}
    for name in dict.fromkeys(names):
        if name not in present:
            info = onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
            copy.graph.output.append(info)
    return Session(copy)
