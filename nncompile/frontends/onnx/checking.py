"""Whether a node is one of its operator: as many inputs and outputs, and attributes of the types,
that ONNX says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx

from nncompile.frontends.onnx.refusals import Refused


def check_node(node: onnx.NodeProto, schema: Any) -> None:
    """Raises `Refused` where the node does not fit what onnx says of the operator."""
    if schema is None:
        return
    _check_count("inputs", len(node.input), schema.min_input, schema.max_input)
    _check_count("outputs", len(node.output), schema.min_output, schema.max_output)
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    for formal, name in zip(schema.inputs, node.input, strict=False):
        if not name and formal.option != optional:
            raise Refused(f"its input {formal.name} is missing")
    given = {attribute.name: attribute for attribute in node.attribute}
    for name, declared in schema.attributes.items():
        attribute = given.get(name)
        if attribute is None:
            if declared.required:
                raise Refused(f"its attribute {name} is missing")
            continue
        if attribute.ref_attr_name:
            continue
        expected = int(getattr(declared.type, "value", declared.type))
        if attribute.type != expected:
            kinds = onnx.AttributeProto.AttributeType
            raise Refused(f"its attribute {name} is not {kinds.Name(expected)}")


def check_kinds(inputs: Sequence[Any], schema: Any) -> None:
    """Raises `Refused` for a sequence in the place of a tensor, and the other way round."""
    if schema is None:
        return
    for i, given in enumerate(inputs):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]
        kinds = {str(kind).removeprefix("optional(").partition("(")[0] for kind in formal.types}
        if given is not None and ("seq" if isinstance(given, list) else "tensor") not in kinds:
            kind = "a sequence" if isinstance(given, list) else "a tensor"
            raise Refused(f"its input {formal.name} is {kind}")


def _check_count(what: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        expected = f"{least}" if least == most else f"{least} to {most}"
        raise Refused(f"it has {count} {what}, not {expected}")
