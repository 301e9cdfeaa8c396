"""Whether a node is one of its operator: as many inputs and outputs, and attributes of the types,
that ONNX says."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import onnx

from nncompile.frontends.onnx.refusals import Refused

_OPTIONAL = onnx.defs.OpSchema.FormalParameterOption.Optional


def check_node(node: onnx.NodeProto, schema: Any) -> None:
    """Raises `Refused` where the node does not fit what onnx says of the operator."""
    if schema is None:
        return
    _check_count("inputs", len(node.input), schema.min_input, schema.max_input)
    _check_count("outputs", len(node.output), schema.min_output, schema.max_output)
    for i, name in enumerate(node.input):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]  # the last one may be several
        if not name and formal.option != _OPTIONAL:
            raise Refused(f"its input {formal.name} is missing")
    given = {attribute.name: attribute for attribute in node.attribute}
    unknown = [n for n in given if n not in schema.attributes and not n.startswith("_")]
    if unknown:
        names = ", ".join(repr(name) for name in unknown)
        raise Refused(f"the operator has no attribute {names}")
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
        if name in _FLAGS and attribute.i not in (0, 1):
            raise Refused(f"its attribute {name} is {attribute.i}, neither 0 nor 1")


# Attributes that say yes or no: of other numbers, each runtime makes something else.
_FLAGS = frozenset(
    (
        *("allowzero", "antialias", "ceil_mode", "count_include_pad", "detect_negative"),
        *("detect_positive", "exclude_outside", "exclusive", "fmod", "is_causal", "keepdims"),
        *("largest", "linear_before_reset", "new_axis", "noop_with_empty_axes", "reverse"),
        *("saturate", "select_last_index", "sorted", "storage_order", "training_mode"),
        *("transA", "transB", "upper"),
    )
)


def check_body(body: Any, inputs: int, outputs: int, least: int = 0) -> None:
    """Raises `Refused` where a graph within a node has other inputs than it is given, or fewer
    results than the node has, or than `least`."""
    stored = {tensor.name for tensor in body.initializer}
    formals = [x.name for x in body.input if x.name not in stored]
    if len(formals) != inputs:
        raise Refused(f"its graph {body.name!r} has {len(formals)} inputs, and gets {inputs}")
    if len(body.output) < max(outputs, least):
        count = max(outputs, least)
        raise Refused(f"its graph {body.name!r} has {len(body.output)} results, not {count}")


def axis_in(x: Any, axis: int) -> int:
    """The axis, counted from the front. Raises `Refused` where x, a value, has none of it."""
    if x.rank == 0 and axis in (-1, 0):  # one number is taken for a vector of one
        return 0
    if not -x.rank <= axis < x.rank:
        raise Refused(f"axis {axis} does not exist in a tensor of rank {x.rank}")
    return axis % int(x.rank)


def check_slices(*parts: Sequence[Any]) -> None:
    """Raises `Refused` where starts, ends, axes and steps of slices are not equally many."""
    counts = [len(part) for part in parts]
    if len({*counts}) > 1:
        names = ("starts", "ends", "axes", "steps")
        said = ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))
        raise Refused(f"it has {said}")


def check_rank(n: Any, *values: Any, rank: int) -> None:
    """Raises `Refused` where the first inputs of a node are not of that rank."""
    for i, value in enumerate(values):
        if value.rank != rank:
            raise Refused(f"its input {n.label(i)} is of rank {value.rank}, not {rank}")


def check_kinds(inputs: Sequence[Any], schema: Any) -> None:
    """Raises `Refused` for a sequence in the place of a tensor, and the other way round."""
    if schema is None:
        return
    for i, given in enumerate(inputs):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)]
        types = _types_of(schema.domain, schema.name, schema.since_version, formal.type_str)
        if given is None:
            if formal.option != _OPTIONAL and not any(t.startswith("optional(") for t in types):
                raise Refused(f"its input {formal.name} is missing")
            continue
        kinds = {kind.removeprefix("optional(").partition("(")[0] for kind in types}
        if ("seq" if isinstance(given, list) else "tensor") not in kinds:
            kind = "a sequence" if isinstance(given, list) else "a tensor"
            raise Refused(f"its input {formal.name} is {kind}")


@functools.cache
def _types_of(domain: str, op: str, version: int, letter: str) -> tuple[str, ...]:
    """The types that a letter of an operator stands for, or the type that stands in its place."""
    schema = onnx.defs.get_schema(op, version, domain)
    found = [c for c in schema.type_constraints if c.type_param_str == letter]
    return tuple(found[0].allowed_type_strs) if found else (letter,)


_ANY = (1 << 31) - 1  # the most of an operator that takes any number


def _check_count(what: str, count: int, least: int, most: int) -> None:
    if not least <= count <= most:
        expected = f"{least} to {most}"
        if least == most or most == _ANY:
            expected = f"{least}" if least == most else f"{least} or more"
        raise Refused(f"it has {count} {what}, not {expected}")


_LARGEST = 1 << 47  # bytes, as many as a process can address


def check_size(type_: Any) -> None:
    """Raises `Refused` for a tensor larger than any memory, of which a few bytes of a file ask."""
    sizes = [d for d in getattr(type_, "shape", ()) if isinstance(d, int)]
    if 0 not in sizes and math.prod(sizes) * type_.dtype.numpy.itemsize > _LARGEST:
        raise Refused(f"a tensor of {type_} is larger than any memory")
