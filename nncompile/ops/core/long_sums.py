"""How long sums are lowered to ONNX: in blocks, so that float32 keeps its digits.

onnxruntime's kernels add one number after the other into one to eight accumulators. What each step
rounds off is at worst half a unit in the last place of the sum so far, and it is the same for
numbers that are alike; so the error grows with the count, and a sum of millions may stand still.
Of n numbers that are alike, one accumulator is off by up to n·ε/7.7, 9.8e-7 for 64 (tried with
every float32). So none adds many more: blocks are summed in float32, and what they come to, if that
is still much, in float64. docs/decisions/0013-sums-in-blocks.md has the figures.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from nncompile.ir.dims import Dim, Shape, floordiv, is_one, product
from nncompile.ir.emitters import OnnxEmitter
from nncompile.ir.types import Type, f32, f64

# How many numbers each way of adding may add with a relative error below 1e-6, whatever they are,
# 64 in each accumulator:
ROW = 512  # that lie one behind the other, in eight accumulators
DOWN = 256  # ones times a matrix, in four where the processor has AVX2, or else in one
ACROSS = 64  # all else, in one
NORMALIZED = 1024  # distances from one of the numbers, so none are alike and large
# The error of matrix products is as that of random numbers: the elements of rows and columns that
# are alike throughout add up in no model.
PRODUCTS = 16384
COLUMN = 4096  # of products with one row or column
RUNNING = ACROSS
SCATTERED = 2048  # at one index, if all are at that one
EXPONENTIALS = 16384  # the kernels of softmax have sixteen accumulators or more

# How many make a block; ACROSS otherwise.
ROW_BLOCK = 256
PRODUCT_BLOCK = 4096
_SECOND = 128  # sums of blocks, so that both errors together are no more than one
_LEAST = 16  # smaller blocks are not worth a pass of their own


def reduced_shape(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    """The shape without the axes (of size 1 there with `keepdims`)."""
    return tuple(1 if i in axes else d for i, d in enumerate(shape) if keepdims or i not in axes)


def runs(axes: Sequence[int]) -> list[tuple[int, int]]:
    """Axes that stand side by side, each as the first and the one behind the last."""
    groups = itertools.groupby(enumerate(sorted(axes)), lambda pair: pair[1] - pair[0])
    runs = [[axis for _, axis in group] for _, group in groups]
    return [(run[0], run[-1] + 1) for run in runs]


def total(o: OnnxEmitter, x: str, source: Type, axes: Sequence[int], keepdims: bool = False) -> str:
    """Σ x over the axes, for real `x` of type `source`."""
    groups = runs(axes)
    cap = ROW if len(groups) == 1 else ROW_BLOCK
    for start, stop in reversed(groups):
        x = _sum_over(o, x, source, start, stop, keepdims, cap)
        cap = _SECOND
        source = source.with_shape(reduced_shape(source.shape, range(start, stop), keepdims))
    return x


def whole_total(
    o: OnnxEmitter, x: str, source: Type, axes: Sequence[int], keepdims: bool = False
) -> str:
    """Σ x over the axes, for integers of 64 bits, modulo 2⁶⁴.

    onnxruntime's sum of integers goes through float64; a product with ones does not.
    """
    for start, stop in reversed(runs(axes)):
        x = _matmul_sum(o, x, source, start, stop)
        source = source.with_shape(reduced_shape(source.shape, range(start, stop), keepdims))
        x = o.Reshape(x, o.shape(source.shape), allowzero=1)
    return x


def _matmul_sum(o: OnnxEmitter, x: str, source: Type, start: int, stop: int) -> str:
    """Σ x over the axes from `start` to before `stop`, as a row or a column.

    Of no elements onnxruntime 1.23 writes all of a product only where both factors are matrices.
    """
    count, one = product(source.shape[start:stop]), o.scalar(1, source.dtype)
    before, after = product(source.shape[:start]), product(source.shape[stop:])
    if start == 0 and stop < source.rank:
        flat = _reshaped(o, x, source.shape, (count, after))
        return o.MatMul(o.Expand(one, o.shape((1, count))), flat)
    if stop < source.rank:
        x = _reshaped(o, x, source.shape, (before, count, after))
        x = o.Transpose(x, perm=[0, 2, 1])
    flat = o.Reshape(x, o.shape((product((before, after)), count)), allowzero=1)
    return o.MatMul(flat, o.Expand(one, o.shape((count, 1))))


def blocks(o: OnnxEmitter, x: str, shape: Shape, axis: int, size: int) -> str:
    """`x` of that shape with the axis as two: blocks, the last of which is filled up with zeros,
    and the `size` places in each."""
    rank, width = len(shape), o.ints([size])
    missing = o.Mod(o.Neg(o.Shape(x, start=axis, end=axis + 1)), width)
    widths = [o.ints([0] * (rank + axis)), missing]
    if axis + 1 < rank:
        widths.append(o.ints([0] * (rank - axis - 1)))
    x = o.Pad(x, o.Concat(*widths, axis=0))
    known = [d for i, d in enumerate(shape) if i != axis and isinstance(d, int) and d]
    if len(known) == rank - 1:
        return o.Reshape(x, o.ints([*known[:axis], -1, size, *known[axis:]]))
    pieces = [o.Div(o.Shape(x, start=axis, end=axis + 1), width), width]
    if axis > 0:
        pieces.insert(0, o.Shape(x, start=0, end=axis))
    if axis + 1 < rank:
        pieces.append(o.Shape(x, start=axis + 1, end=rank))
    return o.Reshape(x, o.Concat(*pieces, axis=0), allowzero=1)


def double_total(o: OnnxEmitter, x: str, axes: Sequence[int], keepdims: bool = False) -> str:
    """Σ x of few float32 numbers over the axes, in float64."""
    summed = o.ReduceSum(o.cast(x, f64), o.ints(axes), keepdims=int(keepdims))
    return o.cast(summed, f32)


def stack_of_blocks(
    o: OnnxEmitter, x: str, shape: Shape, is_last: bool, size: int, to_last: bool
) -> str:
    """Matrices, or stacks of them, as stacks of blocks of `size` along the last axis or the one
    before it, which becomes the last or the one before it; the blocks stand before both."""
    rank = len(shape)
    at = rank - 2
    before = [*range(at)]
    x = blocks(o, x, shape, at + is_last, size)
    block, offset, other = (at + 1, at + 2, at) if is_last else (at, at + 1, at + 2)
    order = [*before, block, *((other, offset) if to_last else (offset, other))]
    return x if order == [*range(rank + 1)] else o.Transpose(x, perm=order)


def _sum_over(
    o: OnnxEmitter, x: str, source: Type, start: int, stop: int, keepdims: bool, cap: int = ROW
) -> str:
    """Σ x over the axes from `start` to before `stop`."""
    count = product(source.shape[start:stop])
    limit = _limit(source, start, stop, keepdims, cap)
    if source.dtype is not f32 or (isinstance(count, int) and count <= limit):
        return _plain_sum(o, x, source, start, stop, keepdims)
    split = _known_suffix(source, start, stop)
    factor = _known_factor(count, _block(source, stop))
    # Axes of known size are blocks as they are; of a known count, longer ones are faster.
    if split is not None and not (isinstance(count, int) and factor):
        x = _plain_sum(o, x, source, split, stop, keepdims)
        rest = source.with_shape(reduced_shape(source.shape, range(split, stop), keepdims))
        return _second_sum(o, x, rest, start, split, keepdims)
    if stop - start > 1 and not isinstance(source.shape[stop - 1], int):
        x = _sum_over(o, x, source, stop - 1, stop, keepdims)
        rest = source.with_shape(reduced_shape(source.shape, [stop - 1], keepdims))
        return _second_sum(o, x, rest, start, stop - 1, keepdims)
    before, after = source.shape[:start], source.shape[stop:]
    if factor is not None:
        rows = floordiv(count, factor)
        x = _reshaped(o, x, source.shape, (*before, rows, factor, *after))
        x = o.ReduceSum(x, o.ints([start + 1]), keepdims=0)
        x = _second_sum(o, x, source.with_shape((*before, rows, *after)), start, start + 1, False)
        return o.Unsqueeze(x, o.ints(range(start, stop))) if keepdims else x

    def plain(o: OnnxEmitter) -> str:
        return _plain_sum(o, x, source, start, stop, keepdims)

    def in_blocks(o: OnnxEmitter) -> str:
        shape = (*before, count, *after)
        flat = _reshaped(o, x, source.shape, shape)
        parts = blocks(o, flat, shape, start, _block(source, stop))
        y = double_total(o, o.ReduceSum(parts, o.ints([start + 1]), keepdims=0), [start])
        return o.Unsqueeze(y, o.ints(range(start, stop))) if keepdims else y

    result = source.with_shape(reduced_shape(source.shape, range(start, stop), keepdims))
    return o.by_size(count, limit, plain, in_blocks, result)


def _second_sum(o: OnnxEmitter, x: str, source: Type, start: int, stop: int, keepdims: bool) -> str:
    """Σ over the sums of blocks."""
    return o.by_size(
        product(source.shape[start:stop]),
        _limit(source, start, stop, keepdims, _SECOND),
        lambda o: _plain_sum(o, x, source, start, stop, keepdims),
        lambda o: double_total(o, x, range(start, stop), keepdims),
        source.with_shape(reduced_shape(source.shape, range(start, stop), keepdims)),
    )


def _plain_sum(o: OnnxEmitter, x: str, source: Type, start: int, stop: int, keepdims: bool) -> str:
    if _is_down(source, start, stop, keepdims):
        # Ones times x is two to six times as fast in onnxruntime as its sum down the rows.
        ones = o.Expand(o.scalar(1, source.dtype), o.shape(source.shape[:1]))
        return o.MatMul(ones, x)
    return o.ReduceSum(x, o.ints(range(start, stop)), keepdims=int(keepdims))


def _is_down(source: Type, start: int, stop: int, keepdims: bool) -> bool:
    return source.rank == 2 and (start, stop) == (0, 1) and not keepdims


def _limit(source: Type, start: int, stop: int, keepdims: bool, cap: int = ROW) -> int:
    """How many numbers `_plain_sum` may add."""
    if is_one(product(source.shape[stop:])):
        return min(ROW, cap)
    return min(DOWN, cap) if _is_down(source, start, stop, keepdims) else min(ACROSS, cap // 2)


def _block(source: Type, stop: int) -> int:
    return ROW_BLOCK if is_one(product(source.shape[stop:])) else ACROSS


def _known_suffix(source: Type, start: int, stop: int) -> int | None:
    """The first of the trailing axes that form a block of known size; None where there is none."""
    limit = _block(source, stop)
    begin = None
    for axis in range(stop - 1, start, -1):
        size = product(source.shape[axis:stop])
        if not isinstance(size, int) or size > limit:
            break
        if size >= _LEAST and not is_one(product(source.shape[start:axis])):
            begin = axis
    return begin


def _known_factor(count: Dim, limit: int) -> int | None:
    """The greatest number up to the limit that divides the count, whatever the sizes are."""
    known = count if isinstance(count, int) else int(count.as_coeff_Mul()[0])
    return next((f for f in range(min(limit, known), _LEAST - 1, -1) if known % f == 0), None)


def _reshaped(o: OnnxEmitter, x: str, current: Shape, shape: Shape) -> str:
    return x if current == shape else o.Reshape(x, o.shape(shape), allowzero=1)
