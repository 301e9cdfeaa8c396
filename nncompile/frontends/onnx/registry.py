"""The table of what each ONNX operator is here, and a node as an entry sees it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import helper

from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.tensors import Tensor
from nncompile.ir.types import Array, Type

Entry = Callable[..., Any]


@dataclass(frozen=True)
class Registered:
    """An entry: its function gets a `Node` and its inputs, as values; those in `known` as their
    numbers, and where `raw` as tensors of the file."""

    function: Entry
    known: frozenset[int]
    raw: bool


ENTRIES: dict[tuple[str, str], Registered] = {}


def imports(
    *ops: str, known: Collection[int] = (), raw: bool = False, domain: str = ""
) -> Callable[[Entry], Entry]:
    """A decorator: the function imports these operators. It returns a value or a tensor, or several
    where they have several results."""

    def declare(function: Entry) -> Entry:
        for op in ops:
            ENTRIES[domain, op] = Registered(function, frozenset(known), raw)
        return function

    return declare


def schema_of(op: str, domain: str, opset: int) -> onnx.defs.OpSchema | None:
    """What onnx says of an operator at that opset; None where it does not know it."""
    try:
        return onnx.defs.get_schema(op, opset, domain)
    except onnx.defs.SchemaError:
        return None


@dataclass
class Node:
    """A node of a file, with attributes as Python's values, defaults included."""

    proto: onnx.NodeProto
    domain: str
    opset: int
    schema: onnx.defs.OpSchema | None
    inputs: list[Tensor | None]
    attributes: dict[str, Any]
    context: Any = None  # the importer and the tensors around, for those with graphs within
    opsets: Mapping[str, int] = field(default_factory=dict)

    @property
    def op(self) -> str:
        """The operator."""
        return self.proto.op_type

    @property
    def version(self) -> int:
        """The opset that its operator is as it is since."""
        return self.schema.since_version if self.schema is not None else self.opset

    @property
    def outputs(self) -> Sequence[str]:
        """The names of its results; empty for one that is left out."""
        names: Sequence[str] = self.proto.output
        return names

    def __getitem__(self, attribute: str) -> Any:
        """The attribute; None where it is not given and has no default."""
        return self.attributes.get(attribute)

    def required(self, attribute: str) -> Any:
        """The attribute. Raises `Refused` where it is not given and has no default."""
        value = self[attribute]
        if value is None:
            raise Refused(f"its attribute {attribute} is missing")
        return value

    def sizes(self, attribute: str, count: int, otherwise: Any = None) -> tuple[Any, ...]:
        """An attribute of so many numbers, one for each axis as a rule: all `otherwise` where
        it is not given, or empty. Raises `Refused` where they are more or fewer, or are missing."""
        value = self[attribute] or ()
        if otherwise is not None and not len(value):
            return (otherwise,) * count
        if len(value) != count:
            raise Refused(f"its attribute {attribute} has {len(value)} numbers, not {count}")
        return tuple(value)

    def given(self, i: int) -> bool:
        """Whether there is an input of that number."""
        return i < len(self.inputs) and self.inputs[i] is not None

    def type_of(self, i: int) -> Type:
        """The type of an input. Raises `Refused` where there is none."""
        tensor = self.inputs[i]
        if tensor is None:
            raise Refused(f"its input {self.label(i)} is missing")
        return tensor.type

    def known(self, i: int) -> Array | None:
        """The numbers and sizes of an input; None where there is none. Raises `Refused` where they
        depend on data."""
        if not self.given(i):
            return None
        tensor = self.inputs[i]
        assert tensor is not None
        if tensor.known is None:
            raise Refused(f"{self.label(i)} depends on data", tensor.name or None)
        return tensor.known

    def label(self, i: int) -> str:
        """What ONNX calls an input."""
        formals = self.schema.inputs if self.schema is not None else ()
        return formals[min(i, len(formals) - 1)].name if formals else f"input {i}"

    def numbers(self, i: int) -> Array | None:
        """The same, without sizes of inputs."""
        known = self.known(i)
        if known is not None and known.dtype == object:
            raise Refused(f"{self.label(i)} depends on a size")
        return known

    def ints(self, i: int) -> list[int] | None:
        """An input of whole numbers as a list."""
        numbers = self.numbers(i)
        return None if numbers is None else [int(x) for x in numbers.reshape(-1)]

    def number(self, i: int, otherwise: Any = None) -> Any:
        """An input of one number."""
        numbers = self.numbers(i)
        if numbers is None:
            return otherwise
        if numbers.size != 1:
            raise Refused(f"{self.label(i)} must be one number, it has {numbers.size}")
        return numbers.reshape(-1)[0].item()

    def option(self, i: int, attribute: str) -> list[int] | None:
        """What older versions have as an attribute and later ones as an input."""
        if self.given(i):
            return self.ints(i)
        value = self[attribute]
        return None if value is None else [int(x) for x in np.reshape(value, -1)]


def attributes_of(
    node: onnx.NodeProto, schema: onnx.defs.OpSchema | None, outer: dict[str, Any] | None
) -> dict[str, Any]:
    """The attributes of a node, those that refer to a function's replaced, with the defaults of its
    schema. `outer` are those of the function around it, None where there is none."""
    values: dict[str, Any] = {}
    if schema is not None:
        for name, attribute in schema.attributes.items():
            if attribute.default_value.type != onnx.AttributeProto.UNDEFINED:
                values[name] = _decoded(attribute.default_value)
    for attribute in node.attribute:
        if attribute.ref_attr_name:
            if outer is None:
                raise Refused(
                    f"its attribute {attribute.name} is that of a function, and it is in none"
                )
            if attribute.ref_attr_name in outer:
                values[attribute.name] = outer[attribute.ref_attr_name]
            continue
        values[attribute.name] = _decoded(attribute)
    return values


def _decoded(attribute: onnx.AttributeProto) -> Any:
    if attribute.type == onnx.AttributeProto.TENSOR:
        return attribute.t
    value = helper.get_attribute_value(attribute)
    if value is None:
        raise Refused(f"its attribute {attribute.name} is of no type")
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.GraphProto | onnx.TensorProto | int | float):
        return value
    if isinstance(value, onnx.SparseTensorProto | onnx.TypeProto):
        return value
    return [x.decode("utf-8", "replace") if isinstance(x, bytes) else x for x in value]
