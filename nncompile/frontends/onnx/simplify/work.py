"""The main graph of a file while it is simplified: nodes, constants, and who takes what."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nncompile.backends.onnx.protos import graphs_within, opset_of, taken_within
from nncompile.frontends.onnx.checking import check_node
from nncompile.frontends.onnx.reading import operator
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import schema_of
from nncompile.frontends.onnx.tensors import Tensor, array_of
from nncompile.ir.dims import Dim
from nncompile.ir.types import Array

_CACHED = 1 << 16  # bytes of a constant that is kept as an array


class Item:
    """A node. `captured` are the tensors that graphs within it may take; one that is not `sound`
    has other inputs and attributes than ONNX says, and is left alone."""

    def __init__(self, proto: onnx.NodeProto, is_sound: bool = True) -> None:
        self.proto = proto
        self.is_sound = is_sound
        self.op = operator(proto)
        self.captured = frozenset(taken_within(proto))
        self.is_alive = True

    @property
    def inputs(self) -> list[str]:
        """The names of its inputs."""
        return list(self.proto.input)

    @property
    def output(self) -> str:
        """The name of its first output."""
        return str(self.proto.output[0])

    @property
    def outputs(self) -> list[str]:
        """The names of the outputs that it has."""
        return [name for name in self.proto.output if name]

    def attribute(self, name: str, default: Any = None) -> Any:
        """The value of an attribute, or the default."""
        for attribute in self.proto.attribute:
            if attribute.name == name:
                return helper.get_attribute_value(attribute)
        return default

    def set_attributes(self, **values: Any) -> None:
        """Sets attributes, and drops those that are None."""
        kept = [a for a in self.proto.attribute if a.name not in values]
        made = [helper.make_attribute(n, v) for n, v in values.items() if v is not None]
        del self.proto.attribute[:]
        self.proto.attribute.extend([*kept, *made])

    def become(self, op: str, **attributes: Any) -> None:
        """Makes it a node of another operator of ONNX, with these attributes alone."""
        self.proto.op_type, self.proto.domain, self.op = op, "", op
        del self.proto.attribute[:]
        self.set_attributes(**attributes)


class Work:
    """The main graph of a file. `facts` are the tensors that were evaluated while the file was
    imported, by name: a name means the same tensor as long as there is one."""

    def __init__(self, model: onnx.ModelProto, facts: dict[str, Tensor], directory: str) -> None:
        graph = model.graph
        self.model, self.facts, self.directory = model, facts, directory
        self.opset = opset_of(model)
        self.items = [Item(deepcopy(node), self._is_sound(node)) for node in graph.node]
        self.tensors = {t.name: t for t in graph.initializer}
        self.inputs = [i.name for i in graph.input if i.name not in self.tensors]
        self.overridable = {i.name for i in graph.input} & set(self.tensors)
        self.results = [o.name for o in graph.output]
        self.makers: dict[str, Item] = {}
        self.users: dict[str, list[Item]] = {}
        self.changes = 0
        self.first_bytes = self.stored_bytes()
        self._arrays: dict[str, Array] = {}
        self._names = {*self.tensors, *self.inputs, *(o for i in self.items for o in i.outputs)}
        for item in self.items:
            self._enter(item)

    def _is_sound(self, node: onnx.NodeProto) -> bool:
        if node.domain not in ("", "ai.onnx"):
            return True  # no rule is of its operator
        try:
            check_node(node, schema_of(node.op_type, "", self.opset))
        except Refused:
            return False
        return True

    def _enter(self, item: Item) -> None:
        for name in item.outputs:
            self.makers[name] = item
        for name in {*item.inputs, *item.captured} - {""}:
            self.users.setdefault(name, []).append(item)

    def _leave(self, item: Item) -> None:
        for name in item.outputs:
            self.makers.pop(name, None)
        for name in {*item.inputs, *item.captured} - {""}:
            self.users[name].remove(item)

    # What is known

    def is_constant(self, name: str) -> bool:
        """Whether a name is a tensor that the file stores, and that no caller can override."""
        return name in self.tensors and name not in self.overridable

    def constant(self, name: str) -> Array | None:
        """The numbers of a constant."""
        if not self.is_constant(name):
            return None
        if name not in self._arrays:
            try:
                array = array_of(self.tensors[name], self.directory)
            except Refused:
                return None  # of an element type that there is none of here
            if array.nbytes > _CACHED:
                return array
            self._arrays[name] = array
        return self._arrays[name]

    def whole_tensor(self, name: str) -> onnx.TensorProto:
        """A constant as the file stores it, with its numbers if they lie in another file."""
        tensor: onnx.TensorProto = self.tensors[name]
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return tensor
        array = self.constant(name)
        return tensor if array is None else tensor_of(array, name)

    def known(self, name: str) -> Array | None:
        """The numbers, or numbers and sizes of inputs, of a tensor."""
        if self.is_constant(name):
            return self.constant(name)
        fact = self.facts.get(name)
        return None if fact is None else fact.known

    def shape(self, name: str) -> tuple[Dim, ...] | None:
        """The shape of a tensor, where it is known."""
        if name in self.tensors:
            return tuple(self.tensors[name].dims)
        fact = self.facts.get(name)
        return None if fact is None else fact.type.shape

    def dtype(self, name: str) -> Any:
        """The element type of a tensor, where it is known."""
        if name in self.tensors:
            return np.dtype(helper.tensor_dtype_to_np_dtype(self.tensors[name].data_type))
        fact = self.facts.get(name)
        return None if fact is None else fact.type.dtype.numpy

    def is_alike(self, a: str, b: str) -> bool:
        """Whether two tensors are known to be of one shape and element type."""
        shape = self.shape(a)
        return shape is not None and shape == self.shape(b) and self.dtype(a) == self.dtype(b)

    def uses(self, name: str) -> int:
        """How many nodes take a tensor; an output of the graph counts as one."""
        return len(self.users.get(name, ())) + (name in self.results)

    def maker(self, name: str, *ops: str) -> Item | None:
        """The node that made a tensor, where it is of one of these operators."""
        item = self.makers.get(name)
        fits = item is not None and item.is_sound and (not ops or item.op in ops)
        return item if fits else None

    def only_maker(self, name: str, *ops: str) -> Item | None:
        """The same, where the tensor has no other user."""
        return self.maker(name, *ops) if self.uses(name) == 1 else None

    def stored_bytes(self) -> int:
        """The bytes of all tensors that the file stores."""
        return sum(len(tensor.raw_data) for tensor in self.tensors.values())

    # What is changed

    def set_inputs(self, item: Item, names: Sequence[str]) -> None:
        """Gives a node other inputs, without empty ones at the end."""
        listed = list(names)
        while listed and not listed[-1]:
            listed.pop()
        self._leave(item)
        item.proto.input[:] = listed
        self._enter(item)
        self.changes += 1

    def remove(self, item: Item) -> None:
        """Takes a node out."""
        self._leave(item)
        item.is_alive = False
        self.changes += 1

    def insert(self, place: Item, items: Sequence[Item]) -> None:
        """Puts nodes in the place of one that was removed."""
        position = self.items.index(place)
        self.items[position:position] = items
        for item in items:
            self._enter(item)
        self.changes += 1

    def replace(self, name: str, other: str) -> bool:
        """Makes all that take a tensor take another one, which is equal. The name of an output of
        the graph moves to what makes the other; False where nothing can take it."""
        if name in self.results:
            maker = self.makers.get(other)
            if maker is None or other in self.results:
                return False
            self.remove(self.makers[name])
            self._rename(other, name)
            return True
        for item in list(self.users.get(name, ())):
            self._renamed_in(item, name, other)
        self.changes += 1
        return True

    def _rename(self, name: str, new: str) -> None:
        maker = self.makers[name]
        self._leave(maker)
        maker.proto.output[:] = [new if o == name else o for o in maker.proto.output]
        self._enter(maker)
        for item in list(self.users.get(name, ())):
            self._renamed_in(item, name, new)

    def _renamed_in(self, item: Item, name: str, new: str) -> None:
        self._leave(item)
        rename_inputs(item.proto, name, new)
        item.captured = frozenset(new if x == name else x for x in item.captured)
        self._enter(item)

    def take_output(self, item: Item, other: Item) -> None:
        """Removes `other`, whose only output `item` makes from now on."""
        name = other.output
        self.remove(other)
        self._leave(item)
        item.proto.output[0] = name
        self._enter(item)

    def set_outputs(self, item: Item, names: Sequence[str]) -> None:
        """Gives a node other outputs."""
        self._leave(item)
        item.proto.output[:] = names
        self._enter(item)

    def store(self, array: Array, like: str) -> str:
        """Adds a constant, and returns its name, which begins with `like`."""
        name = self.unused(like)
        self.tensors[name] = tensor_of(array, name)
        return name

    def store_output(self, name: str, tensor: onnx.TensorProto) -> None:
        """Makes a tensor that a node makes a constant."""
        item = self.makers[name]
        if len(item.outputs) == 1:
            self.remove(item)
        else:
            self._leave(item)
            item.proto.output[:] = [
                self.unused(name) if o == name else o for o in item.proto.output
            ]
            self._enter(item)
        tensor.name = name
        self.tensors[name] = tensor
        self.changes += 1

    def store_instead(self, name: str, array: Array, item: Item) -> str:
        """Stores a constant that `item` takes in the place of another one: under the same name
        where no other node takes that, and it is of the same shape."""
        alone = self.users.get(name, []) == [item] and name not in self.results
        alone = alone and item.inputs.count(name) == 1
        if not alone or not self.is_constant(name) or tuple(self.tensors[name].dims) != array.shape:
            return self.store(array, name)
        self._arrays.pop(name, None)
        self.tensors[name] = tensor_of(array, name)
        return name

    def unused(self, like: str) -> str:
        """A name that no tensor has."""
        number, name = 2, like
        while name in self._names:
            name, number = f"{like}_{number}", number + 1
        self._names.add(name)
        return name

    def live(self) -> list[Item]:
        """The nodes that are there, in their order."""
        self.items = [item for item in self.items if item.is_alive]
        return list(self.items)


def tensor_of(array: Array, name: str = "") -> onnx.TensorProto:
    """The array as a tensor of a file."""
    return numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)


def rename_inputs(proto: onnx.NodeProto, name: str, new: str) -> None:
    """Gives a tensor another name in a node, and in the graphs within it."""
    for i, old in enumerate(proto.input):
        if old == name:
            proto.input[i] = new
    for graph in graphs_within(proto):
        for node in graph.node:
            rename_inputs(node, name, new)
        for output in graph.output:
            if output.name == name:
                output.name = new
