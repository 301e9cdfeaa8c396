"""The tensors of a file while it is imported: a value, and what is known of its numbers."""

from __future__ import annotations

import functools
import math
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx
import sympy as sp
from onnx import numpy_helper

from nncompile.diagnostics.errors import ShapeError
from nncompile.elementwise import (
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    logical_and,
    logical_not,
    logical_or,
    not_equal,
)
from nncompile.frontends.onnx.refusals import Refused
from nncompile.ir.basic import Constant, SizeOf, cast, const, size_value
from nncompile.ir.dims import Dim, dim
from nncompile.ir.op import Value
from nncompile.ir.types import Array, DType, Type, dtype_of, f64
from nncompile.ops.shape.joining import stack
from nncompile.ops.shape.reshape import reshape
from nncompile.runtime.array_files import memory

_LARGEST = 1 << 26  # elements of a constant that a few bytes of a file may ask for


def dtype_from(element_type: int | str) -> DType:
    """The element type of that number, or of that name, as the first opsets have it. Raises
    `Refused` for one that there is none of here."""
    try:
        if isinstance(element_type, str):
            element_type = onnx.TensorProto.DataType.Value(element_type.upper())
        name = onnx.TensorProto.DataType.Name(element_type).lower()
    except ValueError:
        raise Refused(f"unknown element type {element_type!r}") from None
    names = {"float": "float32", "double": "float64"}
    if name == "string":
        raise Refused("texts, which no graph is trained on")
    if name not in _NAMES:
        raise Refused(f"element type {name}")
    return dtype_of(names.get(name, name))


_NAMES = frozenset(
    ["float", "double", "float16", "bfloat16", "bool"]
    + [f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)]
)


class Tensor:
    """A tensor of a file. `known` are its numbers where they do not depend on data: an array, or,
    where sizes of inputs are among them, an array of objects, whole numbers and dimensions. Its
    value is made when it is asked for."""

    def __init__(
        self,
        type_: Type,
        known: Array | None = None,
        make: Callable[[], Value] | None = None,
        name: str = "",
    ) -> None:
        self.type = type_
        self.known = known
        self.name = name
        self._make = make
        self._value: Value | None = None
        self.quantized: Any = None  # (x, scale, zero point, type) that it is the quantized form of
        self.master: Value | None = None  # the trained floats that it is made of, where quantized

    @property
    def value(self) -> Value:
        """Its value in the graph."""
        if self._value is None:
            if self._make is not None:
                self._value = self._make()
            else:
                assert self.known is not None
                self._value = _value_of(self.known, self.type.dtype)
        return self._value

    @property
    def numbers(self) -> Array | None:
        """Its numbers, where no size of an input is among them."""
        is_symbolic = self.known is None or self.known.dtype == object
        return None if is_symbolic else self.known

    @classmethod
    def of(cls, value: Value) -> Tensor:
        """That of a value."""
        if not isinstance(value.type, Type):
            raise Refused("an op of several results stands for one")
        known: Array | None = None
        if isinstance(value.op, Constant):
            known = value.op.value
        elif isinstance(value.op, SizeOf):
            known = np.empty((), object)
            known[()] = value.op.size
        return cls(value.type, known, lambda: value)

    @classmethod
    def of_numbers(cls, array: Array) -> Tensor:
        """That of an array."""
        return cls(Type(dtype_of(array), array.shape), array)

    @classmethod
    def of_sizes(cls, sizes: Any, dtype: DType, shape: Sequence[int] | None = None) -> Tensor:
        """That of whole numbers and dimensions."""
        flat = [_plain(x) for x in np.asarray(sizes, object).reshape(-1)]
        shape = np.shape(sizes) if shape is None else shape
        if all(isinstance(x, int | bool | float) for x in flat):
            return cls.of_numbers(np.asarray(flat, dtype.numpy).reshape(shape))
        known = np.empty(len(flat), object)
        known[:] = flat
        known = known.reshape(shape)
        return cls(Type(dtype, known.shape), known)


