"""Images in other sizes and grids: every way in which ONNX resizes, as products with matrices or by
indices along one axis after the other."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import sympy as sp

from nncompile import elementwise as e
from nncompile.frontends.onnx.checking import axis_in
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.ir.basic import cast, const, size_value
from nncompile.ir.dims import Dim, dim, same
from nncompile.ir.op import Value
from nncompile.ir.size_arithmetic import FloorDiv
from nncompile.ir.types import DType, f32, f64, i64
from nncompile.ops.contraction.axis_maps import along_axis
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.core.counting import iota
from nncompile.ops.images.grid_sampling import grid_sample
from nncompile.ops.images.resize import resize
from nncompile.ops.reduction.sums import sum as total
from nncompile.ops.shape.gathering import take
from nncompile.ops.shape.reshape import expand_dims, reshape


@imports("Resize", "Upsample", raw=True)
def _resize(n: Node, x: Any, *_: Any) -> Any:
    value = x.value
    old = n.op == "Upsample" or n.version < 11
    _check_words(n, old)
    axes = [axis_in(value, a) for a in n["axes"]] if n["axes"] else list(range(value.rank))
    scales, sizes = _asked(n, old)
    mode = "asymmetric" if old else n["coordinate_transformation_mode"] or "half_pixel"
    roi = n.numbers(1) if mode == "tf_crop_and_resize" else None
    _check_counts(len(axes), sizes=sizes, scales=scales, roi=None if roi is None else roi[::2])
    targets = _targets(n, value, axes, scales, sizes)
    plain = _plain(n, value, axes, targets, mode, old)
    if plain is not None:
        return plain
    unchanged = _unchanged(value, axes, targets, mode)
    if unchanged is True:
        return value
    y = value if value.dtype.is_float else cast(value, f32)
    outside: list[Any] = []
    for k, (axis, (count, scale)) in enumerate(zip(axes, targets, strict=True)):
        region = None if roi is None else (float(roi[k]), float(roi[k + len(axes)]))
        if count == value.shape[axis] and scale == 1 and region in (None, (0.0, 1.0)):
            continue
        dtype = f32 if n["mode"] == "nearest" else f64
        positions = _positions(mode, value.shape[axis], count, scale, region, dtype)
        if unchanged is not False:
            positions = e.where(unchanged, iota(count, dtype), positions)
        y = _along(n, y, axis, positions, scale, old)
        if region is not None:
            beyond = _outside(positions, value.shape[axis])
            outside.append(reshape(beyond, (count, *(1,) * (value.rank - axis - 1))))
    if outside:
        outside_any = functools.reduce(e.logical_or, outside)
        y = e.where(outside_any, const(n["extrapolation_value"], y.dtype), y)
    if value.dtype.is_float:
        return y
    return cast(y if n["mode"] == "nearest" else e.rint(y), value.dtype)


def _check_counts(axes: int, **parts: Any) -> None:
    """Raises `Refused` where sizes, scales or regions are not as many as axes."""
    for name, found in parts.items():
        if found is not None and len(found) != axes:
            raise Refused(f"it has {len(found)} {name} for {axes} axes")


def _check_words(n: Node, old: bool) -> None:
    """Raises `Refused` for a way to resize that there is none of."""
    if n["mode"] not in ("nearest", "linear", "cubic"):
        raise Refused(f"the mode {n['mode']!r}")
    if not old and n["mode"] == "nearest" and n["nearest_mode"] not in _ROUNDED:
        raise Refused(f"the nearest mode {n['nearest_mode']!r}")


def _asked(n: Node, old: bool) -> tuple[list[float] | None, list[Dim] | None]:
    """The scales, or the sizes, that a node asks for."""
    place = 1 if old else 2
    found = n.numbers(place) if n.given(place) else None
    scales = n["scales"]
    if found is not None and found.size:
        scales = [float(s) for s in found.reshape(-1)]
    elif n["height_scale"]:  # of the first Upsample
        scales = [1.0, 1.0, n["height_scale"], n.required("width_scale")]
    known = n.known(3) if not old and n.given(3) else None
    sizes = [dim(s) for s in known.reshape(-1)] if known is not None and known.size else None
    if not scales and sizes is None:
        raise Refused("neither sizes nor scales")
    if sizes is None and not all(0 < s < np.inf for s in scales or ()):
        raise Refused(f"the scales {scales}")
    return scales or None, sizes


def _targets(n: Node, x: Value, axes: list[int], scales: Any, sizes: Any) -> list[Any]:
    """The new size of each axis, and the scale: a number, or a fraction of two sizes."""
    if sizes is None:
        targets = []
        for axis, scale in zip(axes, scales, strict=True):
            # The decimal that is meant: 0.7 of 10 elements are 7, though float32 has less than 0.7.
            size, exact = x.shape[axis], sp.Rational(str(np.float32(scale)))
            if isinstance(size, int):
                count: Dim = int(np.floor(np.float32(size) * np.float32(scale)))
            else:
                count = dim(FloorDiv(sp.expand(size * exact.p), sp.Integer(exact.q)))
            targets.append((count, exact))
        return targets
    policy = n["keep_aspect_ratio_policy"] or "stretch"
    if policy == "stretch":
        return [(s, sp.sympify(s) / x.shape[a]) for a, s in zip(axes, sizes, strict=True)]
    ratios = [sp.sympify(s) / x.shape[a] for a, s in zip(axes, sizes, strict=True)]
    if not all(r.is_Rational for r in ratios):
        raise Refused("keep_aspect_ratio_policy of axes of unknown size")
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [(int(sp.floor(ratio * x.shape[a] + sp.Rational(1, 2))), ratio) for a in axes]


def _outside(positions: Value, size: Dim) -> Value:
    last = size_value(dim(size - 1), positions.dtype)
    beyond: Value = e.logical_or(positions < 0, positions > last)
    return beyond


def _unchanged(x: Value, axes: list[int], targets: list[Any], mode: str) -> Any:
    """Whether no size changes, though scales are not 1, as 1.1 of 5 elements are 5: onnxruntime
    returns x then. False, True, or a value where it depends on sizes."""
    if mode == "tf_crop_and_resize" or all(scale == 1 for _, scale in targets):
        return False
    equal: Any = True
    for axis, (count, scale) in zip(axes, targets, strict=True):
        answer = same(count, x.shape[axis])
        if answer is False or not scale.is_number or not 1 <= scale < 2:
            return False
        if answer is None:
            here = size_value(dim(count - x.shape[axis])) == 0
            equal = here if equal is True else e.logical_and(equal, here)
    return equal


def _plain(
    n: Node, x: Value, axes: list[int], targets: list[Any], mode: str, old: bool
) -> Value | None:
    """Where it is what `resize` does: whole factors of space, by the two usual ways."""
    if x.rank < 3 or not x.dtype.is_float or n["antialias"]:
        return None
    factors = dict.fromkeys(range(x.rank), sp.Integer(1))
    factors |= {a: sp.cancel(scale) for a, (_, scale) in zip(axes, targets, strict=True)}
    if any(not f.is_Integer or f < 1 for f in factors.values()) or factors[0] != 1:
        return None
    if factors[1] != 1 or all(f == 1 for f in factors.values()):
        return None
    whole = tuple(int(factors[a]) for a in range(2, x.rank))
    is_nearest = n["mode"] == "nearest"
    if is_nearest and (old or n["nearest_mode"] == "floor") and mode == "asymmetric":
        return resize(x, scale_factor=whole)
    # The nearest middle of a larger image is the same element for whole factors.
    if is_nearest and mode in ("half_pixel", "pytorch_half_pixel") and not old \
            and n["nearest_mode"] in ("round_prefer_floor", "round_prefer_ceil"):  # fmt: skip
        return resize(x, scale_factor=whole)
    if n["mode"] == "linear" and mode in ("half_pixel", "pytorch_half_pixel"):
        return resize(x, scale_factor=whole, mode="linear") if x.rank <= 5 else None
    return None


def _positions(
    mode: str, size: Dim, count: Dim, scale: Any, region: Any, dtype: DType = f64
) -> Any:
    """Where each new element lies among the old ones: in float32 where it is rounded to one of
    them, as onnxruntime does it, which decides what is exactly between two. Quotients are computed
    in float64 and rounded to that, because a pass makes a division by a number a product."""
    new = iota(count, dtype)
    above, below = sp.fraction(sp.together(sp.sympify(scale)))
    ratio: Any = cast(size_value(dim(above), f64) / size_value(dim(below), f64), dtype)

    def quotient(x: Value, y: Any) -> Any:
        return cast(cast(x, f64) / cast(y, f64), dtype)

    length, many = size_value(size, dtype), size_value(count, dtype)
    is_whole = sp.expand(sp.sympify(scale) * size - count) == 0
    if mode == "align_corners" and not is_whole:
        # ONNX goes by the size before it is rounded, onnxruntime and torch by that after it.
        raise Refused("align_corners where a scale times the size is not whole, or not known to be")
    if mode == "half_pixel_symmetric" and dtype is f32 and not is_whole:
        raise Refused(
            "the nearest by half_pixel_symmetric where a scale times the size is not whole"
        )
    if mode == "asymmetric":
        return quotient(new, ratio)
    if mode == "align_corners":
        places = quotient(new * (length - 1), e.maximum(many - 1, 1.0))
        return e.where(many > 1, places, 0.0)
    if mode == "pytorch_half_pixel":
        return e.where(many > 1, quotient(new + 0.5, ratio) - 0.5, 0.0)
    if mode == "half_pixel_symmetric":
        adjustment = many / (length * ratio)
        centre = length / 2
        return centre * (1 - adjustment) + quotient(new + 0.5, ratio) - 0.5
    if mode == "tf_crop_and_resize":
        start, end = region
        wide = e.where(many > 1, (end - start) * (length - 1) / e.maximum(many - 1, 1.0), 0.0)
        first = e.where(many > 1, start * (length - 1), 0.5 * (start + end) * (length - 1))
        return first + new * wide
    if mode == "half_pixel":
        return quotient(new + 0.5, ratio) - 0.5
    raise Refused(f"the coordinates {mode!r}")


def _along(n: Node, x: Value, axis: int, positions: Value, scale: Any, old: bool) -> Value:
    """x along one axis at these positions."""
    last = size_value(dim(x.shape[axis] - 1), positions.dtype)
    if n["mode"] == "nearest":
        # Before opset 11 a smaller image takes the element after a place, as onnx's cases say.
        before = "ceil" if old and scale < 1 else "floor"
        rounded = _ROUNDED[before if old else n["nearest_mode"]](positions)
        return take(x, cast(e.clip(rounded, 0.0, last), i64), axis)
    elements = iota(x.shape[axis], f64)
    shrinks = bool(n["antialias"]) and sp.sympify(scale).is_number and scale < 1
    width = float(1 / scale) if shrinks else 1.0
    cubic = n["mode"] == "cubic"
    if not cubic and not shrinks:
        column = expand_dims(e.clip(positions, 0.0, last), 1)
        weights: Any = e.relu(1 - e.abs(column - elements))
        return along_axis(x, axis, cast(weights, x.dtype))
    if not isinstance(x.shape[axis], int):
        raise Refused(f"the mode {n['mode']} along an axis of unknown size")
    # Elements beyond the ends are the last one, or do not count.
    margin = int(np.ceil((2 if cubic else 1) * width)) + 1
    size = x.shape[axis]
    wide = iota(size + 2 * margin, f64) - float(margin)
    distance = (wide - expand_dims(positions, 1)) / width
    weights = _cubic(distance, n["cubic_coeff_a"]) if cubic else e.relu(1 - e.abs(distance))
    target = e.clip(wide, 0.0, last)
    if n["exclude_outside"]:
        weights = e.where(e.logical_and(wide >= 0, wide <= last), weights, 0.0)
    if n["exclude_outside"] or shrinks:
        weights = weights / total(weights, 1, keepdims=True)
    onto = cast(expand_dims(target, 1) == elements, f64)
    return along_axis(x, axis, cast(matmul(weights, onto), x.dtype))


_HALFWAY = (
    1e-6  # from the middle between two elements, as the latest onnxruntime has it; 1.23 has none
)


def _rounded(p: Value, up: bool) -> Value:
    """The nearest whole number; in the middle between two, that above or below it."""
    whole = e.floor(p)
    beyond = p - whole - 0.5
    one: Value = whole + cast(beyond > -_HALFWAY if up else beyond >= _HALFWAY, p.dtype)
    return one


_ROUNDED: dict[str, Callable[[Value], Value]] = {
    "round_prefer_floor": lambda p: _rounded(p, up=False),
    "round_prefer_ceil": lambda p: _rounded(p, up=True),
    "floor": e.floor,
    "ceil": e.ceil,
}


def _cubic(x: Value, a: float) -> Value:
    u = e.abs(x)
    near = ((a + 2) * u - (a + 3)) * u * u + 1
    far = ((a * u - 5 * a) * u + 8 * a) * u - 4 * a
    y: Value = e.where(u <= 1, near, e.where(u < 2, far, 0.0))
    return y


@imports("GridSample")
def _grid_sample(n: Node, x: Value, grid: Value) -> Any:
    modes = {"linear": "bilinear", "cubic": "bicubic"}
    mode = modes.get(n["mode"], n["mode"])
    return grid_sample(x, grid, mode, n["padding_mode"], bool(n["align_corners"]))
