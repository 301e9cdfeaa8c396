"""Sizes that weights depend on: they are numbers for any data."""

from __future__ import annotations

import sympy as sp

from nncompile.diagnostics.errors import Row, ShapeError
from nncompile.diagnostics.locations import call_label, current_locations
from nncompile.ir.data_sizes import makers_of
from nncompile.ir.dims import CLIPPED, Dim, is_clipped, symbols
from nncompile.ir.graph import Input, toposort
from nncompile.ir.op import Value, described


def known_size(message: str, x: Value, axis: int, hint: str | None = None) -> int:
    """The size of that axis of x, for weights.

    Raises `ShapeError` with the message where it is not a number. The error shows what the size
    depends on, and ways out, `hint` among them.
    """
    if not -x.rank <= axis < x.rank:
        hint = "expand_dims(x, -1) adds an axis of one element" if x.rank == 0 else hint
        raise ShapeError(message, rows=[("x", *described(x))], hint=hint)
    size = x.shape[axis]
    if isinstance(size, int):
        return size
    declared, makers = _inputs(x, size), _makers(size)
    remedies = [_room(size)] if is_clipped(size) else []
    if declared:
        inputs = " and ".join(dict.fromkeys(label for _, label, _ in declared))
        remedies.append(f"declare {inputs} as a number")
    remedies.append(
        hint or "take the mean over that axis, as GlobalAveragePool() does over the sizes of images"
    )
    raise ShapeError(
        message,
        rows=[("x", *described(x)), *declared, *makers],
        hint=f"weights depend on the size {size}, which is known only from the data: "
        f"{'; or '.join(remedies)}",
    )


def _room(size: Dim) -> str:
    """How a slice gets as many elements as it requests; `size` is a minimum with it."""
    if not isinstance(size, sp.Min) or len(size.args) != 2 or not size.args[0].is_Integer:
        return CLIPPED
    count, length = size.args
    return (
        f"a slice takes at most what is there; it takes {count} elements of an axis declared "
        f'"{length} + {count}"'
    )


def _inputs(x: Value, size: Dim) -> list[Row]:
    """The axes of inputs whose sizes are the names in the size."""
    rows: list[Row] = []
    for leaf in toposort([x]):
        if not isinstance(leaf.op, Input):
            continue
        for axis, d in enumerate(leaf.shape):
            for name in sorted(map(str, symbols([d]) & symbols([size]))):
                rows.append((name, f"axis {axis} of {leaf.op.kind} {leaf.op.name}", str(leaf.type)))
    return rows


def _makers(size: Dim) -> list[Row]:
    """Which ops select the numbers of elements in the size."""
    rows: list[Row] = []
    for v in makers_of([size]):
        label = call_label(current_locations().location(v), v.op.label)
        rows += [(str(s), f"made by {label}", *described(v)[1:]) for s in v.op.makes]
    return rows
