"""Reductions, normalized exponentials, order and running sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from nncompile import elementwise as e
from nncompile.frontends.onnx.checking import axis_in
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.ir.basic import cast, const, size_value
from nncompile.ir.broadcasting import full
from nncompile.ir.dims import dim, product
from nncompile.ir.op import Value
from nncompile.ir.types import Array, f32, i64
from nncompile.ops import all as every
from nncompile.ops import any as some
from nncompile.ops import max as largest
from nncompile.ops import min as least
from nncompile.ops import sum as total
from nncompile.ops.core.counting import iota
from nncompile.ops.loops.running import cumprod
from nncompile.ops.reduction.cumulative import cumsum
from nncompile.ops.reduction.extremes import argmax, argmin
from nncompile.ops.reduction.products import prod
from nncompile.ops.reduction.softmax import log_softmax, softmax
from nncompile.ops.reduction.statistics import mean, norm
from nncompile.ops.reduction.sums import logsumexp
from nncompile.ops.shape.reshape import reshape
from nncompile.ops.shape.slicing import flip
from nncompile.ops.shape.sorting import top_k


def _root(x: Value, axis: Any, keepdims: bool) -> Value:
    return norm(x if x.dtype.is_float else cast(x, f32), 2, axis, keepdims)


def _mean(x: Value, axis: Any, keepdims: bool) -> Value:
    if x.dtype.is_float:
        return mean(x, axis, keepdims)
    return cast(e.trunc(mean(cast(x, f32), axis, keepdims)), x.dtype)


_REDUCTIONS: dict[str, Callable[[Value, Any, bool], Value]] = {
    "ReduceSum": total,
    "ReduceProd": prod,
    "ReduceMean": _mean,
    "ReduceL1": lambda x, axis, keepdims: total(e.abs(x), axis, keepdims),
    "ReduceL2": _root,
    "ReduceSumSquare": lambda x, axis, keepdims: total(e.square(x), axis, keepdims),
    "ReduceLogSum": lambda x, axis, keepdims: e.log(total(_real(x), axis, keepdims)),
    "ReduceLogSumExp": lambda x, axis, keepdims: logsumexp(_real(x), axis, keepdims),
}


def _real(x: Value) -> Value:
    return x if x.dtype.is_float else cast(x, f32)


@imports(*_REDUCTIONS, "ReduceMax", "ReduceMin", known=(1,))
def _reduce(n: Node, x: Value, *_: Any) -> Any:
    axes = n.option(1, "axes")
    keepdims = bool(n["keepdims"])
    axis = tuple(axes or ()) if axes or n["noop_with_empty_axes"] else None
    if n.op in ("ReduceMax", "ReduceMin"):
        return _extreme(n.op == "ReduceMax", x, axis, keepdims)
    return _REDUCTIONS[n.op](x, axis, keepdims)


def _extreme(is_max: bool, x: Value, axis: Any, keepdims: bool) -> Value:
    if x.dtype.is_bool:
        return (some if is_max else every)(x, axis, keepdims)
    axes = range(x.rank) if axis is None else [axis_in(x, a) for a in axis]
    if any(x.shape[a] == 0 for a in axes):
        shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
        if not keepdims:
            shape = [n for i, n in enumerate(x.shape) if i not in axes]
        return _of_nothing(is_max, x, shape)
    return (largest if is_max else least)(x, axis, keepdims)


def _of_nothing(is_max: bool, x: Value, shape: Any) -> Value:
    if x.dtype.is_float:
        return full(shape, float("-inf" if is_max else "inf"), x.dtype)
    limits = np.iinfo(x.dtype.numpy)
    return full(shape, int(limits.min if is_max else limits.max), x.dtype)


@imports("Softmax", "LogSoftmax", "Hardmax")
def _softmax(n: Node, x: Value) -> Any:
    axis = axis_in(x, n["axis"])
    if n.op == "Hardmax":
        function: Any = _hardmax
    else:
        function = softmax if n.op == "Softmax" else log_softmax
    if n.version >= 13:
        return function(x, axis)
    flat = reshape(x, (product(x.shape[:axis]), product(x.shape[axis:])))
    return reshape(function(flat, 1), x.shape)


def _hardmax(x: Value, axis: int) -> Value:
    first = argmax(x, axis, True)
    places = reshape(iota(x.shape[axis]), [x.shape[axis] if i == axis else 1
                                           for i in range(x.rank)])  # fmt: skip
    return cast(places == first, x.dtype)


@imports("ArgMax", "ArgMin")
def _arg(n: Node, x: Value) -> Any:
    function = argmax if n.op == "ArgMax" else argmin
    axis = axis_in(x, n["axis"])
    if not n["select_last_index"]:
        return function(x, axis, bool(n["keepdims"]))
    last = dim(x.shape[axis] - 1)
    return size_value(last) - function(flip(x, axis), axis, bool(n["keepdims"]))


@imports("CumSum", "CumProd", known=(1,))
def _cumulative(n: Node, x: Value, axis: Array) -> Any:
    function = cumsum if n.op == "CumSum" else cumprod
    place = int(axis.reshape(-1)[0])
    return cast(function(x, place, bool(n["exclusive"]), bool(n["reverse"])), x.dtype)


@imports("TopK", known=(1,))
def _top_k(n: Node, x: Value, k: Array | None = None) -> Any:
    count = n["k"] if k is None else dim(k.reshape(-1)[0])
    is_largest = True if n["largest"] is None else bool(n["largest"])
    values, indices = top_k(x, count, n["axis"], is_largest)
    return values, cast(indices, i64)


@imports("LpNormalization")
def _lp_normalization(n: Node, x: Value) -> Any:
    size = total(e.abs(x), n["axis"], True) if n["p"] == 1 else _root(x, (n["axis"],), True)
    return e.where(size == 0, const(0, x.dtype), x / size)


@imports("MeanVarianceNormalization")
def _mean_variance(n: Node, x: Value) -> Any:
    axes = tuple(n["axes"] or (0, 2, 3))
    distance = x - mean(x, axes, True)
    return distance / (e.sqrt(mean(e.square(distance), axes, True)) + 1e-9)
