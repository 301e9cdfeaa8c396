"""ONNX's layers in torch: convolutions, pooling, normalizations, resizing, recurrences, and fake
quantization as torch has it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch.nn import functional as F

from tests.onnx_models.torch_nodes import ints, operator

_CONVOLUTIONS = (F.conv1d, F.conv2d, F.conv3d)
_TRANSPOSED = (F.conv_transpose1d, F.conv_transpose2d, F.conv_transpose3d)


def _padded(a: Any, x: Any, kernel: Any, value: float = 0.0) -> Any:
    """The input with the padding that the attributes ask for."""
    rank = x.ndim - 2
    strides = a.get("strides") or [1] * rank
    steps = a.get("dilations") or [1] * rank
    pads = a.get("pads") or [0] * (2 * rank)
    kind = a.get("auto_pad", "NOTSET")
    if kind.startswith("SAME"):
        missing = [
            max((-(-n // s) - 1) * s + (k - 1) * d + 1 - n, 0)
            for n, s, k, d in zip(x.shape[2:], strides, kernel, steps, strict=True)
        ]
        less, more = [m // 2 for m in missing], [m - m // 2 for m in missing]
        pads = less + more if kind == "SAME_UPPER" else more + less
    if not any(pads):
        return x
    pairs = [n for i in reversed(range(rank)) for n in (pads[i], pads[rank + i])]
    return F.pad(x, pairs, value=value)


@operator("Conv")
def _conv(a: Any, x: Any, w: Any, b: Any = None) -> Any:
    rank = x.ndim - 2
    return _CONVOLUTIONS[rank - 1](
        _padded(a, x, w.shape[2:]), w, b, a.get("strides") or 1,
        dilation=a.get("dilations") or 1, groups=a.get("group", 1),
    )  # fmt: skip


@operator("ConvTranspose")
def _conv_transposed(a: Any, x: Any, w: Any, b: Any = None) -> Any:
    rank = x.ndim - 2
    pads = a.get("pads") or [0] * (2 * rank)
    assert pads[:rank] == pads[rank:] and "output_shape" not in a
    return _TRANSPOSED[rank - 1](
        x, w, b, a.get("strides") or 1, tuple(pads[:rank]), tuple(a.get("output_padding") or (0,)),
        a.get("group", 1), a.get("dilations") or 1,
    )  # fmt: skip


@operator("MaxPool")
def _max_pool(a: Any, x: Any) -> Any:
    kernel = a["kernel_shape"]
    pool = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(kernel) - 1]
    padded = _padded(a, x, kernel, -math.inf)
    strides, steps = a.get("strides") or 1, a.get("dilations") or 1
    strides = strides if isinstance(strides, int) else tuple(strides)
    return pool(padded, kernel, strides, 0, steps, bool(a.get("ceil_mode")))


@operator("AveragePool")
def _average_pool(a: Any, x: Any) -> Any:
    kernel = a["kernel_shape"]
    pool = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[len(kernel) - 1]
    assert not a.get("ceil_mode") and (a.get("count_include_pad") or not any(a.get("pads") or []))
    return pool(_padded(a, x, kernel), kernel, a.get("strides") or 1)


@operator("GlobalAveragePool")
def _global_pool(a: Any, x: Any) -> Any:
    return x.mean(tuple(range(2, x.ndim)), keepdim=True)


@operator("BatchNormalization")
def _batch_norm(a: Any, x: Any, scale: Any, shift: Any, mean: Any, variance: Any) -> Any:
    """`a["batch"]`: by the batch, as in training; the statistics after it are put there."""
    if not a["batch"]:
        return F.batch_norm(x, mean, variance, scale, shift, False, 0.0, a.get("epsilon", 1e-5))
    running = mean.detach().clone(), variance.detach().clone()
    momentum = 1 - a.get("momentum", 0.9)
    y = F.batch_norm(x, *running, scale, shift, True, momentum, a.get("epsilon", 1e-5))
    a["statistics"](running)
    return y


@operator("LayerNormalization")
def _layer_norm(a: Any, x: Any, scale: Any, shift: Any = None) -> Any:
    shape = x.shape[a.get("axis", -1) :]
    shift = None if shift is None else shift.expand(shape)
    return F.layer_norm(x, shape, scale.expand(shape), shift, a.get("epsilon", 1e-5))


@operator("InstanceNormalization")
def _instance_norm(a: Any, x: Any, scale: Any, shift: Any) -> Any:
    return F.instance_norm(x, weight=scale, bias=shift, eps=a.get("epsilon", 1e-5))


@operator("Resize")
def _resized(a: Any, x: Any, roi: Any = None, scales: Any = None, sizes: Any = None) -> Any:
    """By whole factors to the nearest, and between two elements by half pixels."""
    if sizes is not None:
        target = ints(sizes)[2:]
    else:
        target = [int(n * s) for n, s in zip(x.shape[2:], scales[2:].tolist(), strict=True)]
    if a["mode"] == "nearest":
        assert all(m % n == 0 for n, m in zip(x.shape[2:], target, strict=True))
        return F.interpolate(x, tuple(target), mode="nearest")
    kind = a.get("coordinate_transformation_mode", "half_pixel")
    assert kind in ("half_pixel", "pytorch_half_pixel", "align_corners")
    mode = {("linear", 1): "linear", ("linear", 2): "bilinear", ("cubic", 2): "bicubic"}
    assert a["mode"] == "linear" or a.get("cubic_coeff_a") == -0.75
    return F.interpolate(
        x, tuple(target), mode=mode[a["mode"], x.ndim - 2], align_corners=kind == "align_corners"
    )


def _both_ways(a: Any, x: Any, cell: Any, weights: list[Any]) -> Any:
    """A recurrence over time, forwards, backwards or both: all outputs and the last states.
    `weights` lie along an axis of directions; the states of `cell` are a tuple."""
    direction = a.get("direction", "forward")
    results = []
    for d in range(2 if direction == "bidirectional" else 1):
        is_back = d == 1 or direction == "reverse"
        state, *others = ([None if w is None else w[d] for w in part] for part in weights)
        made = []
        for row in reversed(x.unbind(0)) if is_back else x.unbind(0):
            state = cell(d, row, state, *others)
            made.append(state[0])
        results.append((torch.stack(made[::-1] if is_back else made), state))
    y = torch.stack([made for made, _ in results], 1)
    states = zip(*(state for _, state in results), strict=True)
    return (y, *(torch.stack(parts) for parts in states))


def _activations(a: Any, defaults: list[str]) -> list[Any]:
    table = {"Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Relu": torch.relu}
    count = 2 if a.get("direction") == "bidirectional" else 1
    return [table[name] for name in a.get("activations") or defaults * count]


def _start(a: Any, x: Any, start: Any) -> Any:
    count = 2 if a.get("direction") == "bidirectional" else 1
    return x.new_zeros(count, x.shape[1], a["hidden_size"]) if start is None else start


@operator("LSTM")
def _lstm(a: Any, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None,
          c: Any = None, p: Any = None) -> Any:  # fmt: skip
    assert lengths is None and p is None and not a.get("layout")
    functions = _activations(a, ["Sigmoid", "Tanh", "Tanh"])

    def cell(d: int, x: Any, state: Any, weights: Any) -> Any:
        w, r, b = weights
        (h, c), (f, g, last) = state, functions[3 * d : 3 * d + 3]
        z = x @ w.T + h @ r.T
        z = z if b is None else z + b.chunk(2)[0] + b.chunk(2)[1]
        i, o, forget, new = z.chunk(4, -1)
        c = f(forget) * c + f(i) * g(new)
        return f(o) * last(c), c

    start = [_start(a, x, h), _start(a, x, c)]
    return _both_ways(a, x, cell, [start, [w, r, b]])


@operator("GRU")
def _gru(a: Any, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None
         ) -> Any:  # fmt: skip
    assert lengths is None and not a.get("layout")
    functions = _activations(a, ["Sigmoid", "Tanh"])

    def cell(d: int, x: Any, state: Any, weights: Any) -> Any:
        w, r, b = weights
        (h,), (f, g) = state, functions[2 * d : 2 * d + 2]
        b = x.new_zeros(6 * h.shape[-1]) if b is None else b
        zx, rx, nx = (x @ w.T + b.chunk(2)[0]).chunk(3, -1)
        zw, rw, nw = r.chunk(3)
        zb, rb, nb = b.chunk(2)[1].chunk(3)
        z, reset = f(zx + h @ zw.T + zb), f(rx + h @ rw.T + rb)
        if a.get("linear_before_reset"):
            new = g(nx + reset * (h @ nw.T + nb))
        else:
            new = g(nx + (reset * h) @ nw.T + nb)
        return ((1 - z) * new + z * h,)

    return _both_ways(a, x, cell, [[_start(a, x, h)], [w, r, b]])


@operator("RNN")
def _rnn(a: Any, x: Any, w: Any, r: Any, b: Any = None, lengths: Any = None, h: Any = None
         ) -> Any:  # fmt: skip
    assert lengths is None and not a.get("layout")
    functions = _activations(a, ["Tanh"])

    def cell(d: int, x: Any, state: Any, weights: Any) -> Any:
        w, r, b = weights
        z = x @ w.T + state[0] @ r.T
        return (functions[d](z if b is None else z + sum(b.chunk(2))),)

    return _both_ways(a, x, cell, [[_start(a, x, h)], [w, r, b]])


@operator("Dropout")
def _dropout(a: Any, x: Any, rate: Any = None, training: Any = None) -> Any:
    if training is not None and training:
        raise NotImplementedError("a dropout that drops has other numbers each time")
    return x


class Quantized:
    """What `QuantizeLinear` made: what it was made of, to be dequantized by the same numbers."""

    def __init__(self, x: Any, scale: Any, zero: Any) -> None:
        self.x, self.scale, self.zero = x, scale, zero


@operator("QuantizeLinear")
def _quantize(a: Any, x: Any, scale: Any, zero: Any) -> Any:
    return Quantized(x, scale, zero)


@operator("DequantizeLinear")
def _dequantize(a: Any, x: Any, scale: Any, zero: Any = None) -> Any:
    """With torch's gradient where it was quantized by the same numbers."""
    axis = a.get("axis", 1)
    if not isinstance(x, Quantized):
        shape = (-1, *(1,) * (x.ndim - axis % x.ndim - 1)) if scale.numel() > 1 else ()
        shift = 0 if zero is None else zero.reshape(shape).to(torch.float64)
        return (x.to(torch.float64) - shift) * scale.reshape(shape)
    if x.zero is not None and x.zero.dtype == torch.int32:
        return x.x  # so many digits that nothing is cut off
    assert torch.equal(x.scale, scale)
    kind = torch.uint8 if x.zero is None else x.zero.dtype
    low, high = torch.iinfo(kind).min, torch.iinfo(kind).max
    zeros = torch.zeros_like(scale, dtype=torch.int32) if zero is None else zero.to(torch.int32)
    if scale.numel() == 1:
        return torch.fake_quantize_per_tensor_affine(
            x.x, scale.reshape(1).float(), zeros.reshape(1), low, high
        )
    return torch.fake_quantize_per_channel_affine(
        x.x, scale.reshape(-1).float(), zeros.reshape(-1), axis % x.x.ndim, low, high
    )
