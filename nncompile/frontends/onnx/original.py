"""The file that a model was loaded from, with other weights: nothing else of it is new."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from nncompile.backends.onnx import write
from nncompile.backends.onnx.protos import all_nodes
from nncompile.diagnostics.locations import LocationTable, recording_locations
from nncompile.frontends.onnx.linear import weights_in
from nncompile.frontends.onnx.quantized import quantized_again
from nncompile.frontends.onnx.reading import model_apart
from nncompile.frontends.onnx.roles import Stored
from nncompile.frontends.onnx.stored import read_tensor
from nncompile.frontends.onnx.tensors import array_of, dtype_from
from nncompile.frontends.onnx.writing import LIMIT
from nncompile.ir.graph import input_of
from nncompile.ir.names import unused_name
from nncompile.ir.op import Packed, Value, packed, unpacked
from nncompile.ir.types import Array
from nncompile.program.model import leaves_of

Place = Callable[[Mapping[str, Array]], Mapping[str, tuple[str, int, int]]]
"""Writes arrays by name into one file, and gives its path from the model, and of each array its
first byte in there and how many it has."""


@dataclass(frozen=True)
class Kept:
    """A tensor of a file, by its name there, that is the parameter or state `path`, or the
    transpose of it. One that only `users` take, nodes by their first outputs and which of their
    inputs, is a parameter of its own here and was shared there."""

    name: str
    path: str
    is_transposed: bool = False
    is_quantized: bool = False
    users: tuple[tuple[str, int], ...] = ()

    @classmethod
    def of(cls, stored: Stored) -> Kept:
        """What it says of a tensor that is a leaf."""
        first = stored if stored.same_as is None else stored.same_as
        name = stored.name if stored.copy_of is None else stored.copy_of
        users = tuple((node.output[0], i) for node, i in stored.users)
        return cls(name, first.path, stored.transposed, stored.integers is not None, users)


@dataclass(frozen=True, eq=False)
class OriginalFile:
    """The file at `path`, whose nodes have this digest; its tensors, and what its outputs were."""

    path: Path
    digest: str
    tensors: tuple[Kept, ...]
    outputs: Mapping[str, Value]
    options: Mapping[str, Any]  # that it was loaded with
    size: int  # bytes of its tensors

    @classmethod
    def of(
        cls, path: Path, digest: str, stored: Sequence[Stored], outputs: Mapping[str, Value],
        options: Mapping[str, Any],
    ) -> OriginalFile:  # fmt: skip
        """That of what was imported."""
        kept = tuple(Kept.of(s) for s in stored if s.role != "constant")
        own = (s.array if s.integers is None else s.integers for s in stored if s.copy_of is None)
        size = sum(array.nbytes for array in own)
        return cls(path.resolve(), digest, kept, dict(outputs), options, size)

    def __reduce__(self) -> Any:
        nodes, places = packed(self.outputs.values())
        named = [(name, places[v]) for name, v in self.outputs.items()]
        about = dict(self.options), self.size
        return _restored, (self.path, self.digest, self.tensors, nodes, named, *about)

    def computes(self, outputs: Mapping[str, Value]) -> bool:
        """Whether these are its outputs, and all of them."""
        return list(outputs) == list(self.outputs) and all(
            outputs[name] is value for name, value in self.outputs.items()
        )

    def resized(self, parameters: Mapping[str, Value]) -> dict[str, Array]:
        """Numbers for the parameters that are of other sizes than in the file."""
        shapes = {input_of(leaf).name: leaf.shape for leaf in leaves_of(self.outputs.values())}
        return {
            path: np.arange(math.prod(leaf.shape), dtype=leaf.dtype.numpy).reshape(leaf.shape)
            for path, leaf in parameters.items()
            if shapes.get(path, leaf.shape) != leaf.shape
        }

    def problem(self, parameters: Mapping[str, Value]) -> str | None:
        """Why it cannot be written with other weights; None where it can."""
        if self.options.get("outputs") is not None or self.options.get("static"):
            return "it was loaded without some of its outputs, or with sizes that were fixed"
        if not self.path.is_file():
            return f"{self.path} is gone"
        resized = self.resized(parameters)
        if any(kept.is_quantized and kept.path in resized for kept in self.tensors):
            return "a quantized weight is of another size"
        with model_apart(self.path) as (model, _):
            if digest_of(model) != self.digest:
                return f"{self.path} was changed since it was loaded"
            training = training_nodes(model)
        if training:
            return f"it is in training mode, as of {', '.join(training)}"
        sizes = (math.prod(x.shape) * x.dtype.numpy.itemsize for x in parameters.values())
        if self.is_whole and sum(sizes) > LIMIT:
            return "its weights do not fit in one file"
        return None

    @property
    def is_whole(self) -> bool:
        """Whether its weights fit in one file with it."""
        return self.size <= LIMIT

    def with_weights(
        self,
        weights: Mapping[str, Array],
        outputs: Mapping[str, Value],
        place: Place | None = None,
    ) -> Callable[[Path], None]:
        """A function that writes the file, with these numbers of the parameters and states by
        path; the others as they are. Where they are of other sizes, so are its outputs. What it has
        in other files, `place` puts into one, by name, and says where it lies; without it, the file
        is whole. The function raises what `read_model` does."""
        return partial(self._write, weights, outputs, place)

    def _write(
        self,
        weights: Mapping[str, Array],
        outputs: Mapping[str, Value],
        place: Place | None,
        file: Path,
    ) -> None:
        with model_apart(self.path) as (model, apart):
            stored = _Tensors(model, str(self.path.parent), place is not None, apart)
            for kept in self.tensors:
                if kept.path not in weights:
                    continue
                array = weights[kept.path].T if kept.is_transposed else weights[kept.path]
                if kept.users:
                    stored.split(kept, array)
                else:
                    stored.put(kept, array)
            if place is not None:
                stored.locate(place)
            if not self.computes(outputs):
                del model.graph.value_info[:]
                for formal in model.graph.output:
                    for size, d in zip(
                        outputs[formal.name].shape, formal.type.tensor_type.shape.dim, strict=False
                    ):
                        if isinstance(size, int):
                            d.dim_value = size
            write(model, file, stored.elements)


def _restored(
    path: Path, digest: str, tensors: tuple[Kept, ...], nodes: Packed,
    named: Sequence[tuple[str, int]], options: Mapping[str, Any], size: int,
) -> OriginalFile:  # fmt: skip
    """One that was pickled; its values are those of the models that were pickled with it."""
    with recording_locations(LocationTable()):
        values = unpacked(nodes)
    outputs = {name: values[place] for name, place in named}
    return OriginalFile(path, digest, tensors, outputs, options, size)


def digest_of(model: onnx.ModelProto) -> str:
    """What tells files of other nodes apart, whatever their weights."""
    digest = hashlib.blake2b(digest_size=16)
    for node in model.graph.node:
        digest.update(node.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        digest.update(f"{tensor.name} {tensor.data_type} {list(tensor.dims)}".encode())
    return digest.hexdigest()


def training_nodes(model: onnx.ModelProto) -> list[str]:
    """The nodes that compute otherwise in training, and are told to: a batch normalization by the
    batch, a dropout that drops."""
    numbers = {t.name: t for t in model.graph.initializer}
    found: dict[str, None] = {}
    for node in all_nodes(model.graph.node):
        modes = [a.i for a in node.attribute if a.name == "training_mode"]
        is_batch = node.op_type == "BatchNormalization" and (any(modes) or len(node.output) > 1)
        mode = node.input[2] if node.op_type == "Dropout" and len(node.input) > 2 else ""
        # What is no stored number may be True.
        drops = bool(mode) and (mode not in numbers or bool(numpy_helper.to_array(numbers[mode])))
        if is_batch or drops:
            found[node.name or node.output[0]] = None
    return list(found)[:3]


class _Tensors:
    """The tensors that a file stores, to be replaced."""

    def __init__(
        self,
        model: onnx.ModelProto,
        directory: str,
        beside: bool,
        apart: Mapping[str, memoryview],
    ) -> None:
        self.graph = model.graph
        # Those of initializers that are apart from the model.
        self.elements: dict[str, Array | memoryview] = dict(apart)
        self._apart = apart
        self._initializers = {t.name for t in model.graph.initializer}
        self.outside: dict[str, Array] = {}  # of those in other files that are to stay in one
        self.directory = directory
        self.by_name = {t.name: t for t in model.graph.initializer}
        for node in model.graph.node:
            if node.op_type == "Constant" and not node.domain:
                for attribute in node.attribute:
                    if attribute.name == "value":
                        self.by_name[node.output[0]] = attribute.t
        self.attributes: dict[str, onnx.AttributeProto] = {}
        for node in model.graph.node:
            for name, attribute, shape in weights_in(node):
                numbers = np.array(attribute.floats, np.float32).reshape(shape)
                if name not in self.by_name:
                    self.by_name[name] = numpy_helper.from_array(numbers, name)
                    self.attributes[name] = attribute
        self.external = {
            name: tensor
            for name, tensor in self.by_name.items()
            if tensor.data_location == onnx.TensorProto.EXTERNAL
        }
        if not beside:
            for tensor in self.external.values():
                name = tensor.name
                tensor.CopyFrom(numpy_helper.from_array(array_of(tensor, directory), name))
            self.external = {}

    def locate(self, place: Place) -> None:
        """Puts what is in other files into one."""
        arrays = {
            name: self.outside[name] if name in self.outside else array_of(tensor, self.directory)
            for name, tensor in self.external.items()
        }
        for name, (location, first, length) in place(arrays).items():
            tensor = self.external[name]
            tensor.CopyFrom(
                onnx.TensorProto(
                    name=tensor.name,
                    doc_string=tensor.doc_string,
                    data_type=tensor.data_type,
                    dims=arrays[name].shape,
                    data_location=onnx.TensorProto.EXTERNAL,
                )
            )
            for key, text in (("location", location), ("offset", first), ("length", length)):
                tensor.external_data.add(key=key, value=str(text))

    def put(self, kept: Kept, array: Array) -> None:
        """Replaces the numbers of a tensor, where they are others."""
        tensor = self.by_name[kept.name]
        dtype = dtype_from(tensor.data_type).numpy
        if kept.is_quantized:
            array = self._quantized(kept.name, dtype, array)
        else:
            array = array.astype(dtype, copy=False)
        if kept.name in self.external:
            self.outside[kept.name] = np.ascontiguousarray(array)
        elif np.array_equal(self._numbers(kept.name), array):
            return
        elif kept.name in self._initializers:
            tensor.CopyFrom(
                onnx.TensorProto(name=tensor.name, data_type=tensor.data_type, dims=array.shape)
            )
            self.elements[kept.name] = array
        else:
            tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), tensor.name))
            if kept.name in self.attributes:
                self.attributes[kept.name].floats[:] = array.reshape(-1).tolist()

    def split(self, kept: Kept, array: Array) -> None:
        """Gives the nodes that take the tensor one of their own, where it is of other numbers."""
        shared = self._numbers(kept.name)
        if np.array_equal(shared, array):
            return
        name = unused_name(f"{kept.name}.{kept.users[0][1]}", self.by_name, ".")
        tensor = numpy_helper.from_array(np.ascontiguousarray(array), name)
        self.graph.initializer.append(tensor)
        self.by_name[name] = self.graph.initializer[-1]
        nodes = {n.output[0]: n for n in all_nodes(self.graph.node) if n.output}
        for output, i in kept.users:
            nodes[output].input[i] = name

    def _quantized(self, name: str, dtype: np.dtype[Any], array: Array) -> Array:
        """Floats as the integers of which the file stores them."""
        node = next(n for n in all_nodes(self.graph.node) if n.input and n.input[0] == name)
        numbers = [self._numbers(n) for n in node.input[1:] if n]
        return quantized_again(node, array, dtype, numbers)

    def _numbers(self, name: str) -> Array:
        """The numbers of a tensor, as they are to be written now."""
        new = self.elements.get(name)
        if isinstance(new, np.ndarray):
            return new
        return read_tensor(self.by_name[name], self.directory, self._apart)
