"""Normalization within one example: layer, group, instance and RMS normalization. They mean the
same in training and in inference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sympy as sp

from nncompile.diagnostics.errors import DTypeError, ShapeError, whole_number
from nncompile.diagnostics.hints import suggests_names
from nncompile.elementwise import sqrt
from nncompile.ir.basic import as_value, in_single
from nncompile.ir.broadcasting import broadcast_to
from nncompile.ir.dims import Dim, dim, product, same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.graph import items
from nncompile.ir.native import Kernel, Native
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import Array, TupleType, Type, f32, f64
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.core.composition import composed_onnx
from nncompile.ops.core.long_sums import NORMALIZED
from nncompile.ops.normalization.batch import check_channels, positive_epsilon
from nncompile.ops.normalization.channels import CHANNELS
from nncompile.ops.normalization.gradients import LayerNormGradient, summed_rows
from nncompile.ops.reduction.moments import First, count_of, in_numpy, moments
from nncompile.ops.reduction.operands import real_value, require_real
from nncompile.ops.reduction.statistics import mean
from nncompile.ops.shape.reshape import reshape


class LayerNorm(Op, Native):
    """x with the mean 0 and the variance 1 along its last axis, times scale[k], plus bias[k],
    where they are given: `(x − m)/√(v + epsilon)·scale + bias`, v the mean square distance from m.

    The results are this, and what the gradient needs: m[…, 1] and 1/√(v + epsilon)[…, 1].
    """

    epsilon: float

    def infer(self, x: Type, scale: Type | None = None, bias: Type | None = None) -> TupleType:
        require_real(x)
        if x.rank == 0:
            raise ShapeError(f"layer normalization needs an axis, x is {x}")
        for name, type_ in (("scale", scale), ("bias", bias)):
            if type_ is not None and type_.dtype is not x.dtype:
                raise DTypeError(f"element types differ: x is {x}, {name} is {type_}")
            if type_ is not None and same_shape(type_.shape, x.shape[-1:]) is not True:
                raise ShapeError(
                    f"{name} needs one number for each element of the last axis, got {type_}"
                )
        statistics = Type(x.dtype, (*x.shape[:-1], 1))
        return TupleType((x, statistics, statistics))

    def pullback(
        self, g: Sequence[Value | None], y: Value, x: Value, *args: Value
    ) -> Sequence[Value | None]:
        y_cotangent, centre_cotangent, inverse_cotangent = g
        _, centre, inverse = items(y)
        if y_cotangent is not None and centre_cotangent is None is inverse_cotangent:
            op = LayerNormGradient(len(args) > 1)
            return items(op(y_cotangent, x, centre, inverse, *args[:1]))
        unit, n = (x - centre) * inverse, count_of(x, (x.rank - 1,))
        gradient: Value | None = None
        projection: Value | None = None  # what the gradient has of the unit vector itself
        arg_gradients: list[Value | None] = [None] * len(args)
        if y_cotangent is not None:
            weighted = y_cotangent * unit
            if args:
                # Σ of_y·scale as a product with a matrix of one column.
                column = reshape(args[0] / n, (x.shape[-1], 1))
                first, second = matmul(y_cotangent, column), matmul(weighted, column)
                arg_gradients[:] = [summed_rows(weighted), summed_rows(y_cotangent)][: len(args)]
                gradient = (y_cotangent * args[0] - first) * inverse
            else:
                first, second = mean(y_cotangent, -1, True), mean(weighted, -1, True)
                gradient = (y_cotangent - first) * inverse
            projection = inverse * second
        if inverse_cotangent is not None:
            term = inverse_cotangent * inverse * inverse / n
            projection = term if projection is None else projection + term
        if projection is not None:
            gradient = -(projection * unit) if gradient is None else gradient - projection * unit
        if centre_cotangent is not None:
            part = centre_cotangent / n
            gradient = part if gradient is None else gradient + part
        return None if gradient is None else broadcast_to(gradient, x.shape), *arg_gradients

    def composed(self, x: Value, *args: Value) -> tuple[Value, ...]:
        """The results in terms of other ops."""
        axes = (x.rank - 1,)
        centre, distance, variance = moments(x, axes, count_of(x, axes), keepdims=True)
        inverse = 1 / sqrt(variance + self.epsilon)
        return _affine(distance * inverse, *args), centre, inverse

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        axis = row_axes[0]
        if axis is None or axis == types[0].rank - 1 or any(p is not None for p in row_axes[1:]):
            return None
        return axis

    def native(self, x: Type, *args: Type) -> Kernel | None:
        return Kernel("LayerNorm", epsilon=self.epsilon) if x.dtype is f32 else None

    def numpy(self, x: Array, *args: Array) -> tuple[Array, ...]:
        n = x.dtype.type(x.shape[-1])
        centre, distance = in_numpy(x, (x.ndim - 1,))
        variance = (distance * distance).sum(-1, keepdims=True) / n
        inverse = 1 / np.sqrt(variance + x.dtype.type(self.epsilon))
        y = distance * inverse
        if args:
            y = y * args[0]
        if len(args) > 1:
            y = y + args[1]
        return y, centre, inverse

    def onnx(self, o: OnnxEmitter, x: str, *args: str) -> Any:
        source: Type = o.types[0]
        size = sp.sympify(source.shape[-1])
        if source.dtype is not f32 or (size - 2).is_nonnegative is not True:
            # ONNX's operator gives the statistics in float32, and onnxruntime's refuses an axis
            # of size 0, before 1.24 of size 1, too.
            return composed_onnx(o, self.composed, x, *args)

        def few(o: OnnxEmitter) -> tuple[str, ...]:
            scale = args or (o.Expand(o.scalar(1, f32), o.shape(source.shape[-1:])),)
            # onnxruntime before 1.24 takes the variance for the mean of squares less the square of
            # the mean: counted from one of the numbers, little cancels.
            start = o.Slice(x, o.ints([0]), o.ints([1]), o.ints([-1]))
            y, offset, inverse = o.LayerNormalization(
                o.Sub(x, start), *scale, outputs=3, axis=-1, epsilon=self.epsilon
            )
            return y, o.Add(offset, start), inverse

        def many(o: OnnxEmitter) -> tuple[str, ...]:
            return composed_onnx(o, self.composed, x, *args)

        return o.by_size(source.shape[-1], NORMALIZED, few, many, o.type)

    def torch(self, t: TorchEmitter, x: str, *args: str) -> tuple[str, ...]:
        scale, bias = (*args, "None", "None")[:2]
        source = t.types[0]
        shape = t.shape(source.shape[-1:])
        # torch rounds the mean before it takes it off: of numbers in 1000…1001 the last digits of
        # a mean are 10⁻⁴ of the result. Counted from one of the numbers, little cancels.
        start = First((source.rank - 1,)).torch(t, x)
        results = t.native_layer_norm(t.sub(x, start), shape, scale, bias, self.epsilon)
        y, offset, inverse = (t.item(results, i) for i in range(3))
        return y, t.add(offset, start), inverse

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(1e-5), (f32["n", 5], f32[5], f32[5]))
        yield Sample(cls(1e-3), (f32["n", "m", 4], f32[4]))
        yield Sample(cls(1e-5), (f32[2, "n", 3],))
        yield Sample(cls(1e-5), (f32[2, "k + 1"],))
        yield Sample(cls(1e-5), (f32["n", "k + 1"], f32["k + 1"], f32["k + 1"]))
        yield Sample(cls(1e-5), (f64["n", "k"], f64["k"], f64["k"]))
        yield Sample(cls(1e-2), (f32[6],))


@suggests_names
def layer_norm(
    x: Any, scale: Any = None, bias: Any = None, axes: int = 1, eps: float = 1e-5
) -> Value:
    """x with the mean 0 and the variance 1 over its last `axes` axes, times `scale` and plus
    `bias`, both of the shape of these axes (J. Ba, J. Kiros and G. Hinton, "Layer normalization",
    2016). The variance is the biased one, as torch's.

    Raises `ShapeError` where x has fewer axes or the others do not fit, `ModelError` for an eps
    that is not positive.
    """
    x = real_value(x)
    shape = _normalized_shape("layer normalization", x, axes)
    args = [None if v is None else _of_shape(n, v, x, shape) for n, v in _named(scale, bias)]
    op = LayerNorm(positive_epsilon("layer normalization", eps))
    flat = x if axes == 1 else reshape(x, (*x.shape[: x.rank - axes], product(shape)))
    size = flat.shape[-1:]
    operands = [reshape(v, size) for v in args if v is not None]
    if args[0] is None and operands:  # a bias alone
        return _affine(reshape(items(op(flat))[0], x.shape), None, args[1])
    return reshape(items(op(flat, *operands))[0], x.shape)


@suggests_names
@in_single
def rms_norm(x: Any, scale: Any = None, axes: int = 1, eps: float | None = None) -> Value:
    """x divided by its root mean square over its last `axes` axes, times `scale`, of the shape of
    these axes: `x/√(mean x² + eps)·scale` (B. Zhang and R. Sennrich, "Root mean square layer
    normalization", 2019). Without `eps` it is the distance from 1 to the next number, as torch's.

    Raises `ShapeError` where x has fewer axes or the scale does not fit, `ModelError` for an eps
    that is not positive.
    """
    x = real_value(x)
    shape = _normalized_shape("RMS normalization", x, axes)
    small = x.dtype.eps if eps is None else eps
    small = positive_epsilon("RMS normalization", small)
    over = tuple(range(x.rank - axes, x.rank))
    y: Value = x * (1 / sqrt(mean(x * x, over, True) + small))
    return _affine(y, None if scale is None else _of_shape("scale", scale, x, shape))


@suggests_names
@in_single
def group_norm(
    x: Any, num_groups: int, scale: Any = None, bias: Any = None, eps: float = 1e-5
) -> Value:
    """x[N, C, *sizes] with the mean 0 and the variance 1 in each of `num_groups` groups of channels
    of each example, times scale[C], plus bias[C] (Y. Wu and K. He, "Group normalization", 2018).

    Raises `ShapeError` where x has no channels, the groups do not divide them or the others are
    not one number for each channel, `ModelError` for an eps that is not positive.
    """
    x = real_value(x)
    if x.rank < 2:
        raise ShapeError(f"group normalization needs [batch, channels, …], x is {x.type}")
    batch, channels, *sizes = x.shape
    number = whole_number("num_groups of group normalization", num_groups, least=1)
    if not isinstance(channels, int) or channels % number:
        raise ShapeError(
            f"group normalization: {num_groups} groups do not divide {channels} channels",
            rows=[("x", str(x.type))],
        )
    return _by_channels(
        x, (batch, number, dim(channels // number) * product(sizes)), scale, bias, eps
    )


@suggests_names
@in_single
def instance_norm(x: Any, scale: Any = None, bias: Any = None, eps: float = 1e-5) -> Value:
    """x[N, C, *sizes] with the mean 0 and the variance 1 in each channel of each example, times
    scale[C], plus bias[C] (D. Ulyanov, A. Vedaldi and V. Lempitsky, "Instance normalization: the
    missing ingredient for fast stylization", 2016). Where a channel is one number, which torch
    refuses, the result is the bias.

    Raises `ShapeError` where x has no axis after that of the channels or the others are not one
    number for each channel, `ModelError` for an eps that is not positive.
    """
    x = real_value(x)
    if x.rank < 3:
        raise ShapeError(
            f"instance normalization needs [batch, channels, size, …], x is {x.type}",
            hint="without positions a channel is one number: layer_norm normalizes over all of "
            "them",
        )
    batch, channels, *sizes = x.shape
    return _by_channels(x, (batch, channels, product(sizes)), scale, bias, eps)


def _by_channels(x: Value, shape: Sequence[Dim], scale: Any, bias: Any, eps: float) -> Value:
    """x normalized along the last axis of that shape, with a scale and a bias of the channels."""
    channel = Type(x.dtype, (x.shape[CHANNELS],))
    operands = {name: as_value(v, x) for name, v in _named(scale, bias) if v is not None}
    check_channels(x.type, channel, **{name: v.type for name, v in operands.items()})
    op = LayerNorm(positive_epsilon("normalization", eps))
    y = reshape(items(op(reshape(x, shape)))[0], x.shape)
    broadcast = (x.shape[CHANNELS], *(1,) * (x.rank - 2))
    args = {name: reshape(v, broadcast) for name, v in operands.items()}
    return _affine(y, args.get("scale"), args.get("bias"))


def _named(scale: Any, bias: Any) -> tuple[tuple[str, Any], ...]:
    return ("scale", scale), ("bias", bias)


def _affine(y: Value, scale: Value | None = None, bias: Value | None = None) -> Value:
    y = y if scale is None else y * scale
    return y if bias is None else y + bias


def _normalized_shape(name: str, x: Value, axes: int) -> tuple[Dim, ...]:
    """The sizes of the last axes, which the scale and the bias have."""
    count = whole_number(f"the axes of {name}", axes, least=1)
    if count > x.rank:
        raise ShapeError(f"{name} over the last {count} axes, x is {x.type}")
    return x.shape[x.rank - count :]


def _of_shape(name: str, value: Any, x: Value, shape: tuple[Dim, ...]) -> Value:
    v = as_value(value, x)
    if v.dtype is not x.dtype:
        raise DTypeError(f"element types differ: x is {x.type}, {name} is {v.type}")
    if same_shape(v.shape, shape) is not True:
        raise ShapeError(f"the {name} for {x.type} must be {Type(x.dtype, shape)}, got {v.type}")
    return v
