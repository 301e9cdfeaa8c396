"""Linear maps of single axes, as matrices that are built in the graph from its sizes."""

from __future__ import annotations

from typing import Any

from nncompile.elementwise import logical_and, where
from nncompile.ir.dims import Dim, product
from nncompile.ir.op import Value
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.core.counting import iota
from nncompile.ops.shape.reshape import expand_dims, reshape, swapaxes, transpose


def along_axis(x: Value, axis: int, matrix: Value) -> Value:
    """`y[…, i, …] = Σ matrix[i, j]·x[…, j, …]` along the axis."""
    last = swapaxes(x, axis, -1)
    # As a matrix: onnxruntime does not broadcast over a batch of zero.
    rows = reshape(last, (product(last.shape[:-1]), last.shape[-1]))
    mapped = matmul(rows, transpose(matrix))
    return swapaxes(reshape(mapped, (*last.shape[:-1], matrix.shape[0])), axis, -1)


def span_matrix(starts: Any, ends: Any, size: Dim, share: Value, step: int = 1) -> Value:
    """`share` where start ≤ j < end, of every `step`-th j from the start on; 0 elsewhere: a row for
    each start and a column for each j. Starts and ends are vectors of i64, the share is a number or
    a column."""
    column, first = iota(size), expand_dims(starts, 1)
    inside = logical_and(column >= first, column < expand_dims(ends, 1))
    if step > 1:
        inside = logical_and(inside, (column - first) % step == 0)
    # Not ones divided by a number: onnxruntime joins that with the product as a factor in float32.
    return where(inside, share, 0)
