"""Two lowerings to ONNX of one op: a fast one for finite numbers, and one that is right for all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nncompile.ir.emitters import OnnxEmitter
from nncompile.ir.types import Type


def or_exact(
    o: OnnxEmitter, x: str, usual: str, exact: Callable[[OnnxEmitter, str], str], type_: Type
) -> str:
    """`usual` where all elements of `x`, the op's last argument, are finite and none is an end of
    the range, else what `exact` emits from an emitter and `x`; both of that type.

    The sum of magnitudes tells it: one pass over `x`, about as fast as memory is read. Only then
    the exact form runs, which may take several times as long.
    """
    dtype = o.types[-1].dtype
    largest = o.scalar(np.finfo(dtype.numpy).max, dtype)
    # What graphs within use is not joined with what made it; a reshaping costs nothing.
    within = o.Reshape(x, o.Shape(x))
    return o.once(
        ("or_exact", usual),
        lambda: o.If(
            o.Less(o.ReduceL1(o.unpadded(x), keepdims=0), largest),  # padding may be by −∞
            then_branch=o.branch("usual", lambda o: [usual], [type_]),
            else_branch=o.branch("exact", lambda o: [exact(o, within)], [type_]),
        ),
    )
