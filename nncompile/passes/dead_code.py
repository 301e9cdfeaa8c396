"""Parts that nobody needs.

A node that no output needs is in no graph. What is left are parts of nodes: sections of a split
that are not used, pieces that are joined and taken apart again.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from nncompile.ir.dims import dim, same, same_shape
from nncompile.ir.graph import Item, items
from nncompile.ir.op import Value, apply
from nncompile.ir.types import f32
from nncompile.ops.core.checkpoint import Recompute
from nncompile.ops.shape.joining import Concat, Split, concatenate, sections
from nncompile.ops.shape.padding import pad
from nncompile.ops.shape.slicing import Pad, Slice, part
from nncompile.passes.rewriter import Changes, on, rules, uses


@rules
def dead() -> Changes:
    """Drops what is computed and not used: pieces joined and split again, sections of a split,
    empty pieces, slices and pads of nothing."""
    return [piece, lone_section, joined, untouched]


@on(Item)
def piece(value: Value) -> Value | None:
    """A section of joined pieces that is one of them."""
    split = value.args[0]
    if not isinstance(value.op, Item) or not isinstance(split.op, Split):
        return None
    source = split.args[0]
    if not isinstance(source.op, Concat) or source.op.axis != split.op.axis:
        return None
    sizes = tuple(a.shape[source.op.axis] for a in source.args)
    if same_shape(sizes, split.op.sizes) is not True:
        return None
    return source.args[value.op.index]


@piece.refuses(f32[6, 2], f32[2, 2], f32[4, 2], f32[2, 4])
def _(x: Value, two: Value, four: Value, wide: Value) -> Iterator[Any]:
    yield sections(x, [2, 4], 0)[0]
    yield sections(concatenate([two, four], 0), [1, 1], 1)[0]
    yield sections(concatenate([two, four], 0), [4, 2], 0)[0]
    yield items(Recompute(1, 0)(two))[0]


@on(Item)
def lone_section(value: Value) -> Value | None:
    """The only section of a split that is used: a slice."""
    split = value.args[0]
    if not isinstance(value.op, Item) or not isinstance(split.op, Split):
        return None
    if uses(split) != 1:
        return None
    x, axis = split.args[0], split.op.axis
    before = list(accumulate(split.op.sizes, lambda a, b: dim(a + b), initial=0))
    starts = [before[value.op.index] if i == axis else 0 for i in range(x.rank)]
    return part(x, starts, value.shape, [1] * x.rank)


@lone_section.refuses(f32[6])
def _(x: Value) -> Iterator[Any]:
    first, second = sections(x, [2, 4], 0)
    yield first, second
    yield items(Recompute(1, 0)(x))[0]


@on(Concat)
def joined(value: Value) -> Value | None:
    """Joined pieces without the empty ones, and without joins within the join."""
    if not isinstance(value.op, Concat):
        return None
    axis = value.op.axis
    pieces: list[Value] = []
    for a in value.args:
        is_join = isinstance(a.op, Concat) and a.op.axis == axis and uses(a) == 1
        pieces += a.args if is_join else (a,)
    filled = [a for a in pieces if same(a.shape[axis], 0) is not True] or pieces[:1]
    if len(filled) == 1:
        return filled[0]
    return apply(value.op, *filled)  # the value itself where all pieces stay


@joined.refuses(f32[2], f32[0])
def _(x: Value, empty: Value) -> Iterator[Any]:
    yield concatenate([x, x], 0)


@on(Slice, Pad)
def untouched(value: Value) -> Value | None:
    """A slice of everything, or a pad by nothing."""
    if isinstance(value.op, Slice):
        x = value.args[0]
        has_unit_steps = all(step == 1 for step in value.op.steps)
        return x if has_unit_steps and same_shape(x.shape, value.shape) is True else None
    assert isinstance(value.op, Pad)
    widths = (*value.op.before, *value.op.after)
    return value.args[0] if all(same(w, 0) is True for w in widths) else None


@untouched.refuses(f32[6])
def _(x: Value) -> Iterator[Any]:
    yield x[1:]
    yield x[::-1]
    yield pad(x, 1)
