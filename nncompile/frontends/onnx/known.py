"""Partial evaluation: what ops make of numbers and of sizes of inputs.

Files compute shapes by chains of Shape, Gather, Concat and arithmetic. Their tensors are arrays of
whole numbers and dimensions here, so that what is reshaped has a shape that says what it depends
on. A function gives None where the result cannot be told while importing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import ShapeError
from nncompile.frontends.onnx.checking import check_slices
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node
from nncompile.frontends.onnx.tensors import Tensor, dtype_from, is_relation
from nncompile.ir.dims import dim, product, same
from nncompile.ir.size_arithmetic import FloorDiv
from nncompile.ir.types import Array, DType, boolean, i64

_FUNCTIONS: dict[str, Callable[..., Any]] = {}
_DYADIC = 1 << 10  # denominators of scales that float32 multiplies sizes by without rounding
_MOST_PARTS = 200  # of the expression of a size
_MOST_TERMS = 1000  # of it, when it is expanded
_HIGHEST = 16  # power of a size
_MOST = 4096  # numbers of a tensor that are computed one by one


def _known(*ops: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def declare(function: Callable[..., Any]) -> Callable[..., Any]:
        for op in ops:
            _FUNCTIONS[op] = function
        return function

    return declare


def evaluated(node: Node) -> Tensor | None:
    """The result of a node, where it is made of sizes and numbers alone and there is a size among
    them; None for all others."""
    if node.domain:
        return None
    if node.op in ("Shape", "Size"):
        return _shape(node)
    function = _FUNCTIONS.get(node.op)
    if function is None or not node.inputs:
        return None
    given = [x for x in node.inputs if x is not None]
    if any(x.known is None for x in given):
        return None
    if all(x.known is not None and x.known.dtype != object for x in given):
        return None
    if sum(x.known.size for x in given if x.known is not None) > _MOST:
        return None
    try:
        arrays = [None if x is None else _objects(x) for x in node.inputs]
        if node.op not in _OF_TRUTH and any(map(_has_relations, arrays)):
            return None
        result = function(node, *arrays)
        if result is None or any(map(_is_long, np.asarray(result, object).reshape(-1))):
            return None
    except (_Unknown, Refused, ZeroDivisionError, ShapeError):
        return None
    return Tensor.of_sizes(result, _dtype(node), np.shape(result))


def _is_long(x: Any) -> bool:
    """Whether it is a number beyond 64 bits, or a size that takes long to compute with: files
    multiply sizes by themselves again and again."""
    if isinstance(x, int):
        return abs(x) >= 1 << 63
    if not isinstance(x, sp.Basic):
        return False
    for parts, part in enumerate(sp.preorder_traversal(x)):
        is_high = part.is_Pow and not (part.exp.is_Integer and abs(part.exp) <= _HIGHEST)
        is_large = part.is_Rational and max(abs(part.p), part.q) >= 1 << 63
        if parts == _MOST_PARTS or is_high or is_large:
            return True
    return _terms(x) > _MOST_TERMS


def _terms(x: Any) -> int:
    """How many terms a size has at most when its products are expanded."""
    if x.is_Add:
        return sum(map(_terms, x.args))
    if x.is_Mul:
        return math.prod(map(_terms, x.args))
    if x.is_Pow:
        power = abs(int(x.exp))
        return math.comb(_terms(x.base) + power - 1, power)
    return max(map(_terms, x.args), default=1)


_OF_TRUTH = frozenset({"And", "Or", "Not", "Identity", "Squeeze", "Unsqueeze", "Reshape"})


def _has_relations(x: Array | None) -> bool:
    """Whether truth values that depend on sizes are among the numbers."""
    return x is not None and any(is_relation(v) for v in x.reshape(-1))


class _Unknown(Exception):
    """A number that depends on what sizes there are."""


def _objects(x: Tensor) -> Array:
    """Its numbers as exact objects."""
    assert x.known is not None
    if x.known.dtype == object:
        return x.known
    items = [_exact(v.item()) for v in x.known.reshape(-1)]
    result = np.empty(len(items), object)
    result[:] = items
    return result.reshape(x.known.shape)


def _exact(x: Any) -> Any:
    if not isinstance(x, float):
        return x
    if not math.isfinite(x):
        raise Refused("a size is computed with an infinite number")
    exact = sp.Rational(x)
    return int(exact) if exact.is_Integer else exact


def _dtype(node: Node) -> DType:
    if node.op == "Cast":
        return dtype_from(node["to"])
    if node.op in ("Equal", "Less", "Greater", "LessOrEqual", "GreaterOrEqual", "Not", "And", "Or"):
        return boolean
    tensor = node.inputs[1 if node.op == "Where" else 0]
    assert tensor is not None
    return tensor.type.dtype


def _shape(node: Node) -> Tensor:
    shape = node.type_of(0).shape
    if node.op == "Size":
        return Tensor.of_sizes(product(shape), i64, ())
    rank = len(shape)
    start, end = node["start"] or 0, rank if node["end"] is None else node["end"]
    start, end = (min(max(x + rank if x < 0 else x, 0), rank) for x in (start, end))
    return Tensor.of_sizes(list(shape[start:end]), i64)


def _each(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function of numbers on arrays of them."""

    def on_arrays(node: Node, *arrays: Array) -> Any:
        broadcast = np.broadcast_arrays(*arrays)
        result = np.empty(broadcast[0].size, object)
        result[:] = [
            function(*items) for items in zip(*(a.reshape(-1) for a in broadcast), strict=True)
        ]
        return result.reshape(broadcast[0].shape)

    return on_arrays


