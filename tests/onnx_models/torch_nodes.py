"""What ONNX operators are in torch, written from their definitions: another reading of a file than
the importer's, with torch's gradients. Of opset 13 and later; floats are float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from onnx import TensorProto, numpy_helper
from torch.nn import functional as F

Operator = Callable[..., Any]
NODES: dict[str, Operator] = {}
"""By the name of the operator: a function of a node's attributes and its inputs."""

DTYPES = {
    **dict.fromkeys((TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16), torch.float64),
    TensorProto.INT64: torch.int64,
    TensorProto.INT32: torch.int32,
    TensorProto.BOOL: torch.bool,
}


def operator(*names: str) -> Callable[[Operator], Operator]:
    """A decorator: the function is these operators."""

    def declare(function: Operator) -> Operator:
        NODES.update(dict.fromkeys(names, function))
        return function

    return declare


def tensor(array: Any) -> Any:
    """An array as torch has it, floats in double."""
    array = np.asarray(array)
    copy = np.array(array, np.float64) if array.dtype.kind == "f" else np.array(array)
    return torch.from_numpy(copy.reshape(array.shape))


def ints(x: Any) -> list[int]:
    """A tensor of whole numbers as a list."""
    return [int(n) for n in x.reshape(-1)]


def _plain(function: Callable[..., Any]) -> Operator:
    return lambda attributes, *inputs: function(*inputs)


def _div(a: Any, b: Any) -> Any:
    if a.is_floating_point():
        return a / b
    return torch.div(a, b, rounding_mode="trunc")


NODES |= {
    name: _plain(function)
    for name, function in {
        **{"Add": torch.add, "Sub": torch.sub, "Mul": torch.mul, "Div": _div},
        **{"Pow": lambda a, b: a ** b.to(a.dtype), "Sqrt": torch.sqrt, "Exp": torch.exp},
        **{"Log": torch.log, "Neg": torch.neg, "Abs": torch.abs, "Erf": torch.erf},
        **{"Relu": torch.relu, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh},
        **{
            "HardSwish": lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1),
            "Reciprocal": lambda x: 1 / x,
        },
        **{"Equal": torch.eq, "Less": torch.lt, "Greater": torch.gt, "LessOrEqual": torch.le},
        **{"GreaterOrEqual": torch.ge, "And": torch.logical_and, "Or": torch.logical_or},
        **{"Not": torch.logical_not, "IsNaN": torch.isnan, "Where": torch.where},
        **{"Max": torch.maximum, "Min": torch.minimum, "Identity": lambda x: x},
        **{"MatMul": torch.matmul, "Clip": lambda x, low=None, high=None: x.clamp(low, high)},
        "Expand": lambda x, shape: x.expand(torch.broadcast_shapes(x.shape, tuple(ints(shape)))),
        "Tile": lambda x, repeats: x.tile(tuple(ints(repeats))),
        # Of ai.onnx.ml, as scikit-learn's models have it.
        "ArrayFeatureExtractor": lambda x, places: torch.atleast_2d(x).index_select(
            -1, places.reshape(-1)
        ),
    }.items()
}
NODES |= {
    "Cast": lambda a, x: x.to(DTYPES[a["to"]]),
    "Gelu": lambda a, x: F.gelu(x, approximate=a.get("approximate", "none")),
    "Elu": lambda a, x: F.elu(x, a.get("alpha", 1.0)),
    "LeakyRelu": lambda a, x: F.leaky_relu(x, a.get("alpha", 0.01)),
    "HardSigmoid": lambda a, x: (a.get("alpha", 0.2) * x + a.get("beta", 0.5)).clamp(0, 1),
    "Mod": lambda a, x, y: torch.fmod(x, y) if a.get("fmod") else torch.remainder(x, y),
    "Softmax": lambda a, x: F.softmax(x, a.get("axis", -1)),
    "LogSoftmax": lambda a, x: F.log_softmax(x, a.get("axis", -1)),
    "ArgMax": lambda a, x: torch.argmax(x, a.get("axis", 0), bool(a.get("keepdims", 1))),
    "Einsum": lambda a, *xs: torch.einsum(a["equation"], *xs),
    "Transpose": lambda a, x: x.permute(a.get("perm") or tuple(reversed(range(x.ndim)))),
    "Concat": lambda a, *xs: torch.cat(xs, a["axis"]),
    "Flatten": lambda a, x: x.reshape(math.prod(x.shape[: a.get("axis", 1)]), -1),
    # Of ai.onnx.ml, as scikit-learn's models have it.
    "Scaler": lambda a, x: (x.double() - tensor(a["offset"])) * tensor(a["scale"]),
}


@operator("Constant")
def _constant(a: Any) -> Any:
    if "value" in a:
        return tensor(numpy_helper.to_array(a["value"]))
    (value,) = a.values()
    return tensor(np.asarray(value, np.float64 if isinstance(value, float) else None))


_REDUCED = {"ReduceMean": torch.mean, "ReduceSum": torch.sum, "ReduceMax": torch.amax,
            "ReduceMin": torch.amin, "ReduceL2": torch.linalg.vector_norm}  # fmt: skip


@operator(*_REDUCED)
def _reduced(a: Any, x: Any, axes: Any = None) -> Any:
    chosen = a.get("axes") if axes is None else ints(axes)
    keep = bool(a.get("keepdims", 1))
    return _REDUCED[a["op"]](x, dim=tuple(chosen or range(x.ndim)), keepdim=keep)


