"""Fourier transforms, as products with matrices of sines and cosines, and n-grams."""

from __future__ import annotations

from typing import Any

import numpy as np

from nncompile import elementwise as e
from nncompile.frontends.onnx.checking import axis_in
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.frontends.onnx.tensors import Tensor
from nncompile.ir.basic import cast, const
from nncompile.ir.op import Value
from nncompile.ir.types import Array, f32, f64
from nncompile.ops import getitem
from nncompile.ops import pad as padded
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.reduction.sums import sum as total
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.joining import stack
from nncompile.ops.shape.reshape import moveaxis, reshape

_LONGEST = 4096  # a transform by matrices of this size
_MOST_COLUMNS = 1 << 16  # of counted n-grams


@imports("DFT", raw=True)
def _dft(n: Node, x: Tensor, length: Tensor | None = None, axis: Tensor | None = None) -> Any:
    value = x.value
    place = n["axis"] if n.version < 20 else n.number(2, -2)
    place = axis_in(value, int(place))
    halved = bool(n["onesided"]) and bool(n["inverse"])
    size: Any = value.shape[place]
    if length is not None:
        size = int(n.number(1))
    elif halved:
        size = 2 * (size - 1)
    return _transformed(value, place, size, bool(n["onesided"]), bool(n["inverse"]))


