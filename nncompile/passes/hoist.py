"""What depends on scalars alone is computed as a scalar: 1/B once, and not for each element."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import sympy as sp

from nncompile.elementwise import exp, sympy_functions
from nncompile.elementwise.map import Map, body_of, is_plain, mapped, over
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.op import Value
from nncompile.ir.types import f32, i64
from nncompile.passes.maps import hoisted, numbers
from nncompile.passes.rewriter import Changes, on, rules


@rules
def hoist() -> Changes:
    """Computes the parts of an elementwise op that depend on no tensor before it: `x·a/b` is a
    quotient of numbers and one product with a tensor."""
    return [without_axes]


@on(Map)
def without_axes(value: Value) -> Value | None:
    """The elementwise op with what depends on scalar arguments alone as arguments."""
    if not is_plain(value) or not value.dtype.is_float:
        return None
    formula = body_of(value)
    body, parts = hoisted(formula, numbers(formula, value.args), len(value.args))
    if not parts:
        return None
    scalars = [mapped(part, value.args) for part in parts]
    return over(body, (*value.args, *scalars), value)


@without_axes.refuses(f32[3], f32[()], i64[3], i64[()])
def _(x: Value, c: Value, n: Value, k: Value) -> Iterator[Any]:
    yield Map(sympy_functions.exp(placeholder(0)), 1, (sp.S.One,))(x)
    yield n * (k + 1)
    yield exp(x)
    yield x * c
