"""Attention as one op, for runtimes that have a kernel of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nncompile.diagnostics.errors import DTypeError, ShapeError
from nncompile.ir.broadcasting import unbroadcast
from nncompile.ir.dims import Dim, broadcast, dim, is_one, product, same, same_shape
from nncompile.ir.emitters import OnnxEmitter, TorchEmitter
from nncompile.ir.op import Op, Sample, Value, apply
from nncompile.ir.types import Array, Type, f32, f64
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.core.composition import composed_onnx
from nncompile.ops.reduction.operands import require_real
from nncompile.ops.reduction.softmax import softmax
from nncompile.ops.reduction.sums import sum
from nncompile.ops.shape.reshape import swapaxes


class Attention(Op):
    """softmax(q·kᵀ + bias)·v of q[…, t, d], k[…, s, d], v[…, s, e] and, where it is given, a bias
    that broadcasts to […, t, s]; the leading axes of q, k and v are the same.

    A model is written in products and a softmax, and is differentiated so. A rule puts this in
    their place where nothing else needs the weights.
    """

    def infer(self, q: Type, k: Type, v: Type, bias: Type | None = None) -> Type:
        require_real(q)
        operands = [t for t in (q, k, v, bias) if t is not None]
        if any(t.dtype is not q.dtype for t in operands):
            raise DTypeError(f"element types differ: {', '.join(map(str, operands))}")
        if min(q.rank, k.rank, v.rank) < 3:
            raise ShapeError(f"attention needs […, positions, features], got {q}, {k} and {v}")
        leading = q.shape[:-2]
        fit = same_shape(k.shape[:-2], leading) is True is same_shape(
            v.shape[:-2], leading
        ) and same(q.shape[-1], k.shape[-1]) is True is same(k.shape[-2], v.shape[-2])
        if not fit:
            raise ShapeError(f"attention: {q}, {k} and {v} do not fit together")
        scores = (*q.shape[:-1], k.shape[-2])
        if bias is not None and same_shape(broadcast(bias.shape, scores), scores) is not True:
            raise ShapeError(
                f"attention: the bias {bias} does not broadcast to [{', '.join(map(str, scores))}]"
            )
        return Type(q.dtype, (*q.shape[:-1], v.shape[-1]))

    def pullback(
        self, g: Value, y: Value, q: Value, k: Value, v: Value, *bias: Value
    ) -> tuple[Value, ...]:
        weights = softmax(_scores(q, k, *bias))
        weights_gradient = matmul(g, swapaxes(v, -1, -2))
        gradient = weights * (weights_gradient - sum(weights_gradient * weights, -1, keepdims=True))
        return (
            matmul(gradient, k),
            matmul(swapaxes(gradient, -1, -2), q),
            matmul(swapaxes(weights, -1, -2), g),
            *(unbroadcast(gradient, b) for b in bias),
        )

    def composed(self, q: Value, k: Value, v: Value, *bias: Value) -> tuple[Value]:
        """The result in terms of other ops."""
        return (matmul(softmax(_scores(q, k, *bias)), v),)

    def rowwise(self, row_axes: Sequence[int | None], *types: Any) -> int | None:
        axis = row_axes[0]
        if len(set(row_axes[:3])) != 1 or axis is None or axis >= types[0].rank - 2:
            return None
        if len(row_axes) == 4:  # a bias, of each row or the same for all
            from_end, bias = axis - types[0].rank, types[3]
            bias_axis = None if row_axes[3] is None else row_axes[3] - bias.rank
            is_shared = bias.rank < -from_end or is_one(bias.shape[from_end])
            if bias_axis != from_end and not (bias_axis is None and is_shared):
                return None
        return axis

    def numpy(self, q: Array, k: Array, v: Array, *bias: Array) -> Array:
        scores = q @ np.swapaxes(k, -1, -2)
        for b in bias:
            scores = scores + b
        powers = np.exp(scores - scores.max(-1, keepdims=True, initial=-np.inf))
        return np.asarray(powers / powers.sum(-1, keepdims=True) @ v)

    def onnx(self, o: OnnxEmitter, *names: str) -> str:
        return composed_onnx(o, self.composed, *names)[0]

    def torch(self, t: TorchEmitter, q: str, k: str, v: str, *bias: str) -> str:
        function = "torch.nn.functional.scaled_dot_product_attention"
        y = t.call(function, q, k, v, *bias, scale=1.0)
        # A row whose scores are all NaN is 0 there, as if all of it were masked.
        query_sums = t.call("torch.sum", q, [-1], keepdim=True)
        key_sums = t.call("torch.sum", k, [-2, -1], keepdim=True)
        has_nan = t.call("torch.isnan", t.call("torch.add", query_sums, key_sums))
        nan, zero = (t.constant(np.asarray(n, t.type.dtype.numpy)) for n in (np.nan, 0))
        return t.call("torch.add", y, t.call("torch.where", has_nan, nan, zero))

    def macs(self, result: Type, q: Type, k: Type, v: Type, *bias: Type) -> Dim:
        scores = product((*q.shape, k.shape[-2]))
        return dim(scores + product((*result.shape, k.shape[-2])))

    @classmethod
    def samples(cls) -> Iterator[Sample]:
        yield Sample(cls(), (f32["n", 2, "t", 3], f32["n", 2, "s + 1", 3], f32["n", 2, "s + 1", 4]))
        yield Sample(cls(), (f32["n", "t", 3], f32["n", 5, 3], f32["n", 5, 3], f32["t", 5]))
        yield Sample(cls(), (f32["n", 2, 3, 4],) * 3 + (f32["n", 1, 1, 3],))
        yield Sample(cls(), (f64["n", 2, "t + 1", 3],) * 3)


def _scores(q: Value, k: Value, *bias: Value) -> Value:
    scores = matmul(q, swapaxes(k, -1, -2))
    for b in bias:
        scores = scores + b
    return scores


def attention(q: Value, k: Value, v: Value, *bias: Value) -> Value:
    """softmax(q·kᵀ + bias)·v; see `Attention`."""
    return apply(Attention(), q, k, v, *bias)
