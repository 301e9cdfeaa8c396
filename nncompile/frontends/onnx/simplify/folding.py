"""What is computed before the file runs: constants by onnxruntime, sizes as they are known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from nncompile.diagnostics.errors import BackendError, CompileError
from nncompile.frontends.onnx.roles import takes_weight
from nncompile.frontends.onnx.simplify.work import Item, Work, tensor_of
from nncompile.ir.dims import product
from nncompile.ir.types import Array
from nncompile.runtime.session import Session

# A node of these is not computed beforehand: each run may give another result, or what it makes is
# what the file is stored small by.
RANDOM = frozenset(
    (
        *("RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"),
        *("Multinomial", "Bernoulli", "Dropout"),
    )
)
_KEPT = frozenset(("DequantizeLinear", "QuantizeLinear", "DynamicQuantizeLinear", "Constant"))
# What makes many elements of few numbers.
_GROWING = frozenset(
    ("ConstantOfShape", "Range", "Expand", "Tile", "Pad", "Resize", "Upsample", "OneHot", "EyeLike")
)
_ELEMENTS, _WEIGHTS = 1 << 26, 1 << 28  # elements of a constant, and of the weight of a layer
# The bytes up to which a constant may be larger than what it is made of; or 1/16 of all constants.
_SMALL = 1 << 20
_LARGEST = 1 << 30  # bytes of constants that are computed with at a time
_SIZES = 4096  # elements of a tensor of sizes


def constants_are_stored(work: Work) -> None:
    """Makes `Constant` nodes tensors that the file stores."""
    for item in work.live():
        if item.op == "Constant" and item.is_sound and item.output not in work.results:
            tensor = _constant(item)
            if tensor is not None:
                work.store_output(item.output, tensor)


def _constant(item: Item) -> onnx.TensorProto | None:
    for attribute in item.proto.attribute:
        value = helper.get_attribute_value(attribute)
        if attribute.name == "value":
            return deepcopy(value)  # type: ignore[no-any-return]  # the tensor of that attribute
        if attribute.name in ("value_float", "value_floats"):
            return numpy_helper.from_array(np.asarray(value, np.float32))
        if attribute.name in ("value_int", "value_ints"):
            return numpy_helper.from_array(np.asarray(value, np.int64))
    return None  # strings and sparse ones


def sizes_are_stored(work: Work) -> None:
    """Makes whole numbers and truth values that are known constants: what a file computes of the
    sizes of its weights and of inputs whose sizes it declares."""
    for item in work.live():
        for name in item.outputs:
            fact = work.facts.get(name)
            numbers = None if fact is None else fact.numbers
            if numbers is None or numbers.dtype.kind not in "biu" or name in work.results:
                continue
            if numbers.size <= _SIZES and item.is_alive and work.uses(name):
                work.store_output(name, tensor_of(numbers))


def equal_sizes_are_one(work: Work) -> None:
    """Makes tensors of the same sizes of inputs one, the first."""
    first: dict[Any, str] = {}
    for item in work.live():
        for name in item.outputs:
            fact = work.facts.get(name)
            if fact is None or fact.known is None or fact.known.dtype != object:
                continue
            key = fact.type.dtype.name, fact.known.shape, tuple(map(str, fact.known.reshape(-1)))
            if key not in first:
                first[key] = name
            elif work.uses(name):
                work.replace(name, first[key])


def constants_are_folded(work: Work) -> None:
    """Computes, in onnxruntime as it is, what depends on constants alone."""
    foldable: dict[str, Item] = {}
    for item in work.live():
        if _is_foldable(work, item, foldable):
            foldable.update(dict.fromkeys(item.outputs, item))
    wanted, room = {}, _LARGEST - max(work.stored_bytes() - work.first_bytes, 0)
    for name, item in foldable.items():
        others = [u for u in work.users.get(name, ()) if u is not foldable.get(u.output)]
        if others or name in work.results:
            room -= _bytes(work, name)
            if room >= 0:
                wanted[name] = item
    if not wanted:
        return
    results = _computed(work, foldable, list(wanted))
    small = max(_SMALL, work.stored_bytes() // 16)
    for name, array in results.items():
        grows = array.nbytes > small and array.nbytes > _vanishing(work, wanted[name], foldable)
        if (not grows or _is_weight(work, name)) and name not in work.results:
            work.store_output(name, tensor_of(array))


def _is_foldable(work: Work, item: Item, foldable: Mapping[str, Item]) -> bool:
    if item.op in RANDOM or item.op in _KEPT or item.captured or not item.outputs:
        return False
    if any(_is_large(work, item, name) for name in item.outputs):
        return False
    return all(not n or work.is_constant(n) or n in foldable for n in item.inputs)


def _is_large(work: Work, item: Item, name: str) -> bool:
    """Whether a result may be large beyond what the file stores."""
    shape = work.shape(name)
    if shape is None:
        return item.op in _GROWING
    count = product(shape)
    limit = _WEIGHTS if _is_weight(work, name) else _ELEMENTS
    return not isinstance(count, int) or count > limit


def _is_weight(work: Work, name: str) -> bool:
    """Whether all that take a tensor take it as a weight, which runtimes store anyway: a file that
    makes weights of few numbers was made small for a test."""
    users = work.users.get(name, ())
    places = ((u.op, i) for u in users for i, other in enumerate(u.inputs) if other == name)
    return bool(users) and all(takes_weight(op, i) for op, i in places)


def _bytes(work: Work, name: str) -> int:
    """The bytes of a tensor that is known to be not large."""
    shape, dtype = work.shape(name), work.dtype(name)
    return 0 if shape is None else int(product(shape)) * (8 if dtype is None else dtype.itemsize)


def _vanishing(work: Work, item: Item, foldable: Mapping[str, Item]) -> int:
    """The bytes of constants that only this node, or what leads to it, takes."""
    total, waiting, seen = 0, [item], {item}
    while waiting:
        for name in waiting.pop().inputs:
            maker = foldable.get(name)
            if maker is not None and maker not in seen:
                seen.add(maker)
                waiting.append(maker)
            elif work.is_constant(name) and work.uses(name) == 1:
                array = work.constant(name)
                total += 0 if array is None else array.nbytes
    return total


def _computed(work: Work, foldable: Mapping[str, Item], names: Sequence[str]) -> dict[str, Array]:
    """The numbers of these tensors; those that onnxruntime cannot compute are left out."""
    try:
        return _run(work, foldable, names)
    except CompileError:
        if len(names) == 1:
            return {}
    middle = len(names) // 2
    return {
        **_computed(work, foldable, names[:middle]),
        **_computed(work, foldable, names[middle:]),
    }


def _run(work: Work, foldable: Mapping[str, Item], names: Sequence[str]) -> dict[str, Array]:
    needed, waiting = set(), list(names)
    stored: dict[str, onnx.TensorProto] = {}
    while waiting:
        name = waiting.pop()
        item = foldable.get(name)
        if item is not None and item not in needed:
            needed.add(item)
            waiting += [n for n in item.inputs if n]
        elif item is None and name not in stored:
            stored[name] = work.whole_tensor(name)
    if sum(len(tensor.raw_data) for tensor in stored.values()) > _LARGEST:
        raise BackendError("the constants do not fit in one model")
    nodes = [item.proto for item in work.live() if item in needed]
    graph = helper.make_graph(
        nodes, "constants", [], [onnx.ValueInfoProto(name=n) for n in names], list(stored.values())
    )
    model = helper.make_model(
        graph, opset_imports=work.model.opset_import, ir_version=max(work.model.ir_version, 4),
        functions=work.model.functions,
    )  # fmt: skip
    session = Session(model, threads=1, optimization="none")
    results = {name: np.asarray(array) for name, array in session.run({}).items()}
    return {name: array for name, array in results.items() if array.dtype != object}
