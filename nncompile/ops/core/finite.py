"""Two lowerings to ONNX of one op: a fast one for finite numbers, and one that is right for all."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nncompile.ir.dims import Dim
from nncompile.ir.emitters import OnnxEmitter
from nncompile.ir.types import DType, Type

# Elements: of up to so many, a choice takes four fifths of the time or less (onnxruntime 1.32).
CHOSEN = 256


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


def masked(
    o: OnnxEmitter,
    condition: str,
    x: str,
    dtype: DType,
    factor: str | None = None,
    source: str | None = None,
    size: Dim | None = None,
) -> str:
    """`x`, of so many elements, times the scalar `factor` if there is one, where the condition
    holds, and 0 elsewhere, also where `x` is infinite or NaN there. All elements of `x` are ones of
    `source`, if given.

    A choice takes a branch for each element, and where the condition is random several times as
    long as a product with ones and zeros (onnxruntime 1.32). The product is right where all of `x`
    is finite, and the sum of magnitudes tells that. Of few elements, the choice takes less time
    than to find that out.
    """
    zero = o.scalar(0, dtype)

    def choice(o: OnnxEmitter) -> list[str]:
        return [o.Where(condition, o.Mul(x, o.factor(factor)) if factor else x, zero)]

    if size is not None and o.expects(size, CHOSEN):
        return choice(o)[0]
    largest = o.scalar(np.finfo(dtype.numpy).max, dtype)
    # Among scalars a choice takes no branches.
    ones = o.Where(condition, factor, zero) if factor else None

    def product(o: OnnxEmitter) -> list[str]:
        return [o.Mul(x, ones or o.cast(condition, dtype))]

    return o.once(
        ("masked", condition, x, factor),
        lambda: o.If(
            o.LessOrEqual(o.ReduceL1(source or x, keepdims=0), largest),
            then_branch=o.branch("product", product, [dtype]),
            else_branch=o.branch("choice", choice, [dtype]),
        ),
    )
