"""Random numbers, which are those of the model's generator: others in every step of a training."""

from __future__ import annotations

from typing import Any

from nncompile import elementwise as e
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.frontends.onnx.tensors import dtype_from
from nncompile.ir.basic import cast
from nncompile.ir.dims import dim
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f32
from nncompile.ops.random.generator import bernoulli, normal, uniform
from nncompile.ops.reduction.extremes import argmax
from nncompile.ops.shape.reshape import expand_dims


@imports("RandomNormal", "RandomUniform")
def _of_shape(n: Node) -> Any:
    return _drawn(n, [dim(size) for size in n.required("shape")], dtype_from(n["dtype"]))


@imports("RandomNormalLike", "RandomUniformLike")
def _like(n: Node, x: Value) -> Any:
    dtype = x.dtype if n["dtype"] is None else dtype_from(n["dtype"])
    return _drawn(n, x.shape, dtype)


def _drawn(n: Node, shape: Any, dtype: DType) -> Value:
    if not dtype.is_float:
        raise Refused(f"random numbers of {dtype}")
    if n.op.startswith("RandomNormal"):
        return normal(_key(n), shape, n["mean"], n["scale"], dtype)
    if not n["low"] < n["high"]:
        raise Refused(f"numbers from {n['low']} to below {n['high']}")
    return uniform(_key(n), shape, n["low"], n["high"], dtype)


def _key(n: Node) -> Value:
    importer, _ = n.context
    key: Value = importer.random_key(n.op, n["seed"])
    return key


@imports("Bernoulli")
def _bernoulli(n: Node, x: Value) -> Any:
    """True with probability x, as ONNX's text says and its reference does. The body that defines
    the operator there, and onnxruntime with it, is true where a random number is above x."""
    dtype = x.dtype if n["dtype"] is None else dtype_from(n["dtype"])
    return cast(bernoulli(_key(n), x, x.shape), dtype)


@imports("Multinomial")
def _classes(n: Node, x: Value) -> Any:
    """The class whose logarithm of probability is the greatest with Gumbel's noise on it (C.
    Maddison, D. Tarlow, T. Minka, "A* sampling", 2014)."""
    if x.rank != 2:
        raise Refused(f"logarithms of probabilities {x.type}, where [batch, classes] are known")
    shape = (x.shape[0], n["sample_size"], x.shape[1])
    # Of a number from 0, which has no logarithm, the least that is not 0.
    noise = -e.log(-e.log(e.maximum(uniform(_key(n), shape), 2.0**-33)))
    found = argmax(cast(expand_dims(x, 1), f32) + noise, -1)
    return cast(found, dtype_from(n["dtype"]))
