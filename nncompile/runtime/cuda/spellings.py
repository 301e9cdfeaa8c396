"""How operators are spelled for CUDA that it has no kernel for, or none for some types.

Each function is of a node that computes with data there, and writes nodes that give the same
numbers. Integers go through float64 where that holds all that occurs, or in two parts of 32 bits.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from math import log, pi

import numpy as np

from nncompile.ir.types import DType, boolean, f32, f64, i8, i16, i32, i64, u8, u16, u32, u64
from nncompile.runtime.cuda.spelling import Spelling, Writer

_HIGH = 2**32
_AXES_ARE_INPUTS = 18  # the version from which reductions have them so
_SMALL = (boolean, i8, u8, i16, u16)
_WORDS = (*_SMALL, i32, u32)


def _carried(w: Writer) -> str | None:
    """On a type that holds all numbers of the type: for what moves and compares elements."""
    carriers = (i32, i64) if w.dtype in _SMALL else (i64,) if w.dtype in (i32, u32) else ()
    target = next(filter(w.has_kernel, carriers), None)
    if target is None:
        return None
    return w.back(w.with_inputs(lambda x: w.cast(x, target)))


def _in_double(w: Writer) -> str | None:
    """In float64, which holds all numbers of 32 bits, and sums of four million of them; those of
    64 bits as high·2³² + low, each of which is summed and moved by itself."""
    if w.dtype in _WORDS:
        # From f64 to i64 it wraps round, as integers do, when it is cast again.
        return w.back(w.cast(w.with_inputs(lambda x: w.cast(x, f64)), i64))
    if w.dtype not in (i64, u64) or w.node.op_type == "ReduceProd":
        return None
    words = {w.inputs[i]: _words(w, w.inputs[i]) for i in w.places}
    high = w.with_inputs(lambda x: words[x][0])
    return w.back(_together(w, high, w.with_inputs(lambda x: words[x][1])))


def _together(w: Writer, high: str, low: str) -> str:
    """The integers of i64 with these words."""
    return w.Add(w.Mul(w.cast(high, i64), w.scalar(_HIGH, i64)), w.cast(low, i64))


def _words(w: Writer, x: str) -> tuple[str, str]:
    """The high and the low word of integers, both with their sign, in float64."""
    signed = w.cast(x, i64)
    high = w.Div(signed, w.scalar(_HIGH, i64))
    low = w.Sub(signed, w.Mul(high, w.scalar(_HIGH, i64)))
    return w.cast(high, f64), w.cast(low, f64)


def _product(w: Writer) -> str | None:
    """Sums of integers are written as products with ones, which are exact in float64 as sums are.
    Other products of integers are not."""
    ones = [i for i, name in enumerate(w.inputs) if w.number_of(name) == 1]
    if w.dtype in _SMALL or (ones and w.dtype in _WORDS):
        return _in_double(w)
    if not ones or w.dtype not in (i64, u64):
        return None
    one, words = ones[0], _words(w, w.inputs[1 - ones[0]])
    factor = w.cast(w.inputs[one], f64)
    sums = (w.MatMul(*((factor, x) if one == 0 else (x, factor))) for x in words)
    return w.back(_together(w, *sums))


def _extreme(w: Writer) -> str | None:
    """The largest or least integer: of 64 bits the one of the largest high word, and among those
    with it of the largest low word."""
    if w.dtype is i64:
        return _extreme_words(w, w.node.op_type, *w.inputs[1:], **w.attributes)
    if w.dtype not in _WORDS:
        return None
    # Of no elements it is infinite there, and the end of the range here.
    least, most = (0, 1) if w.dtype is boolean else _range(w.dtype)
    result = w.with_inputs(lambda x: w.cast(x, f64))
    if w.node.op_type == "ReduceMax":
        result = w.Max(result, w.scalar(least, f64))
    else:
        result = w.Min(result, w.scalar(most, f64))
    return w.back(result)


def _range(dtype: DType) -> tuple[int, int]:
    limits = np.iinfo(dtype.numpy)
    return int(limits.min), int(limits.max)


def _extreme_words(w: Writer, operator: str, *axes: str, **attributes: object) -> str | None:
    if w.known.opset < _AXES_ARE_INPUTS:
        return None
    high, low = _words(w, w.inputs[0])
    reduce = getattr(w, operator)
    is_first = w.Equal(high, reduce(high, *axes, **{**attributes, "keepdims": 1}))
    last = w.scalar(-(2.0**33) if operator == "ReduceMax" else 2.0**33, f64)
    rest = reduce(w.Where(is_first, low, last), *axes, **attributes)
    return _together(w, reduce(high, *axes, **attributes), rest)


def _place_of_extreme(w: Writer) -> str | None:
    """The place of the largest or least integer: as a float, or of 64 bits that of the first which
    is it."""
    if w.dtype in _WORDS:
        return w.again(w.cast(w.inputs[0], f32 if w.dtype in _SMALL else f64))
    if w.dtype is not i64:
        return None
    operator = "ReduceMax" if w.node.op_type == "ArgMax" else "ReduceMin"
    extreme = _extreme_words(w, operator, w.ints(w.attributes.get("axis", 0)))
    if extreme is None:
        return None
    return w.ArgMax(w.cast(w.Equal(w.inputs[0], extreme), f32), **w.attributes)


def _uneven(w: Writer) -> str | None:
    """A transposed convolution that takes the same off at both ends, and a Slice for the rest."""
    pads = list(w.attributes.get("pads", ()))
    half = len(pads) // 2
    if not half or w.attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        return None
    if "output_shape" in w.attributes:
        return None
    even = [min(pair) for pair in zip(pads[:half], pads[half:], strict=True)]
    result = w.ConvTranspose(*w.inputs, **{**w.attributes, "pads": [*even, *even]})
    starts = [a - b for a, b in zip(pads[:half], even, strict=True)]
    ends = [b - a or 2**62 for a, b in zip(pads[half:], even, strict=True)]
    axes = w.ints(*range(2, 2 + half))
    return w.Slice(result, w.ints(*starts), w.ints(*ends), axes)


def _not(w: Writer) -> str | None:
    """−1 − x, which has all bits of x turned."""
    dtype = w.dtype
    if dtype is None:
        return None
    ones = -1 if np.iinfo(dtype.numpy).min < 0 else np.iinfo(dtype.numpy).max
    return w.Sub(w.scalar(ones, dtype), w.inputs[0])


def _with_constant_bits(w: Writer) -> str | None:
    """With a constant m: x | m is x + m − (x & m), and x ^ m is x + m − 2·(x & m), which wrap
    round."""
    constants = [w.number_of(name) for name in w.inputs]
    dtype = w.dtype
    if dtype is None or constants.count(None) != 1:
        return None
    x, mask = w.inputs[constants.index(None)], int(constants[constants[0] is None])
    wide = dtype if dtype is u64 else i64
    x = x if dtype is wide else w.cast(x, wide)
    both = _masked(w, x, mask, wide)
    if w.node.op_type != "BitwiseAnd":
        twice = w.Add(both, both) if w.node.op_type == "BitwiseXor" else both
        both = w.Sub(w.Add(x, w.scalar(mask, wide)), twice)
    return both if dtype is wide else w.cast(both, dtype)


def _masked(w: Writer, x: str, mask: int, dtype: DType) -> str:
    """x & mask: for each run of ones in the mask, the low bits up to its end less those below."""
    ones = [k for k in range(64) if mask >> k & 1]
    starts = [k for k in ones if k - 1 not in ones]
    ends = [k + 1 for k in ones if k + 1 not in ones]
    parts = [
        w.Sub(_low_bits(w, x, b, dtype), _low_bits(w, x, a, dtype))
        if a
        else _low_bits(w, x, b, dtype)
        for a, b in zip(starts, ends, strict=True)
    ]
    return functools.reduce(w.Add, parts) if parts else w.Sub(x, x)


def _low_bits(w: Writer, x: str, count: int, dtype: DType) -> str:
    """The lowest bits of 64, as a number that is not negative unless it is all of them."""
    if count == 64:
        return w.Add(x, w.scalar(0, dtype))
    if count == 63 and dtype is i64:  # 2⁶³ is none of its numbers
        is_negative = w.Less(x, w.scalar(0, i64))
        return w.Where(is_negative, w.Sub(x, w.scalar(-(2**63), i64)), x)
    return w.Mod(x, w.scalar(2**count, dtype))


# Functions of real numbers, within some units in the last place.


def _formula(make: Callable[[Writer, str, DType], str]) -> Spelling:
    def spell(w: Writer) -> str | None:
        dtype = w.dtype
        return make(w, w.inputs[0], dtype) if dtype in (f32, f64) else None

    return spell


def _tan(w: Writer, x: str, dtype: DType) -> str:
    return w.Div(w.Sin(x), w.Cos(x))


def _half_exponentials(w: Writer, x: str, dtype: DType) -> tuple[str, str]:
    """e^|x|/2 and e^−|x|/2, of which the first is infinite no earlier than the sum of both."""
    half = w.scalar(0.5, dtype)
    root = w.Exp(w.Mul(w.Abs(x), half))
    return w.Mul(w.Mul(root, half), root), w.Div(w.Div(half, root), root)


def _cosh(w: Writer, x: str, dtype: DType) -> str:
    return w.Add(*_half_exponentials(w, x, dtype))


def _sinh(w: Writer, x: str, dtype: DType) -> str:
    """Near 0 as 2t/(1 − t²) of t = tanh(x/2), where the exponentials cancel."""
    one = w.scalar(1, dtype)
    large = w.Mul(w.Sign(x), w.Sub(*_half_exponentials(w, x, dtype)))
    is_small = w.Less(w.Abs(x), one)
    t = w.Tanh(w.Where(is_small, w.Mul(x, w.scalar(0.5, dtype)), w.scalar(0, dtype)))
    small = w.Div(w.Mul(t, w.scalar(2, dtype)), w.Sub(one, w.Mul(t, t)))
    return w.Where(is_small, small, large)


def _log1p(w: Writer, u: str, dtype: DType) -> str:
    """log(1 + u), with the digits of u that 1 + u has lost (Kahan): log(v) − ((v − 1) − u)/v."""
    one = w.scalar(1, dtype)
    v = w.Add(one, u)
    small = w.Less(w.Abs(u), one)
    lost = w.Div(w.Sub(w.Sub(v, one), w.Where(small, u, w.Sub(v, one))), v)
    return w.Where(small, w.Sub(w.Log(v), lost), w.Log(v))


def _asinh(w: Writer, x: str, dtype: DType) -> str:
    """sign(x)·log1p(a + a²/(1 + √(1 + a²))) of a = |x|; log(2a) where a² may be infinite."""
    one, a = w.scalar(1, dtype), w.Abs(x)
    is_large = w.Greater(a, w.scalar(2.0**30, dtype))
    b = w.Where(is_large, one, a)
    square = w.Mul(b, b)
    inner = w.Add(b, w.Div(square, w.Add(one, w.Sqrt(w.Add(one, square)))))
    large = w.Add(w.Log(a), w.scalar(log(2), dtype))
    return w.Mul(w.Sign(x), w.Where(is_large, large, _log1p(w, inner, dtype)))


def _acosh(w: Writer, x: str, dtype: DType) -> str:
    """log1p(t + √t·√(t + 2)) of t = x − 1; log(2x) for large x."""
    t = w.Sub(x, w.scalar(1, dtype))
    is_large = w.Greater(x, w.scalar(2.0**60, dtype))
    root = w.Mul(w.Sqrt(t), w.Sqrt(w.Add(t, w.scalar(2, dtype))))
    large = w.Add(w.Log(x), w.scalar(log(2), dtype))
    return w.Where(is_large, large, _log1p(w, w.Add(t, root), dtype))


def _atanh(w: Writer, x: str, dtype: DType) -> str:
    """sign(x)·log1p(2a/(1 − a))/2 of a = |x|."""
    a = w.Abs(x)
    ratio = w.Div(w.Mul(a, w.scalar(2, dtype)), w.Sub(w.scalar(1, dtype), a))
    return w.Mul(w.Mul(w.Sign(x), w.scalar(0.5, dtype)), _log1p(w, ratio, dtype))


def _atan(w: Writer, x: str, dtype: DType) -> str:
    """Of a in [0, 1] an angle y that is right to 0.004, and the angle that is left, whose tangent d
    is (a·cos y − sin y)/(cos y + a·sin y), as its series d − d³/3 + d⁵/5; of larger a it is π/2
    less that of 1/a."""
    one, a = w.scalar(1, dtype), w.Abs(x)
    is_large = w.Greater(a, one)
    a = w.Where(is_large, w.Div(one, a), a)
    slope = w.Sub(w.scalar(pi / 4 + 0.273, dtype), w.Mul(a, w.scalar(0.273, dtype)))
    y = w.Mul(a, slope)
    sine, cosine = w.Sin(y), w.Cos(y)
    d = w.Div(w.Sub(w.Mul(a, cosine), sine), w.Add(cosine, w.Mul(a, sine)))
    square = w.Mul(d, d)
    series = w.Sub(w.scalar(1 / 3, dtype), w.Mul(square, w.scalar(1 / 5, dtype)))
    rest = w.Sub(d, w.Mul(w.Mul(d, square), series))
    angle = w.Add(y, rest)
    angle = w.Where(is_large, w.Sub(w.scalar(pi / 2, dtype), angle), angle)
    return w.Mul(w.Sign(x), angle)


def _asin(w: Writer, x: str, dtype: DType) -> str:
    """The angle of the tangent x/√((1 − x)(1 + x))."""
    one = w.scalar(1, dtype)
    return _atan(w, w.Div(x, w.Sqrt(w.Mul(w.Sub(one, x), w.Add(one, x)))), dtype)


def _acos(w: Writer, x: str, dtype: DType) -> str:
    """Twice the angle of the tangent √((1 − x)/(1 + x))."""
    one = w.scalar(1, dtype)
    tangent = w.Sqrt(w.Div(w.Sub(one, x), w.Add(one, x)))
    return w.Mul(w.scalar(2, dtype), _atan(w, tangent, dtype))


SPELLINGS: dict[str, Spelling] = {
    **dict.fromkeys(("Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"), _carried),
    **dict.fromkeys(("Mod", "Where", "Tile", "Max", "Min", "Clip"), _carried),
    **dict.fromkeys(("ReduceSum", "ReduceProd", "Pad"), _in_double),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), _extreme),
    **dict.fromkeys(("ArgMax", "ArgMin"), _place_of_extreme),
    "MatMul": _product,
    "ConvTranspose": _uneven,
    "BitwiseNot": _not,
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor"), _with_constant_bits),
    **{
        name: _formula(make)
        for name, make in {
            "Tan": _tan,
            "Sinh": _sinh,
            "Cosh": _cosh,
            "Asin": _asin,
            "Acos": _acos,
            "Atan": _atan,
            "Asinh": _asinh,
            "Acosh": _acosh,
            "Atanh": _atanh,
        }.items()
    },
}
"""By operator, what writes it."""
