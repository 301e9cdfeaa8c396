"""Convolutions in the layout that onnxruntime's fastest kernel for them has.

That kernel takes images whose channels lie in blocks, and onnxruntime uses it by itself where the
weights are constants; those of a training step are inputs. Where a session is made for a step, its
convolutions and their gradients at the images are therefore rewritten to the kernel, with nodes
that bring images and weights into its layout and back. Files never hold it: the size of a block
depends on the processor.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nncompile.backends.onnx.protos import attributes_of, replace_nodes
from nncompile.diagnostics.errors import BackendError
from nncompile.runtime.session import Session

DOMAIN = "com.microsoft.nchwc"
# Channels of a block: with AVX-512 and on ARM; with AVX2.
BLOCKS = (16, 8)
# Above, rearranging the weights takes longer than the kernel gains, for images that are small then.
LARGEST = 600_000


def with_blocks(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with the kernel where that is of use; the model itself elsewhere."""
    if all("Conv" not in node.op_type for node in model.graph.node):
        return model
    size = block_size()
    return model if size is None else blocked(model, size)


@cache
def block_size() -> int | None:
    """How many channels a block has on this processor; None where it has no such kernel."""
    return next((size for size in BLOCKS if has_blocks(size)), None)


def has_blocks(size: int) -> bool:
    """Whether the kernel of this processor has blocks of that size: it computes what the operator
    does."""
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.normal(size=(2, 32, 6, 5)).astype(np.float32),
        "w": rng.normal(size=(48, 32, 3, 3)).astype(np.float32),
    }
    model = _example(feeds)
    try:
        expected, found = (
            Session(m, threads=1, optimization="basic").run(feeds)["y"]
            for m in (model, blocked(model, size))
        )
    except BackendError:  # of a processor or a version that has no such kernel
        return False
    return np.allclose(found, expected, rtol=1e-3, atol=1e-3)


def _example(feeds: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    inputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, x.shape) for name, x in feeds.items()
    ]
    node = helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 0, 1, 2])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    graph = helper.make_graph([node], "example", inputs, [output])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def blocked(model: onnx.ModelProto, size: int) -> onnx.ModelProto:
    """The model with the kernel for all convolutions that it is for, in its main graph, in blocks
    of that size; the model itself where it has none of them."""
    weights = {
        info.name: [d.dim_value for d in info.type.tensor_type.shape.dim]
        for info in model.graph.input
        if info.type.tensor_type.elem_type == TensorProto.FLOAT
    }
    found = {
        i: weights[node.input[1]]
        for i, node in enumerate(model.graph.node)
        if node.op_type in ("Conv", "ConvTranspose")
        and not node.domain
        and node.input[1] in weights
        and _has_kernel(node, weights[node.input[1]], size)
    }
    if not found:
        return model
    result = deepcopy(model)
    rewriter = _Rewriter(size)
    for i, node in enumerate(model.graph.node):
        if i in found:
            rewriter.add(node, found[i])
        else:
            rewriter.nodes.append(node)
    replace_nodes(result.graph, rewriter.nodes)
    result.graph.initializer.extend(rewriter.constants.values())
    result.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return result


def _has_kernel(node: onnx.NodeProto, shape: Sequence[int], size: int) -> bool:
    """Whether there is a kernel for a node with weights of that shape, which gains more than the
    layout costs, in blocks of that size."""
    attributes = attributes_of(node)
    if len(shape) != 4 or attributes.get("group", 1) != 1 or "auto_pad" in attributes:
        return False
    if math.prod(shape[2:]) == 1 or not 0 < math.prod(shape) <= LARGEST:
        return False
    if shape[0] % size or shape[1] % size:
        return False
    if node.op_type == "Conv":
        return True
    # The transposition of a convolution is one, too, where it has a result at each place.
    strides, missing = (attributes.get(name, []) for name in ("strides", "output_padding"))
    return all(s == 1 for s in strides) and not any(missing)


class _Rewriter:
    """The nodes of the new graph, in blocks of that size; what two nodes need is made once."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, TensorProto] = {}
        self._known: dict[Any, str] = {}

    def add(self, node: onnx.NodeProto, shape: Sequence[int]) -> None:
        """The kernel in place of a node, with weights of that shape."""
        attributes = attributes_of(node)
        rank = len(shape) - 2
        dilations = list(attributes.get("dilations", [1] * rank))
        pads = list(attributes.get("pads", [0] * (2 * rank)))
        weight, order = node.input[1], [0, 2, 4, 5, 3, 1]
        channels = shape[0]
        if node.op_type == "ConvTranspose":
            weight, order, channels = self._turned(node, weight), [2, 0, 4, 5, 1, 3], shape[1]
            reach = [d * (n - 1) for d, n in zip(dilations, shape[2:], strict=True)]
            pads = [n - pad for n, pad in zip(reach * 2, pads, strict=True)]
        size = self.size
        parts = [shape[0] // size, size, shape[1] // size, size, *shape[2:]]
        split = self._made(node, "Reshape", [weight, self._ints(parts)])
        moved = self._made(node, "Transpose", [split], perm=order)
        sizes = [channels, shape[0] + shape[1] - channels, *shape[2:]]
        filters = self._made(node, "Reshape", [moved, self._ints(sizes)])
        images = self._made(node, "ReorderInput", [node.input[0]], DOMAIN, channels_last=0)
        results = self._made(
            *(node, "Conv", [images, filters, *node.input[2:]], DOMAIN),
            kernel_shape=list(shape[2:]),
            strides=list(attributes.get("strides", [1] * rank)),
            pads=pads,
            dilations=dilations,
            group=1,
        )
        last = helper.make_node(
            *("ReorderOutput", [results], list(node.output), node.name),
            domain=DOMAIN,
            channels=channels,
            channels_last=0,
        )
        last.metadata_props.extend(copy.copy(p) for p in node.metadata_props)
        self.nodes.append(last)

    def _turned(self, node: onnx.NodeProto, weight: str) -> str:
        """The weights with their kernels turned round."""
        back, end, axes = self._ints([-1, -1]), self._ints([-(2**62)] * 2), self._ints([2, 3])
        return self._made(node, "Slice", [weight, back, end, axes, back])

    def _made(
        self,
        node: onnx.NodeProto,
        operator: str,
        inputs: Sequence[str],
        domain: str = "",
        **attributes: Any,
    ) -> str:
        """The result of an operator that a node needs, which is named after it."""
        key = operator, domain, tuple(inputs), repr(sorted(attributes.items()))
        if key not in self._known:
            name = f"{node.name}/{operator}_{len(self._known)}"
            made = helper.make_node(operator, inputs, [name], name, domain=domain, **attributes)
            self.nodes.append(made)
            self._known[key] = name
        return self._known[key]

    def _ints(self, numbers: Sequence[int]) -> str:
        name = f"blocks/{','.join(map(str, numbers))}"
        array = np.asarray(numbers, np.int64)
        self.constants.setdefault(name, numpy_helper.from_array(array, name))
        return name
