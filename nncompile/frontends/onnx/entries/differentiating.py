"""ai.onnx.preview.training: the gradient of a tensor of the file, as a node of it."""

from __future__ import annotations

from typing import Any

from nncompile.autodiff.grad import vjp
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.frontends.onnx.tensors import Tensor
from nncompile.ir.broadcasting import ones_like
from nncompile.ir.transform import replace


@imports("Gradient", domain="ai.onnx.preview.training", raw=True)
def _gradient(n: Node, *given: Tensor) -> Any:
    """Those of all elements of `y` together at the tensors `xs`. Where the node gets others than
    the tensors that `xs` and `zs` name, the gradient is taken there."""
    importer, environment = n.context
    names = [*n.required("xs"), *(n["zs"] or ())]
    if len(names) != len(given):
        raise Refused(f"{len(given)} inputs for the {len(names)} tensors {', '.join(names)}")
    tensors = [importer.fetched(environment, name) for name in (*names, n.required("y"))]
    if not all(isinstance(t, Tensor) for t in (*tensors, *given)):
        raise Refused("a sequence or an optional stands for a tensor")
    *own, y = tensors
    if y.known is not None:
        raise Refused(f"{n['y']} is a number, which does not say what it was made of")
    values = [t.value for t in own]
    gradients = vjp(y.value, values[: len(n["xs"])], ones_like(y.value))
    others = {v: t.value for v, t in zip(values, given, strict=True) if t.value is not v}
    for v, other in others.items():
        if other.type != v.type:
            raise Refused(f"{other.type} for a tensor {v.type}")
    gradients = replace(gradients, others) if others else gradients
    return tuple(gradients[: len(n.outputs)])
