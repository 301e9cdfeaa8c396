"""The nodes of one ONNX graph, and the names of what they give."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, Self

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from nncompile.diagnostics.errors import BackendError
from nncompile.diagnostics.locations import Location
from nncompile.ir.emitters import OnnxOperator
from nncompile.ir.names import unused_name
from nncompile.ir.types import Array, DType, dtype_of

Attributes = Mapping[str, Any]


class Call(NamedTuple):
    """A call of an ONNX operator, on values by name, for so many outputs."""

    op_type: str
    inputs: tuple[str, ...]
    attributes: Attributes
    domain: str = ""
    outputs: int = 1


class Nodes:
    """Collects the nodes and constants of one graph, of which equal ones are one.

    The graph of a `parent` is around it: what needs nothing from inside is added there, unless this
    one may not run (`conditional`).
    """

    def __init__(self, opset: int, parent: Self | None = None, conditional: bool = False) -> None:
        self.opset = opset
        self.parent = parent
        self.conditional = conditional
        self.nodes: list[onnx.NodeProto] = []
        # The sets of operators that nodes are of, but for the standard one.
        self.domains: dict[str, None] = parent.domains if parent else {}
        # Those of a graph within are the outer one's.
        self.constants: dict[str, Array] = parent.constants if parent else {}
        self._dtypes: dict[str, DType] = parent._dtypes if parent else {}
        # The attributes of nodes by their text, of those that it tells.
        self._plain: dict[str, bytes] = parent._plain if parent else {}
        self._memo: dict[Any, tuple[str, ...]] = {}
        # Names within must not shadow those outside, so there is one set of them.
        self._names: set[str] = parent._names if parent else set()
        # By stem the first number that may be free: those below it need no second look.
        self._next_numbers: dict[str, int] = parent._next_numbers if parent else {}
        # What ops are composed of, by how: see ops/core/composition.py.
        self.compositions: dict[Any, Any] = parent.compositions if parent else {}
        self._inside: set[str] = set()  # names that only this graph knows
        self._location: Location | None = None
        self._stem = ""

    def reserve(self, name: str) -> None:
        """Keeps a name that the user gave from being made up for something else."""
        self._names.add(name)

    def __getattr__(self, op_type: str) -> OnnxOperator:
        if not op_type[:1].isupper():
            raise AttributeError(op_type)
        setattr(Nodes, op_type, _emitting(op_type))  # which is asked for again and again
        operator: OnnxOperator = getattr(self, op_type)
        return operator

    def _operator(self, call: Call) -> tuple[str, ...]:
        """What a call of an operator emits."""
        return self._emit(call)

    def _emit(self, call: Call) -> tuple[str, ...]:
        if call.attributes and holds_graph(call.attributes):
            # No two are equal, for names within are unique; and they may use any name of here.
            return self._added(call)
        if self.parent and not self.conditional and self._inside.isdisjoint(call.inputs):
            with self._at_parent() as parent:
                return parent._emit(call)
        attributes = self._attributes(call.attributes) if call.attributes else b""
        key = (call.op_type, call.inputs, attributes, call.domain, call.outputs)
        names = self._memo.get(key)
        if names is None:
            names = self._memo[key] = self._added(call, attributes)
        return names

    def _added(self, call: Call, attributes: bytes | None = None) -> tuple[str, ...]:
        """Adds a node, whose `attributes` are those of the call, where they are known as bytes."""
        names = tuple([self._fresh(self._stem or call.op_type) for _ in range(call.outputs)])
        node = onnx.NodeProto(
            op_type=call.op_type,
            input=call.inputs,
            output=names,
            name=names[0],
            domain=call.domain,
        )
        if call.domain:
            self.domains[call.domain] = None
        # As bytes, which protobuf takes in half the time that messages take.
        if self._location is not None:
            node.MergeFromString(_metadata(self._location))
        if call.attributes:
            node.MergeFromString(attributes or self._attributes(call.attributes))
        self.nodes.append(node)
        self._inside.update(names)
        return names

    def _attributes(self, attributes: Attributes) -> bytes:
        """The attributes as a node has them."""
        pairs = sorted(attributes.items())
        text = repr(pairs)
        known = self._plain.get(text)
        if known is None:
            protos = [helper.make_attribute(n, x) for n, x in pairs if x is not None]
            known = bytes(onnx.NodeProto(attribute=protos).SerializeToString())
            if all(map(_is_plain, attributes.values())):
                self._plain[text] = known
        return known

    @contextmanager
    def _at_parent(self) -> Iterator[Self]:
        """The outer graph, at the line that is being lowered here."""
        parent = self.parent
        assert parent is not None
        before = parent._location, parent._stem
        parent._location, parent._stem = self._location, self._stem
        try:
            yield parent
        finally:
            parent._location, parent._stem = before

    def _fresh(self, stem: str) -> str:
        number = max(len(self.nodes), self._next_numbers.get(stem, 0))
        while (name := f"{stem}_{number}") in self._names:
            number += 1
        self._names.add(name)
        self._next_numbers[stem] = number + 1
        return name

    def once(self, key: Any, emit: Callable[[], str]) -> str:
        """What `emit` gives the first time in this graph that it is asked for under that key: for
        nodes with graphs within, no two of which are equal by themselves."""
        if key not in self._memo:
            self._memo[key] = (emit(),)
        return self._memo[key][0]

    def constant(self, array: Any) -> str:
        """The name of a constant; equal ones are one."""
        if self.parent:
            return self.parent.constant(array)
        array = np.asarray(array)
        key = ("constant", array.dtype.str, array.shape, array.tobytes())
        if key not in self._memo:
            name = self._fresh_constant(array)
            self.constants[name] = array
            self._dtypes[name] = dtype_of(array.dtype)
            self._memo[key] = (name,)
        return self._memo[key][0]

    def _fresh_constant(self, array: Array) -> str:
        text = str(array.tolist()).replace(" ", "")
        stem = text if len(text) <= 20 else f"constant_{len(self.constants)}"
        name = unused_name(stem, self._names, ":", 1)
        self._names.add(name)
        return name

    def scalar(self, number: Any, dtype: DType) -> str:
        """A scalar constant. Raises `BackendError` for a whole number beyond the element type."""
        try:
            return self.constant(np.asarray(number, dtype.numpy))
        except OverflowError:
            raise BackendError(f"the number {number} is beyond {dtype}") from None

    def ints(self, numbers: Sequence[int]) -> str:
        """A constant vector of i64: axes, shapes, starts … Raises `BackendError` for a number
        beyond 64 bits."""
        try:
            return self.constant(np.asarray(list(numbers), np.int64).reshape(len(numbers)))
        except OverflowError:
            raise BackendError(f"one of the numbers {list(numbers)} is beyond 64 bits") from None

    def initializers(self) -> list[TensorProto]:
        """The constants emitted so far, as tensors of the graph."""
        return [numpy_helper.from_array(a, name) for name, a in self.constants.items()]


def _emitting(op_type: str) -> Callable[..., Any]:
    """The method of an emitter that emits an operator."""

    def emit(
        self: Nodes, *inputs: str, outputs: int | None = None, domain: str = "", **attributes: Any
    ) -> Any:
        names = self._operator(Call(op_type, inputs, attributes, domain, outputs or 1))
        return names[0] if outputs is None else names

    emit.__doc__ = f"What ONNX's operator {op_type} gives."
    return emit


def _is_plain(x: Any) -> bool:
    return all(type(i) in _PLAIN for i in (x if isinstance(x, list | tuple) else (x,)))


_PLAIN = (int, float, str, type(None))


def _metadata(location: Location) -> bytes:
    """What the metadata of a node say of where it was written."""
    return _metadata_of(location.file, location.line, location.scope, location.backward)


@functools.lru_cache(maxsize=4096)
def _metadata_of(file: str, line: int, scope: str, backward: bool) -> bytes:
    place = Location(file, line).place
    props = {"source": place, "scope": scope, **({"direction": "backward"} if backward else {})}
    entries = [onnx.StringStringEntryProto(key=k, value=x) for k, x in props.items()]
    return bytes(onnx.NodeProto(metadata_props=entries).SerializeToString())


def holds_graph(attributes: Attributes) -> bool:
    """Whether a node has a graph within."""
    return onnx.GraphProto in map(type, attributes.values())
