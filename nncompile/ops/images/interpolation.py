"""Interpolation along one axis, as a matrix with a row for each new element and a column for each
old one, which is built in the graph from the sizes.

A product with such a matrix is linear, so its gradients of any order are products with its
transpose. It is computed in float64: a place among thousands of elements leaves float32 too few
digits for what lies between two of them.
"""

from __future__ import annotations

from typing import Any

from nncompile.elementwise import abs as absolute
from nncompile.elementwise import clip, maximum, relu, where
from nncompile.elementwise.formula import formula
from nncompile.ir.basic import cast, size_value
from nncompile.ir.dims import Dim
from nncompile.ir.op import Value
from nncompile.ir.types import DType, f64
from nncompile.ops.core.counting import iota
from nncompile.ops.reduction.sums import sum as total
from nncompile.ops.shape.reshape import expand_dims

# R. G. Keys, "Cubic convolution interpolation for digital image processing", 1981, has one free
# number: torch's −3/4, and with antialiasing, as Pillow, −1/2.
PLAIN, SMOOTH = -0.75, -0.5


def interpolation_matrix(
    size: Dim,
    count: Dim,
    over: Dim,
    under: Dim,
    cubic: bool,
    align_corners: bool,
    antialias: bool,
    dtype: DType,
) -> Value:
    """Linear or cubic interpolation of `size` elements at `count` places, each over/under elements
    from the next.

    Place i is (i + ½)·over/under − ½; with `align_corners` it is i·(size − 1)/(count − 1), so that
    the first and last place are elements. Beyond the ends stands the last element. With `antialias`
    the kernel is as wide as the step where that is more than 1, and its weights within the axis are
    scaled to a sum of 1, as torch and Pillow do it.
    """
    last = size_value(size, f64) - 1
    if align_corners:
        intervals = size_value(count, f64) - 1
        step = where(intervals > 0, last / maximum(intervals, 1.0), 0.0)
    else:
        step = size_value(over, f64) / size_value(under, f64)
    elements, new = iota(size, f64), iota(count, f64)
    if antialias:
        width = maximum(step, 1.0)
        distance = (elements + 0.5 - expand_dims((new + 0.5) * step, 1)) / width
        weights = cubic_kernel(distance, SMOOTH) if cubic else relu(1 - absolute(distance))
        return cast(weights / total(weights, 1, keepdims=True), dtype)
    positions = new * step if align_corners else (new + 0.5) * step - 0.5
    if not cubic:
        column = expand_dims(clip(positions, 0.0, last), 1)
        return cast(relu(1 - absolute(column - elements)), dtype)
    column = expand_dims(positions, 1)
    weights = cubic_kernel(column - elements, PLAIN)
    for end, outside in ((0.0, (-1.0, -2.0)), (last, (last + 1, last + 2))):
        first, second = (cubic_kernel(column - position, PLAIN) for position in outside)
        weights = weights + where(elements == end, first + second, 0.0)
    return cast(weights, dtype)


@formula
def cubic_kernel(x: Any, a: Any) -> Any:
    """Keys' kernel: (a + 2)|x|³ − (a + 3)|x|² + 1 up to 1, a(|x| − 1)(|x| − 2)² up to 2."""
    u = absolute(x)
    near = ((a + 2) * u - (a + 3)) * u * u + 1
    far = a * (u - 1) * (u - 2) * (u - 2)
    return where(u >= 2, 0, where(u <= 1, near, far))  # NaN stays