def _transformed(x: Value, axis: int, size: Any, onesided: bool, inverse: bool) -> Value:
    """The discrete Fourier transform along an axis of x[…, 1 or 2], to […, 2], or to the real half
    of one whose first half is given."""
    if not isinstance(size, int) or size > _LONGEST or not isinstance(x.shape[axis], int):
        raise Refused(f"a transform of {size} numbers")
    if onesided and inverse:
        full = size // 2 + 1
        if x.shape[axis] < full:
            raise Refused("half of a transform that has less than half of it")
    x = moveaxis(_of_length(x, axis, size, onesided and inverse), axis, -2)
    real = getitem(x, (..., 0))
    imaginary = getitem(x, (..., 1)) if x.shape[-1] == 2 else None
    sign = 1 if inverse else -1
    rows, columns = np.arange(real.shape[-1]), np.arange(size)
    angle = 2 * np.pi * (np.outer(rows, columns) % size) / size
    weight = np.ones(len(rows))[:, None] / (size if inverse else 1)
    if onesided and inverse:  # what is left out is the mirror image
        mirrored = (rows > 0) & (rows < (size + 1) // 2)
        weight = weight * np.where(mirrored, 2.0, 1.0)[:, None]
    cosine, sine = (const((f(angle) * weight).astype(np.float64)) for f in (np.cos, np.sin))
    wide = cast(real, f64)
    y_real, y_imaginary = matmul(wide, cosine), sign * matmul(wide, sine)
    if imaginary is not None:
        other = cast(imaginary, f64)
        y_real = y_real - sign * matmul(other, sine)
        y_imaginary = y_imaginary + matmul(other, cosine)
    if onesided and inverse:
        y: Value = stack([y_real], -1)
    else:
        y = stack([y_real, y_imaginary], -1)
    if onesided and not inverse:
        y = getitem(y, (..., slice(0, size // 2 + 1), slice(None)))
    return cast(moveaxis(y, -2, axis), x.dtype)


def _of_length(x: Value, axis: int, size: int, halved: bool) -> Value:
    """x with as many numbers along the axis as are transformed: cut off, or with zeros behind."""
    wanted = size // 2 + 1 if halved else size
    given: Any = x.shape[axis]
    if given > wanted:
        keys: list[Any] = [slice(None)] * x.rank
        keys[axis] = slice(0, wanted)
        return getitem(x, tuple(keys))
    pairs = [(0, wanted - given if i == axis else 0) for i in range(x.rank)]
    return padded(x, pairs) if given < wanted else x


@imports("STFT", raw=True)
def _stft(n: Node, x: Tensor, step: Tensor, *optional: Tensor | None) -> Any:
    window, length = (*optional, None, None)[:2]
    value, hop = x.value, int(n.number(1))
    size = window.type.shape[0] if window is not None else n.number(3)
    size = int(n.number(3)) if length is not None else size
    samples = value.shape[1]
    if not isinstance(samples, int) or not isinstance(size, int):
        raise Refused("frames of a signal of unknown length")
    count = (samples - size) // hop + 1
    places = np.arange(count)[:, None] * hop + np.arange(size)
    frames = take(value, const(places.astype(np.int64)), 1)
    if window is not None:
        frames = frames * reshape(window.value, (window.type.shape[0], 1))
    return _transformed(frames, 2, size, bool(n["onesided"]), False)


@imports("MelWeightMatrix", raw=True)
def _mel(n: Node, *_: Tensor) -> Any:
    """Triangles of equal width on the mel scale, on the bins of a transform."""
    bands, size, rate, low, high = (n.number(i) for i in range(5))
    bins = size // 2 + 1
    if not (1 <= bins <= _MOST_COLUMNS and 1 <= bands <= _LONGEST):
        raise Refused(f"{bands} bands of a transform of {size} numbers")
    mel_low, mel_high = (2595 * np.log10(1 + f / 700) for f in (low, high))
    mels = np.arange(bands + 2) * ((mel_high - mel_low) / (bands + 2)) + mel_low
    edges = (((size + 1) * 700 * (10 ** (mels / 2595) - 1)) // rate).astype(int)
    matrix = np.zeros((bins, bands))
    for i in range(bands):
        first, middle, last = edges[i : i + 3]
        if middle == first:
            matrix[middle, i] = 1
        else:
            for j in range(first, middle + 1):
                matrix[j, i] = (j - first) / (middle - first)
        if last > middle:
            for j in range(middle, last):
                matrix[j, i] = (last - j) / (last - middle)
    return cast(const(matrix.astype(np.float64)), f32)


@imports("TfIdfVectorizer")
def _tfidf(n: Node, x: Value) -> Any:
    """How often each n-gram of the pool occurs, with up to so many elements left out between."""
    if n["pool_strings"]:
        raise Refused("n-grams of strings")
    rows = x if x.rank == 2 else reshape(x, (1, *x.shape))
    length = rows.shape[1]
    if not isinstance(length, int):
        raise Refused("n-grams of sequences of unknown length")
    starts, places = list(n["ngram_counts"]), list(n["ngram_indexes"])
    pool = list(n["pool_int64s"] or ())
    if not starts:
        raise Refused("its attribute ngram_counts is empty")
    ends = [*starts[1:], len(pool)]
    if any(not 0 <= a <= b <= len(pool) for a, b in zip(starts, ends, strict=True)):
        raise Refused(f"ngram_counts {starts} of a pool of {len(pool)} numbers")
    if not places or not all(0 <= p < _MOST_COLUMNS for p in places):
        raise Refused(f"ngram_indexes that are none, or not below {_MOST_COLUMNS:,}")
    grams = sum(
        len(range(start, end, order))
        for order, (start, end) in enumerate(zip(starts, ends, strict=True), start=1)
    )
    if len(places) != grams:
        raise Refused(f"its attribute ngram_indexes has {len(places)} numbers, not {grams}")
    found: dict[int, Value] = {}
    item = 0
    for order, (start, end) in enumerate(zip(starts, ends, strict=True), start=1):
        for i in range(start, end, order):
            if n["min_gram_length"] <= order <= n["max_gram_length"]:
                gram = np.asarray(pool[i : i + order], x.dtype.numpy)
                found[places[item]] = _occurrences(rows, gram, length, n["max_skip_count"])
            item += 1
    none = total(0 * cast(rows, f32), 1)
    columns = [found.get(i, none) for i in range(max(places) + 1)]
    y = _weighted(n, stack(columns, 1), places)
    return y if x.rank == 2 else reshape(y, (y.shape[1],))


def _occurrences(rows: Value, gram: Array, length: int, skips: int) -> Any:
    order = len(gram)
    count: Any = total(0 * cast(rows, f32), 1)
    for skip in range(skips + 1 if order > 1 else 1):
        reach = (order - 1) * (skip + 1)
        if reach >= length:
            break
        places = np.arange(length - reach)[:, None] + np.arange(order) * (skip + 1)
        windows = take(rows, const(places.astype(np.int64)), 1)
        equal = total(cast(windows == const(gram), f32), -1) == float(order)
        count = count + total(cast(equal, f32), 1)
    return count


def _weighted(n: Node, counts: Value, places: list[int]) -> Value:
    weights = np.ones(max(places) + 1, np.float32)
    if n["weights"]:
        weights[np.asarray(places)] = np.asarray(n.sizes("weights", len(places)), np.float32)
    if n["mode"] == "TF":
        return counts
    there = counts if n["mode"] == "TFIDF" else cast(counts > 0, f32)
    y: Value = there * const(weights)
    return e.where(counts > 0, y, 0.0)
