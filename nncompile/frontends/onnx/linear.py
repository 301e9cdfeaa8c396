"""Weights that a file stores as attributes of nodes: those of linear models of scikit-learn."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from onnx import numpy_helper

LINEAR = ("LinearRegressor", "LinearClassifier")
_DOMAIN = "ai.onnx.ml"
_NAMES = ("coefficients", "intercepts")


def name_of(node: onnx.NodeProto, attribute: str) -> str:
    """What the tensor is called that an attribute of a node holds."""
    return f"{node.name or node.output[-1]}.{attribute}"


def weights_in(
    node: onnx.NodeProto,
) -> Iterator[tuple[str, onnx.AttributeProto, tuple[int, ...]]]:
    """The tensors that a linear model holds: their names, attributes and shapes, one row and one
    number for each result. None where they are not as many as that."""
    if node.domain != _DOMAIN or node.op_type not in LINEAR or not node.output:
        return
    given = {attribute.name: attribute for attribute in node.attribute}
    intercepts, labels = given.get("intercepts"), given.get("classlabels_ints")
    if intercepts is not None and len(intercepts.floats):
        count = len(intercepts.floats)
    else:
        count = given["targets"].i if "targets" in given else len(labels.ints if labels else [0])
    for attribute in (given[name] for name in _NAMES if name in given):
        size = len(attribute.floats)
        if size and count > 0 and size % count == 0:
            shape = (count, size // count) if attribute.name == "coefficients" else (count,)
            yield name_of(node, attribute.name), attribute, shape


def take_out(graph: onnx.GraphProto) -> None:
    """Makes initializers of these tensors, which no node takes, and leaves their attributes empty:
    so files of other weights have the same nodes."""
    taken = {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        for name, attribute, shape in list(weights_in(node)):
            if name not in taken:
                taken.add(name)
                numbers = np.array(attribute.floats, np.float32).reshape(shape)
                graph.initializer.append(numpy_helper.from_array(numbers, name))
                del attribute.floats[:]
