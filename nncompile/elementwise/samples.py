"""What elementwise ops are tested on: the primitive calls (see domains.py), the functions that are
made of those, and expressions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from nncompile.elementwise.domains import domains
from nncompile.elementwise.special_functions import FUNCTIONS
from nncompile.elementwise.trace_formula import trace
from nncompile.ir.types import DTYPES, DType, boolean, f32, f64, i32, i64

_Range = tuple[float, float]
_WIDE = (-3.0, 3.0)
_POSITIVE = (0.3, 2.5)

# Functions by their number of arguments, with the range that these are drawn from.
_FUNCTIONS: dict[str, tuple[int, _Range]] = {
    **dict.fromkeys(("exp2", "normal_cdf", "square", "step", "isfinite"), (1, _WIDE)),
    **dict.fromkeys(("log2", "log10", "cbrt", "reciprocal"), (1, _POSITIVE)),
    **dict.fromkeys(("heaviside", "logaddexp", "greater", "greater_equal"), (2, _WIDE)),
    "hypot": (2, _POSITIVE),
    "clip": (3, _WIDE),
    "hard_clip": (3, _WIDE),
    **dict.fromkeys(("radians", "degrees", "sinc", "fabs", "signbit", "isposinf"), (1, _WIDE)),
    **dict.fromkeys(("copysign", "fmax", "fmin", "logaddexp2", "isclose"), (2, _WIDE)),
    "nan_to_num": (1, _WIDE),
    "fmod": (2, (0.6, 0.9)),
    "float_power": (2, _POSITIVE),
    **dict.fromkeys(("i0", "i1", "i0e", "i1e"), (1, _WIDE)),
    "logit": (1, (0.1, 0.9)),
    "xlogy": (2, _POSITIVE),
    "xlog1py": (2, _POSITIVE),
}
_exp, _log, _erf, _where = (FUNCTIONS[name] for name in ("exp", "log", "erf", "where"))
_clip, _maximum, _polygamma = (FUNCTIONS[name] for name in ("clip", "maximum", "polygamma"))


@dataclass(frozen=True)
class Example:
    """A body with the dtypes of its arguments and the ranges that they are drawn from."""

    body: Any
    dtypes: tuple[DType, ...]
    floats: _Range = _WIDE
    integers: tuple[int, int] = (1, 8)
    order: int = 2


def examples() -> Iterator[Example]:
    """The examples, each of one body."""

    def made(function: Callable[..., Any], *dtypes: DType, floats: _Range = _WIDE) -> Example:
        return Example(trace(function, dtypes, None).result, dtypes, floats)

    for domain in domains():
        result = trace(FUNCTIONS[domain.name], domain.dtypes, None).result
        if result.args:  # of integers some are the integer itself
            yield Example(result, domain.dtypes, domain.floats, domain.integers, domain.order)
    for name, (count, floats) in _FUNCTIONS.items():
        yield made(FUNCTIONS[name], *[f32] * count, floats=floats)
    for n in (1, 2):
        yield made(lambda x, n=n: _polygamma(n, x), f64, floats=_POSITIVE)
    for source in (boolean, f32, i64):
        for dtype in DTYPES:
            if dtype is not source:
                positive = (0.0, 9.0)  # uint32 has no negative numbers
                yield made(FUNCTIONS[dtype.name], source, floats=positive)
    # Promotion and literals.
    yield made(lambda x, n: x * n + 0.1, f32, i64)
    yield made(lambda x, y: x * y - 1, f32, f64)
    yield made(lambda b, x: b * x, boolean, f32)
    yield made(lambda n, m: n / m, i64, i32)
    yield made(lambda n: 3 * n**2 - 7 // n, i32)
    # Sums, products, powers.
    yield made(lambda x: 0.3 * x**4 - x**3 / 7 + 1 / (x**2 + 1) - 2, f32)
    yield made(lambda x, y: -x * y - 3 * y, f32, f32)
    yield made(lambda x: x**1.5 + x**-0.5 + 2**x, f32, floats=_POSITIVE)
    # Choices, of branches without a value elsewhere too.
    yield made(lambda x: _where(x > 0, _log(x), x), f32)
    yield made(lambda x: _clip(x, -1, 1) + _maximum(x, 0.5), f32)
    # Naive spellings.
    yield made(lambda x: 0.5 * x * (1 + _erf(x / 2**0.5)), f32)
    yield made(lambda x: 2 / (_exp(x) + _exp(-x)), f32)
