"""The bodies that ONNX defines operators by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import onnx

from nncompile.ir.types import Type


def fits_body(schema: Any) -> bool:
    """Whether ONNX defines the operator by others."""
    return bool(schema.has_function or schema.has_context_dependent_function)


def body_of(
    schema: Any,
    node: onnx.NodeProto,
    attributes: Mapping[str, Any],
    types: Sequence[Type | None],
) -> onnx.FunctionProto | None:
    """The function that defines the operator, for inputs of these types; None where there is
    none."""
    if schema.has_function:
        versions = sorted(schema.function_opset_versions)
        content = schema.get_function_with_opset_version(versions[-1])
        return _parsed(content) if content else None
    plain = deepcopy(node)
    del plain.attribute[:]
    for name, value in attributes.items():
        if (value is not None and not isinstance(value, list)) or value:
            plain.attribute.append(onnx.helper.make_attribute(name, value))
    protos = [_type(t).SerializeToString() for t in types]
    for version in sorted(schema.context_dependent_function_opset_versions, reverse=True):
        content = schema.get_context_dependent_function_with_opset_version(
            version, plain.SerializeToString(), protos
        )
        if content:
            return _parsed(content)
    return None


def _type(type_: Type | None) -> onnx.TypeProto:
    if type_ is None:
        return onnx.TypeProto()
    number = onnx.helper.np_dtype_to_tensor_dtype(type_.dtype.numpy)
    shape = [d if isinstance(d, int) else str(d) for d in type_.shape]
    proto: onnx.TypeProto = onnx.helper.make_tensor_type_proto(number, shape)
    return proto


def _parsed(content: bytes) -> onnx.FunctionProto:
    function: onnx.FunctionProto = onnx.FunctionProto.FromString(content)
    return function