def _plain(x: Any) -> Any:
    if isinstance(x, sp.Expr):
        return int(x) if x.is_Integer else x
    return x.item() if isinstance(x, np.generic) else x


def _value_of(known: Array, dtype: DType) -> Value:
    if known.dtype != object:
        return const(known, dtype)
    items = [_number(x, dtype) for x in known.reshape(-1)]
    return reshape(stack(items), known.shape)


def _number(x: Any, dtype: DType) -> Value:
    """A dimension, or a fraction of two, as a number of the graph."""
    if is_relation(x):
        return _relation(x)
    if not isinstance(x, sp.Expr):
        return const(x, dtype)
    above, below = sp.fraction(sp.together(x))
    if below == 1:
        return cast(size_value(dim(above)), dtype)
    return cast(size_value(dim(above), f64) / size_value(dim(below), f64), dtype)


def is_relation(x: Any) -> bool:
    """Whether it is a truth value that depends on sizes."""
    return isinstance(x, sp.core.relational.Relational | sp.logic.boolalg.BooleanFunction)


def _relation(x: Any) -> Value:
    """Whether sizes are in a relation."""
    if isinstance(x, sp.Not):
        return logical_not(_relation(x.args[0]))
    if isinstance(x, sp.And | sp.Or):
        combined = logical_and if isinstance(x, sp.And) else logical_or
        return functools.reduce(combined, map(_relation, x.args))
    compared = {sp.Gt: greater, sp.Ge: greater_equal, sp.Lt: less, sp.Le: less_equal,
                sp.Eq: equal, sp.Ne: not_equal}  # fmt: skip
    result: Value = compared[type(x)](*(_number(side, f64) for side in x.args))
    return result


def array_of(
    tensor: onnx.TensorProto, directory: str = "", content: memoryview | None = None
) -> Array:
    """The numbers of a tensor that a file stores, a copy of `content` where its bytes were left out
    of it. Raises `Refused` for other element types, where
    they are not as many as its sizes say, and for more than this machine has memory for."""
    dtype = dtype_from(tensor.data_type)
    if any(size < 0 for size in tensor.dims):
        raise Refused(f"the tensor {tensor.name!r} has a negative size")
    count = math.prod(tensor.dims)
    is_external = tensor.data_location == onnx.TensorProto.EXTERNAL
    if not is_external and (content is not None or tensor.HasField("raw_data")):
        raw = tensor.raw_data if content is None else content
        if len(raw) != count * dtype.numpy.itemsize:
            raise Refused(
                f"the tensor {tensor.name!r} has {len(raw):,} bytes, not "
                f"{count * dtype.numpy.itemsize:,}"
            )
        if sys.byteorder == "little" and not tensor.HasField("segment"):
            array = np.frombuffer(raw, dtype.numpy).reshape(tensor.dims)
            return array if content is None else array.copy()
        tensor.raw_data = bytes(raw)
    elif is_external and count * dtype.numpy.itemsize > memory():
        raise Refused(
            f"the tensor {tensor.name!r} needs {count * dtype.numpy.itemsize:,} bytes, and this "
            f"machine has {memory():,}"
        )
    elif not is_external and count > _LARGEST:
        raise Refused(f"the tensor {tensor.name!r} declares {count:,} elements")
    try:
        return np.asarray(numpy_helper.to_array(tensor, directory))
    except (ValueError, TypeError, OSError, MemoryError, onnx.checker.ValidationError) as error:
        raise Refused(f"the tensor {tensor.name!r} cannot be read: {error}") from None


def declared_size(d: Any, otherwise: str, names: Callable[[str], Dim]) -> Dim:
    """A dimension of a declared shape: a number, its name, or `otherwise` where it has none."""
    if d.HasField("dim_value"):
        if d.dim_value < 0:
            raise ShapeError(f"a size cannot be negative: {d.dim_value}")
        # Exporters of scikit-learn write 0 for a size that is not known.
        return int(d.dim_value) if d.dim_value else names(otherwise)
    return names(d.dim_param or otherwise)