def _is_whole(x: Any) -> bool:
    return isinstance(x, int) or (isinstance(x, sp.Expr) and x.is_integer is True)


def _nonnegative(x: Any) -> bool:
    return x >= 0 if isinstance(x, int) else sp.sympify(x).is_nonnegative is True


def _quotient(node: Node, a: Array, b: Array) -> Any:
    """Division: of whole numbers ONNX cuts off towards zero."""
    tensor = node.inputs[0]
    if tensor is not None and tensor.type.dtype.is_float:
        return _each(lambda x, y: _dyadic(sp.sympify(x) / sp.sympify(y)))(node, a, b)

    def divided(x: Any, y: Any) -> Any:
        if isinstance(x, int) and isinstance(y, int):
            return int(sp.Rational(x, y)) if y else _fail()
        whole = sp.cancel(sp.sympify(x) / sp.sympify(y))
        if whole.is_integer and whole.as_numer_denom()[1] == 1 and not whole.has(sp.floor):
            return whole
        if _nonnegative(x) and isinstance(y, int) and y > 0:
            return dim(FloorDiv(sp.sympify(x), sp.sympify(y)))
        return _fail()

    return _each(divided)(node, a, b)


def _fail() -> Any:
    raise _Unknown


def _dyadic(x: Any) -> Any:
    """A fraction that float32 computes without rounding."""
    for number in sp.sympify(x).atoms(sp.Rational):
        if number.q > _DYADIC or number.q & (number.q - 1):
            raise _Unknown
    return x


def _product(node: Node, a: Array, b: Array) -> Any:
    return _each(lambda x, y: _dyadic(x * y))(node, a, b)


def _modulo(node: Node, a: Array, b: Array) -> Any:
    def rest(x: Any, y: Any) -> Any:
        if isinstance(x, int) and isinstance(y, int):
            return x - y * int(sp.Rational(x, y)) if node["fmod"] else x % y
        if not (_nonnegative(x) and isinstance(y, int) and y > 0):
            return _fail()
        return dim(sp.expand(x - y * FloorDiv(sp.sympify(x), sp.sympify(y))))

    return _each(rest)(node, a, b)


def _cast(node: Node, x: Array) -> Any:
    dtype = dtype_from(node["to"])
    if dtype.is_bool:
        return _fail()
    if dtype.is_float:
        return x
    return _each(_floor)(node, x)


def _floor(x: Any) -> Any:
    if _is_whole(x):
        return x
    above, below = sp.fraction(sp.together(sp.sympify(x)))
    if not (_nonnegative(x) and below.is_Integer):
        return _fail()
    return dim(FloorDiv(sp.expand(above), below))


def _ceil(x: Any) -> Any:
    if _is_whole(x):
        return x
    above, below = sp.fraction(sp.together(sp.sympify(x)))
    return dim(FloorDiv(sp.expand(above) + below - 1, below)) if below.is_Integer else _fail()


def _less(x: Any, y: Any) -> Any:
    """Whether x < y: known, or a relation of sizes."""
    difference: Any = sp.expand(sp.sympify(y) - sp.sympify(x))
    return _truth(sp.Gt(difference, 0))


def _equal(x: Any, y: Any) -> Any:
    answer = same(x, y)
    return _truth(sp.Eq(sp.sympify(x), sp.sympify(y))) if answer is None else answer


def _truth(x: Any) -> Any:
    return bool(x) if x in (sp.true, sp.false) else x


