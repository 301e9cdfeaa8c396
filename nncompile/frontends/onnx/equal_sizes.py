"""Sizes of inputs that a file names apart, and that its nodes need to be one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sympy as sp

from nncompile.frontends.onnx.refusals import Refusal
from nncompile.ir.dims import Dim, same, substitute, symbols
from nncompile.ir.op import Value
from nncompile.ir.size_arithmetic import FloorDiv
from nncompile.ir.types import Type
from nncompile.ops.core.assertions import AssertEqualSizes

_FACTORS = (2, 4, 8, 16, 32, 64)  # by which images are made smaller

Equal = tuple[sp.Symbol, Dim]
"""A size, and what it is: the size of another name, a number, or a multiple of itself."""


def needed(
    refusals: Sequence[Refusal], sizes: Sequence[sp.Symbol], repeats: bool = True
) -> list[Equal]:
    """What sizes of inputs, the first ones first, would have to be for nodes that were refused.
    With `repeats` also where one of two could be 1 instead."""
    found: dict[sp.Symbol, Dim] = {}
    for refusal in refusals:
        pair = getattr(refusal.cause, "undecided", None)
        if pair is None or (not repeats and getattr(refusal.cause, "repeats", False)):
            continue
        equal = _equal(pair[0], pair[1], sizes)
        if equal is not None:
            found.setdefault(*equal)
    return list(found.items())


def _equal(a: Dim, b: Dim, sizes: Sequence[sp.Symbol]) -> Equal | None:
    """What follows where two sizes are one: of multiples of a size and of another one, or of a
    number."""
    parts = sp.fraction(sp.cancel(sp.sympify(a) / b)) if b != 0 else (a, b)
    (first, x), (second, y) = (sp.sympify(part).as_coeff_Mul() for part in parts)
    if x in sizes and y in sizes and first == second:
        earlier, later = sorted((x, y), key=sizes.index)
        return later, earlier
    for size, factor, other, number in ((x, first, y, second), (y, second, x, first)):
        names = size.free_symbols
        if other != 1 or not factor or len(names) != 1 or not names <= {*sizes}:
            continue
        (name,) = names  # alone, or in a sum or product, as where a row was added
        roots = sp.roots(size - number / factor, name) if size.is_polynomial(name) else ()
        exact = [root for root in roots if root.is_Integer and root > 0]
        if len(exact) == 1:
            return name, int(exact[0])
    return _multiple(a, b, sizes)


def _multiple(a: Dim, b: Dim, sizes: Sequence[sp.Symbol]) -> Equal | None:
    """The size as a multiple, where two sizes are one for multiples of a power of two: of images
    that are made smaller and larger again."""
    names = symbols([a, b])
    if len(names) != 1 or not names <= {*sizes} or not sp.sympify(a - b).has(FloorDiv):
        return None
    (name,) = names
    for factor in _FACTORS:
        if same(*(substitute(d, {name: factor * name}) for d in (a, b))) is True:
            return name, factor * name
    return None


def ordered(types: Mapping[str, Type]) -> list[sp.Symbol]:
    """The sizes that are names, in the order in which inputs have them."""
    found: dict[sp.Symbol, None] = {}
    for type_ in types.values():
        for d in type_.shape:
            found |= dict.fromkeys(sorted(symbols([d]), key=str))
    return list(found)


def with_equal(type_: Type, equal: Sequence[Equal]) -> Type:
    """The type with the sizes that its own are assumed to be."""
    for size, other in equal:
        type_ = type_.with_shape(tuple(substitute(d, {size: other}) for d in type_.shape))
    return type_


def assumptions(types: Mapping[str, Type], equal: Sequence[Equal]) -> list[str]:
    """What is assumed of inputs of these types, for the report."""
    return [_text(types, size, other) for size, other in equal]


def _text(types: Mapping[str, Type], size: sp.Symbol, other: Dim) -> str:
    place, of = _place(size, types), _place(other, types)
    named = f"size {size}" + (f" of {place[0]}[{place[1]}]" if place else "")
    if size in symbols([other]):
        return f"{named} is a multiple of {sp.cancel(other / size)}"
    return f"{named} is {other}" + (f" of {of[0]}[{of[1]}]" if of else "")


def checked(
    leaves: Mapping[str, Value], types: Mapping[str, Type], equal: Sequence[Equal]
) -> dict[str, Value]:
    """The inputs that have a size which is assumed to be that of an input before: such that what
    other runtimes are fed is looked at."""
    values = dict(leaves)
    for size, other in equal:
        place, of = _place(size, types), _place(other, types)
        if place is None or of is None:
            continue  # a number, which the input declares
        name, axis = place
        claim = _text(types, size, other)
        values[name] = AssertEqualSizes(axis, of[1], claim)(values[name], leaves[of[0]])
    return {name: value for name, value in values.items() if value is not leaves[name]}


def _place(size: Dim, types: Mapping[str, Type]) -> tuple[str, int] | None:
    """The first input and axis of it that a name of a size is the size of."""
    places = ((n, i) for n, t in types.items() for i, d in enumerate(t.shape) if d == size)
    return None if isinstance(size, int) else next(places, None)
