"""ai.onnx.ml: what pipelines of scikit-learn are exported to, without trees and strings."""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile import elementwise as e
from nncompile.frontends.onnx.linear import name_of
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.frontends.onnx.tensors import Tensor
from nncompile.ir.basic import as_value, cast, const
from nncompile.ir.op import Value
from nncompile.ir.types import f32, i64
from nncompile.ops import max as largest
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.reduction.extremes import argmax
from nncompile.ops.reduction.softmax import softmax
from nncompile.ops.reduction.sums import sum as total
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.joining import concatenate
from nncompile.ops.shape.reshape import reshape, transpose

_ML = "ai.onnx.ml"


def _row(numbers: Any) -> Value:
    return const(np.asarray(numbers, np.float32))


def _real(x: Value) -> Value:
    return x if x.dtype is f32 else cast(x, f32)


@imports("Scaler", domain=_ML)
def _scaler(n: Node, x: Value) -> Any:
    return (_real(x) - _row(n.required("offset"))) * _row(n.required("scale"))


@imports("Normalizer", domain=_ML)
def _normalizer(n: Node, x: Value) -> Any:
    x = _real(x)
    sizes = {
        "MAX": lambda: largest(x, -1, True),
        "L1": lambda: total(e.abs(x), -1, True),
        "L2": lambda: e.sqrt(total(e.square(x), -1, True)),
    }
    if n["norm"] not in sizes:
        raise Refused(f"the norm {n['norm']!r}")
    size = sizes[n["norm"]]()
    return e.where(size == 0, x, x / e.where(size == 0, 1.0, size))


@imports("Binarizer", domain=_ML)
def _binarizer(n: Node, x: Value) -> Any:
    return cast(x > const(n["threshold"], x.dtype), x.dtype)


@imports("Imputer", domain=_ML)
def _imputer(n: Node, x: Value) -> Any:
    if x.dtype.is_float:
        missing = n["replaced_value_float"] or 0.0
        found = e.isnan(x) if np.isnan(missing) else x == const(missing, x.dtype)
        values = n.required("imputed_value_floats")
    else:
        found = x == const(n["replaced_value_int64"] or 0, x.dtype)
        values = n.required("imputed_value_int64s")
    return e.where(found, const(np.asarray(values, x.dtype.numpy)), x)


@imports("FeatureVectorizer", domain=_ML)
def _vectorizer(n: Node, *xs: Value) -> Any:
    return concatenate([_real(x) for x in xs], -1)


@imports("OneHotEncoder", domain=_ML)
def _encoder(n: Node, x: Value) -> Any:
    if not n["cats_int64s"]:
        raise Refused("categories that are strings")
    categories = const(np.asarray(n["cats_int64s"], np.int64))
    return cast(reshape(cast(x, i64), (*x.shape, 1)) == categories, f32)


def _matrix(n: Node, x: Value, count: int) -> Value:
    coefficients = np.asarray(n.required("coefficients"), np.float32).reshape(count, -1)
    rows = x if x.rank > 1 else reshape(x, (1, *x.shape))
    y: Value = matmul(_real(rows), transpose(_stored(n, "coefficients", coefficients)))
    return y + _stored(n, "intercepts", _row(n["intercepts"])) if n["intercepts"] else y


def _stored(n: Node, attribute: str, numbers: Any) -> Value:
    """What the attribute holds: a parameter, where it is one of the model."""
    _, environment = n.context
    tensor = environment.get(name_of(n.proto, attribute))
    return tensor.value if isinstance(tensor, Tensor) else as_value(numbers)


@imports("LinearRegressor", domain=_ML)
def _regressor(n: Node, x: Value) -> Any:
    return _transformed(n, _matrix(n, x, n["targets"] or 1))


@imports("LinearClassifier", domain=_ML)
def _classifier(n: Node, x: Value) -> Any:
    labels = n["classlabels_ints"]
    if not labels:
        raise Refused("labels that are strings")
    count = len(n["intercepts"] or labels)
    scores = _matrix(n, x, count)
    if count == 1:
        raise Refused("a classifier of one score")
    classes = take(const(np.asarray(labels, np.int64)), argmax(scores, -1), 0)
    return classes, _transformed(n, scores)


def _transformed(n: Node, y: Value) -> Value:
    kind = n["post_transform"] or "NONE"
    if kind == "NONE":
        return y
    if kind == "LOGISTIC":
        return e.sigmoid(y)
    if kind == "SOFTMAX":
        return softmax(y, -1)
    raise Refused(f"the transformation {kind}")


@imports("LabelEncoder", domain=_ML)
def _labels(n: Node, x: Value) -> Any:
    keys = n["keys_int64s"] or n["keys_floats"]
    values = n["values_int64s"] or n["values_floats"]
    if not keys or not values:
        raise Refused("labels that are strings")
    kind = np.int64 if n["values_int64s"] else np.float32
    default = n["default_int64"] if n["values_int64s"] else n["default_float"]
    y: Any = const(np.asarray(default, kind))
    for key, value in zip(keys[::-1], values[::-1], strict=True):
        found = e.isnan(x) if isinstance(key, float) and np.isnan(key) else x == const(key, x.dtype)
        y = e.where(found, const(np.asarray(value, kind)), y)
    return y


@imports("ZipMap", domain=_ML)
def _zip_map(n: Node, x: Value) -> Any:
    importer, _ = n.context
    importer.note("assumptions", "ZipMap: a table of numbers stands for its list of dictionaries")
    return x