def _negation(x: Any) -> Any:
    return _truth(sp.Not(x))


_known("Add")(_each(lambda x, y: x + y))
_known("Sub")(_each(lambda x, y: x - y))
_known("Mul")(_product)
_known("Div")(_quotient)
_known("Mod")(_modulo)
_known("Neg")(_each(lambda x: -x))
_known("Cast")(_cast)
_known("Floor")(_each(_floor))
_known("Ceil")(_each(_ceil))
_known("Identity")(lambda node, x: x)
_known("Equal")(_each(_equal))
_known("Less")(_each(_less))
_known("Greater")(_each(lambda x, y: _less(y, x)))
_known("LessOrEqual")(_each(lambda x, y: _negation(_less(y, x))))
_known("GreaterOrEqual")(_each(lambda x, y: _negation(_less(x, y))))


_known("Not")(_each(_negation))
_known("And")(_each(lambda x, y: _truth(sp.And(x, y))))
_known("Or")(_each(lambda x, y: _truth(sp.Or(x, y))))


@_known("Abs")
def _abs(node: Node, x: Array) -> Any:
    return x if all(_nonnegative(v) for v in x.reshape(-1)) else None


@_known("Min", "Max")
def _extreme(node: Node, *arrays: Array) -> Any:
    function = sp.Min if node.op == "Min" else sp.Max
    return _each(lambda *xs: dim(function(*xs)) if all(map(_is_whole, xs)) else _fail())(
        node, *arrays
    )


@_known("Where")
def _where(node: Node, condition: Array, a: Array, b: Array) -> Any:
    if any(not isinstance(c, bool) for c in condition.reshape(-1)):
        return None
    return _each(lambda c, x, y: x if c else y)(node, condition, a, b)


@_known("Concat")
def _concat(node: Node, *arrays: Array) -> Any:
    return np.concatenate(arrays, node["axis"])


@_known("Gather")
def _gather(node: Node, x: Array, indices: Array) -> Any:
    if any(not isinstance(i, int) for i in indices.reshape(-1)):
        return None
    return np.take(x, indices.astype(np.int64), node["axis"])


@_known("Unsqueeze", "Squeeze")
def _arranged(node: Node, x: Array, *_: Any) -> Any:
    axes = node.option(1, "axes")
    if node.op == "Squeeze":
        return np.squeeze(x, None if axes is None else tuple(axes))
    return np.expand_dims(x, tuple(axes or ()))


@_known("Slice")
def _slice(node: Node, x: Array, *_: Any) -> Any:
    starts, ends = node.option(1, "starts"), node.option(2, "ends")
    axes = node.option(3, "axes") or range(len(starts or ()))
    steps = node.ints(4) if node.given(4) else [1] * len(starts or ())
    check_slices(starts or (), ends or (), axes, steps or ())
    key = [slice(None)] * x.ndim
    for axis, start, end, step in zip(axes, starts or (), ends or (), steps or (), strict=True):
        stop = None if step < 0 and end < -x.shape[axis] else end
        key[axis] = slice(start, stop, step)
    return x[tuple(key)]


@_known("Reshape")
def _reshape(node: Node, x: Array, *_: Any) -> Any:
    target = node.option(1, "shape")
    assert target is not None
    return x.reshape([x.shape[i] if d == 0 and not node["allowzero"] else d
                      for i, d in enumerate(target)])  # fmt: skip


@_known("Transpose")
def _transpose(node: Node, x: Array) -> Any:
    return np.transpose(x, node["perm"])


@_known("Expand")
def _expand(node: Node, x: Array, shape: Array) -> Any:
    if any(not isinstance(d, int) for d in shape.reshape(-1)):
        return None
    target = np.broadcast_shapes(x.shape, tuple(shape.reshape(-1)))
    return np.broadcast_to(x, target) if math.prod(target) <= _MOST else None


@_known("ReduceProd", "ReduceSum", "ReduceMax", "ReduceMin")
def _reduced(node: Node, x: Array, *_: Any) -> Any:
    axes = node.option(1, "axes")
    if axes is None and node["noop_with_empty_axes"]:
        return x
    along = tuple(axes) if axes else tuple(range(x.ndim))
    keepdims = bool(node["keepdims"])
    if node.op == "ReduceProd":
        return np.prod(x, along, keepdims=keepdims)
    if node.op == "ReduceSum":
        return np.sum(x, along, keepdims=keepdims)
    if x.size != 1:
        return None
    return x.reshape([1 if keepdims else 0][:keepdims] * x.ndim)
