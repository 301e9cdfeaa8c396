"""Softmaxes that are spelled in other words, or of what does not change them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from nncompile.elementwise import subtract
from nncompile.ir.dims import is_one
from nncompile.ir.op import Value
from nncompile.ir.types import f32
from nncompile.ops.reduction.softmax import LogSoftmax, Softmax
from nncompile.ops.reduction.sums import LogSumExp
from nncompile.passes.rewriter import Steps, rule


@rule(f32[2, 3], (1,))
def less_logsumexp(x: Value, axes: tuple[int, ...]) -> Steps:
    """x − logsumexp(x) is log_softmax(x)."""
    yield subtract(x, LogSumExp(axes, True)(x))
    if len(axes) != 1:
        return "a log-softmax is along one axis"
    yield LogSoftmax(axes[0])(x)


@less_logsumexp.refuses(f32[2, 3])
def _(x: Value) -> Iterator[Any]:
    yield x - LogSumExp((0, 1), True)(x)
    yield x - LogSumExp((0,), True)(x + 1)


@rule(f32[2, 3], f32[2, 1], 1)
def shifted_softmax(x: Value, shift: Value, axis: int) -> Steps:
    """A softmax keeps its value where all along its axis is shifted by the same."""
    return (yield from _unshifted(Softmax(axis), x, shift))


@shifted_softmax.refuses(f32[2, 3], f32[2, 1], f32[3])
def _(x: Value, column: Value, row: Value) -> Iterator[Any]:
    yield Softmax(0)(x - column)
    yield Softmax(1)(x - row)


@rule(f32[2, 3], f32[2, 1], 1)
def shifted_log_softmax(x: Value, shift: Value, axis: int) -> Steps:
    """log_softmax(x − c) is log_softmax(x) where c is constant along the axis."""
    return (yield from _unshifted(LogSoftmax(axis), x, shift))


@shifted_log_softmax.refuses(f32[2, 3], f32[2, 1], f32[3])
def _(x: Value, column: Value, row: Value) -> Iterator[Any]:
    yield LogSoftmax(0)(x - column)
    yield LogSoftmax(1)(x - row)


def _unshifted(op: Softmax | LogSoftmax, x: Value, shift: Value) -> Steps:
    yield op(subtract(x, shift))
    axis = op.axis - x.rank + shift.rank
    if shift.rank > x.rank or (axis >= 0 and not is_one(shift.shape[axis])):
        return "the shift differs along the axis"
    yield op(x)