@operator("Gemm")
def _gemm(a: Any, x: Any, y: Any, c: Any = None) -> Any:
    x = x.T if a.get("transA") else x
    y = y.T if a.get("transB") else y
    product = a.get("alpha", 1.0) * (x @ y)
    return product if c is None else product + a.get("beta", 1.0) * c


# Shapes and places.


@operator("Shape")
def _shape(a: Any, x: Any) -> Any:
    return torch.tensor(x.shape[a.get("start", 0) : a.get("end")], dtype=torch.int64)


@operator("Reshape")
def _reshape(a: Any, x: Any, shape: Any) -> Any:
    sizes = ints(shape)
    if not a.get("allowzero"):
        sizes = [x.shape[i] if n == 0 else n for i, n in enumerate(sizes)]
    return x.reshape(sizes)


@operator("Squeeze")
def _squeeze(a: Any, x: Any, axes: Any = None) -> Any:
    return x.squeeze() if axes is None else x.squeeze(tuple(ints(axes)))


@operator("Unsqueeze")
def _unsqueeze(a: Any, x: Any, axes: Any) -> Any:
    rank = x.ndim + axes.numel()
    for axis in sorted(n % rank for n in ints(axes)):
        x = x.unsqueeze(axis)
    return x


@operator("Split")
def _split(a: Any, x: Any, sizes: Any = None) -> Any:
    axis = a.get("axis", 0)
    if sizes is not None:
        return torch.split(x, ints(sizes), axis)
    count = a.get("num_outputs") or a["outputs"]
    return torch.split(x, -(-x.shape[axis] // count), axis)


@operator("Slice")
def _slice(a: Any, x: Any, starts: Any, ends: Any, axes: Any = None, steps: Any = None) -> Any:
    begins, limits = ints(starts), ints(ends)
    for k, axis in enumerate(range(len(begins)) if axes is None else ints(axes)):
        step = 1 if steps is None else ints(steps)[k]
        size = x.shape[axis]
        places = range(size)[begins[k] : max(limits[k], -size - 1) : step]
        if step < 0 and limits[k] < -size:
            places = range(size)[begins[k] :: step]
        x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return x


@operator("Gather")
def _gather(a: Any, x: Any, places: Any) -> Any:
    axis = a.get("axis", 0) % x.ndim
    places = torch.where(places < 0, places + x.shape[axis], places).long()
    found = x.index_select(axis, places.reshape(-1))
    return found.reshape((*x.shape[:axis], *places.shape, *x.shape[axis + 1 :]))


@operator("GatherElements")
def _gather_elements(a: Any, x: Any, places: Any) -> Any:
    axis = a.get("axis", 0)
    return torch.gather(x, axis, torch.where(places < 0, places + x.shape[axis], places))


@operator("GatherND")
def _gather_nd(a: Any, x: Any, places: Any) -> Any:
    assert not a.get("batch_dims")
    return x[tuple(places.unbind(-1))]


@operator("Range")
def _range(a: Any, start: Any, limit: Any, step: Any) -> Any:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


@operator("ConstantOfShape")
def _filled(a: Any, shape: Any) -> Any:
    value = tensor(numpy_helper.to_array(a["value"])) if "value" in a else torch.zeros(1).double()
    return value.reshape(()).expand(tuple(ints(shape))).clone()


@operator("Trilu")
def _trilu(a: Any, x: Any, k: Any = None) -> Any:
    diagonal = 0 if k is None else int(k)
    return torch.triu(x, diagonal) if a.get("upper", 1) else torch.tril(x, diagonal)


@operator("ScatterElements")
def _scatter_elements(a: Any, x: Any, places: Any, updates: Any) -> Any:
    axis = a.get("axis", 0)
    if a.get("reduction", "none") == "add":
        return x.scatter_add(axis, places, updates)
    assert a.get("reduction", "none") == "none"
    return x.scatter(axis, places, updates)


@operator("DepthToSpace")
def _depth_to_space(a: Any, x: Any) -> Any:
    assert a.get("mode") == "CRD"
    return F.pixel_shuffle(x, a["blocksize"])


@operator("Pad")
def _pad(a: Any, x: Any, widths: Any, value: Any = None, axes: Any = None) -> Any:
    chosen = list(range(x.ndim)) if axes is None else [n % x.ndim for n in ints(axes)]
    pairs = [(0, 0)] * x.ndim
    for k, axis in enumerate(chosen):
        pairs[axis] = ints(widths)[k], ints(widths)[k + len(chosen)]
    mode = a.get("mode", "constant")
    if mode == "constant":
        flat = [n for pair in reversed(pairs) for n in pair]
        return F.pad(x, flat, value=0.0 if value is None else value.item())
    assert pairs[0] == pairs[1] == (0, 0)
    flat = [n for pair in reversed(pairs[2:]) for n in pair]
    return F.pad(x, flat, mode={"reflect": "reflect", "edge": "replicate"}[mode])


@operator("ScatterND")
def _scatter(a: Any, x: Any, places: Any, updates: Any) -> Any:
    assert a.get("reduction", "none") == "none"
    return x.index_put(tuple(places.unbind(-1)), updates)
