"""Normalization. Batch normalization of a file is ours, revived: by the batch in training, by the
statistics of the file in use; without `training` by these in both, unless what it makes of them is
taken."""

from __future__ import annotations

from typing import Any

from nncompile import elementwise as e
from nncompile.elementwise.map import Map
from nncompile.frontends.onnx.checking import axis_in
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.frontends.onnx.tensors import dtype_from
from nncompile.ir.basic import cast
from nncompile.ir.dims import dim, product
from nncompile.ir.graph import Input, input_of
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.ops.normalization.functions import batch_norm
from nncompile.ops.normalization.layer import instance_norm, layer_norm, rms_norm
from nncompile.ops.reduction.statistics import mean
from nncompile.ops.shape.reshape import reshape
from nncompile.ops.shape.slicing import Slice


def _by_channel(v: Value, x: Value) -> Value:
    return reshape(v, (v.shape[0], *(1,) * (x.rank - 2))) if x.rank > 2 else v


def _normalized(
    x: Value, scale: Value, bias: Value, centre: Value, variance: Value, eps: float
) -> Value:
    scale, bias, centre, variance = (_by_channel(v, x) for v in (scale, bias, centre, variance))
    y: Value = (x - centre) / e.sqrt(variance + eps) * scale + bias
    return y


def _is_state(v: Value) -> bool:
    return isinstance(v.op, Input) and v.op.kind == "state"


@imports("BatchNormalization")
def _batch(n: Node, x: Value, scale: Value, bias: Value, centre: Value, variance: Value) -> Any:
    importer, _ = n.context
    eps, momentum = n["epsilon"], n["momentum"]
    in_states = _is_state(centre) and _is_state(variance) and x.rank >= 2
    if in_states and importer.training:
        y, *following = batch_norm(x, scale, bias, centre, variance, 1 - momentum, eps)
        for state, value in zip((centre, variance), following, strict=True):
            importer.updates[input_of(state).name] = value
        return (y, centre, variance)[: len(n.outputs)]
    wide = [v if v.dtype is x.dtype else cast(v, x.dtype) for v in (scale, bias)]
    is_held = not importer.training and not any(map(importer.is_taken, n.outputs[1:]))
    if not n["training_mode"] or is_held:
        centre, variance = (cast(v, x.dtype) for v in (centre, variance))
        return _normalized(x, wide[0], wide[1], centre, variance, eps)
    axes = (0, *range(2, x.rank))
    now = mean(x, axes, True)
    spread = mean(e.square(x - now), axes, True)
    size = (x.shape[1],)
    batch = [reshape(v, size) for v in (now, spread)]
    y = _normalized(x, wide[0], wide[1], batch[0], batch[1], eps)
    running = [
        old * momentum + cast(new, old.dtype) * (1 - momentum)
        for old, new in zip((centre, variance), batch, strict=True)
    ]
    return (y, *running)[: len(n.outputs)]


@imports("InstanceNormalization")
def _instance(n: Node, x: Value, scale: Value, bias: Value) -> Any:
    return instance_norm(x, scale, bias, n["epsilon"])


@imports("GroupNormalization")
def _group(n: Node, x: Value, scale: Value, bias: Value) -> Any:
    """Before opset 21 scale and bias are of the groups, since then of the channels."""
    groups = n["num_groups"]
    batch, channels, *space = x.shape
    wide = cast(x, f32) if x.dtype.is_half else x
    rows = reshape(wide, (batch, groups, dim(channels // groups * product(space))))
    centre = mean(rows, -1, True)
    distance = rows - centre
    unit = distance / e.sqrt(mean(e.square(distance), -1, True) + n["epsilon"])
    scale, bias = (cast(v, wide.dtype) for v in (scale, bias))
    if n.version < 21:
        unit = unit * reshape(scale, (groups, 1)) + reshape(bias, (groups, 1))
        return cast(reshape(unit, x.shape), x.dtype)
    y = reshape(unit, x.shape)
    return cast(y * _by_channel(scale, x) + _by_channel(bias, x), x.dtype)


def _not_shifted(x: Value) -> Value:
    """What x is without the first element of each row taken off: its layer normalization is the
    same. Files of ours have it so, and it comes back where the operator is written again."""
    if not isinstance(x.op, Map) or len(x.args) != 2:
        return x
    for whole, first in (x.args, x.args[::-1]):
        is_slice = isinstance(first.op, Slice) and first.args[0] is whole
        if is_slice and first.shape[-1] == 1 and x is whole - first:
            return whole
    return x


@imports("LayerNormalization")
def _layer(n: Node, x: Value, scale: Value, bias: Value | None = None) -> Any:
    axis = axis_in(x, n["axis"])
    axes = x.rank - axis
    fits = scale.shape == x.shape[axis:] and (bias is None or bias.shape == x.shape[axis:])
    y: Value | None = None
    if fits and all(d != 0 for d in x.shape[axis:]):
        y = layer_norm(_not_shifted(x) if axes == 1 else x, scale, bias, axes, n["epsilon"])
        if len(n.outputs) == 1:
            return y
    over = tuple(range(axis, x.rank))
    wide = cast(x, f32) if x.dtype.is_half else x
    centre = mean(wide, over, True)
    distance = wide - centre
    inverse = 1 / e.sqrt(mean(e.square(distance), over, True) + n["epsilon"])
    if y is None:
        y = cast(distance * inverse, x.dtype) * scale
        y = y if bias is None else y + bias
    stash = dtype_from(n["stash_type"] or 1)
    return (y, cast(centre, stash), cast(inverse, stash))[: len(n.outputs)]


@imports("RMSNormalization", "SimplifiedLayerNormalization")
def _rms(n: Node, x: Value, scale: Value) -> Any:
    """The latter, of which onnx knows nothing, is onnxruntime's, and has 1 / RMS as a second
    result. The result has the type of the scale."""
    axis = axis_in(x, -1 if n["axis"] is None else n["axis"])
    epsilon = 1e-5 if n["epsilon"] is None else n["epsilon"]
    y: Value | None = None
    if scale.dtype is x.dtype and scale.shape == x.shape[axis:]:
        y = rms_norm(x, scale, x.rank - axis, epsilon)
        if len(n.outputs) == 1:
            return y
    over = tuple(range(axis, x.rank))
    wide = cast(x, f32) if x.dtype.is_half else x
    inverse = 1 / e.sqrt(mean(e.square(wide), over, True) + epsilon)
    if y is None:
        y = cast(wide * inverse, scale.dtype) * scale
    return (y, cast(inverse, dtype_from(n["stash_type"] or 1)))[: len(n.outputs)]
