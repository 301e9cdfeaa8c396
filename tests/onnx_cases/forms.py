"""A sample as a node of an earlier version of its operator, and what that is compared with."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import onnx
from onnx import AttributeProto, helper
from onnx.reference import ReferenceEvaluator

from tests.onnx_cases.samples import Operator, Sample, formal, opset_of, schema_of, types_of
from tests.sessions import plain_session

_WORDS = {"constant_value": "value", "K": "k"}  # inputs whose attribute has another name


def versions_of(operator: Operator) -> Mapping[int, onnx.defs.OpSchema]:
    """The schemas of an operator, by the opset that each is since; the oldest first."""
    return _schemas().get(operator, {})


@cache
def _schemas() -> dict[Operator, dict[int, onnx.defs.OpSchema]]:
    found: dict[Operator, dict[int, onnx.defs.OpSchema]] = {}
    for s in sorted(onnx.defs.get_all_schemas_with_history(), key=lambda s: s.since_version):
        found.setdefault((s.domain, s.name), {})[s.since_version] = s
    return found


def as_version(sample: Sample, schema: onnx.defs.OpSchema) -> Sample | None:
    """The sample as a node of this version, with numbers of inputs as attributes where it has them
    there; None where that says something else, or its element types are others."""
    if len(sample.model.graph.node) > 1:
        return _moved(sample, schema)
    newer = schema_of(sample)
    if newer is None:
        return None
    if newer.since_version == schema.since_version:
        return sample
    node = onnx.NodeProto()
    node.CopyFrom(sample.node)
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    names = _inputs(sample, newer, schema, attributes)
    if names is None or not _takes(attributes, newer, schema):
        return None
    del node.input[:], node.attribute[:], node.output[:]
    node.input.extend(names)
    node.output.extend(sample.node.output[: schema.max_output])
    node.attribute.extend(_attributes(attributes, schema))
    kept = {n: x for n, x in sample.inputs.items() if n in names}
    if not _fits(node, kept, schema):
        return None
    model = _model(sample, node, kept, schema.since_version)
    return Sample(sample.name, sample.operators, model, kept)


def _moved(sample: Sample, schema: onnx.defs.OpSchema) -> Sample:
    """The same nodes in another opset."""
    model = onnx.ModelProto()
    model.CopyFrom(sample.model)
    for opset in model.opset_import:
        if opset.domain == schema.domain:
            opset.version = schema.since_version
    return Sample(sample.name, sample.operators, model, sample.inputs)


def _inputs(
    sample: Sample,
    newer: onnx.defs.OpSchema,
    schema: onnx.defs.OpSchema,
    attributes: dict[str, Any],
) -> list[str] | None:
    """The names of the inputs that stay; those that are attributes in that version join those. None
    where one is neither."""
    names: list[str] = []
    older = [f.name.lower() for f in schema.inputs]
    for i, name in enumerate(sample.node.input):
        new = formal(newer.inputs, i).name
        word = _WORDS.get(new, new)
        is_same = i < len(older) and (new.lower() == older[i] or word not in schema.attributes)
        if is_same or (older and formal(schema.inputs, i).option == _OPTIONS.Variadic):
            names.append(name)
        elif not name:
            continue
        elif word in schema.attributes and name in sample.inputs:
            numbers = np.asarray(sample.inputs[name])
            single = schema.attributes[word].type in (_KINDS.INT, _KINDS.FLOAT)
            attributes[word] = numbers.reshape(-1)[0].item() if single else numbers.tolist()
        else:
            return None
    return names


_OPTIONS = onnx.defs.OpSchema.FormalParameterOption
_KINDS = onnx.defs.OpSchema.AttrType


def _takes(
    attributes: dict[str, Any], newer: onnx.defs.OpSchema, schema: onnx.defs.OpSchema
) -> bool:
    """Whether the version has the attributes, without those that are as they are by default."""
    for name in list(attributes):
        if name in schema.attributes:
            continue
        default = newer.attributes[name].default_value if name in newer.attributes else None
        if default is None or default.type == AttributeProto.UNDEFINED:
            return False
        if helper.get_attribute_value(default) != attributes[name]:
            return False
        del attributes[name]
    return all(n in attributes for n, a in schema.attributes.items() if a.required)


def _attributes(
    attributes: Mapping[str, Any], schema: onnx.defs.OpSchema
) -> list[onnx.AttributeProto]:
    made = []
    for name, value in attributes.items():
        kind = schema.attributes[name].type
        if kind == _KINDS.STRING and isinstance(value, int):  # the element type of a cast
            value = onnx.TensorProto.DataType.Name(value)
        elif kind == _KINDS.FLOAT:
            value = float(value)
        elif kind == _KINDS.FLOATS:
            value = [float(v) for v in value]
        made.append(helper.make_attribute(name, value))
    return made


def _fits(node: onnx.NodeProto, inputs: Mapping[str, Any], schema: onnx.defs.OpSchema) -> bool:
    """Whether the version takes inputs of these types, and so many."""
    if not schema.min_input <= len(node.input) <= schema.max_input:
        return False
    for i, name in enumerate(node.input):
        x = inputs.get(name)
        if not name and formal(schema.inputs, i).option == _OPTIONS.Single:
            return False
        if isinstance(x, np.ndarray) and type_string(x) not in types_of(
            schema, formal(schema.inputs, i).type_str
        ):
            return False
    return True


def type_string(x: np.ndarray) -> str:
    """The type as schemas write it."""
    number = helper.np_dtype_to_tensor_dtype(x.dtype)
    return f"tensor({onnx.TensorProto.DataType.Name(number).lower()})"


def _model(
    sample: Sample, node: onnx.NodeProto, inputs: Mapping[str, Any], opset: int
) -> onnx.ModelProto:
    graph = onnx.GraphProto()
    graph.CopyFrom(sample.model.graph)
    kept = [i for i in graph.input if i.name in inputs]
    results = [o for o in graph.output if o.name in node.output]
    del graph.node[:], graph.input[:], graph.output[:]
    graph.node.append(node)
    graph.input.extend(kept)
    graph.output.extend(results)
    domain = sample.operators[0][0]
    opsets = [helper.make_opsetid(domain, opset)]
    if domain:
        opsets.append(helper.make_opsetid("", opset_of(sample.model, "")))
    return helper.make_model(
        graph, opset_imports=opsets, ir_version=min(10, sample.model.ir_version)
    )


def by_onnxruntime(sample: Sample) -> list[Any] | None:
    """What onnxruntime makes of the file, without optimizations; None where it cannot."""
    try:
        session = plain_session(sample.model, optimized=False)
        results: list[Any] = session.run(None, _fed(sample))
    except Exception:  # for a version, an element type or an attribute that it has no kernel for
        return None
    return results


def by_reference(sample: Sample) -> list[Any] | None:
    """What onnx's own evaluation makes of the file; None where it cannot."""
    try:
        results: list[Any] = ReferenceEvaluator(sample.model).run(None, _fed(sample))
    except Exception:  # as above
        return None
    return results


def _fed(sample: Sample) -> dict[str, Any]:
    return {n: x for n, x in sample.inputs.items() if x is not None}
