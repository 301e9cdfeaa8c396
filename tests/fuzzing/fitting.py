"""How ops that take values of any rank are applied to a value as it is."""

from __future__ import annotations

import dataclasses

import numpy as np

from nncompile.elementwise.map import Map, mapped
from nncompile.ir.barriers import Barrier
from nncompile.ir.basic import Cast, Constant, SizeOf
from nncompile.ir.broadcasting import Expand
from nncompile.ir.op import Op, Value, apply
from nncompile.ir.types import DTYPES, f32, f64
from nncompile.ops.contraction.einsum import Einsum
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.core.checkpoint import Recompute
from nncompile.ops.core.counting import Counted, Iota
from nncompile.ops.core.modes import Training
from nncompile.ops.images.resize import Enlarge
from nncompile.ops.loops.scan import Scan
from nncompile.ops.normalization.layer import LayerNorm
from nncompile.ops.pooling.places import MaxPlaces
from nncompile.ops.shape.joining import Concat, Split
from nncompile.ops.shape.reshape import Reshape
from nncompile.ops.shape.selecting import NonZero
from nncompile.ops.shape.slicing import Pad, Slice
from tests.fuzzing.fitting_networks import (
    MATRICES,
    by_images,
    by_matrix,
    by_normalization,
    by_recompute,
    by_scan,
    by_training,
)
from tests.fuzzing.fitting_shapes import (
    by_constant,
    by_count,
    by_expand,
    by_joining,
    by_mask,
    by_pad,
    by_reshape,
    by_size,
    by_slice,
    by_split,
)
from tests.fuzzing.program import Builder, Rejected
from tests.fuzzing.samples import ANY, RANGE, Step, broadcasting, noted, samples_of


def by_axes(b: Builder, op_type: type[Op]) -> Value:
    """An op that says which of its fields takes any axis."""
    sample = noted(b, b.choose(samples_of(op_type)))
    dtype = sample.types[0].dtype
    x = b.any_of([dtype], 1, sample)
    order = list(range(x.rank))
    for i in range(x.rank - 1):
        j = b.integer(i, x.rank - 1)
        order[i], order[j] = order[j], order[i]
    some = tuple(sorted(order[: b.integer(1, x.rank)]))
    chosen = {"axis": {"axis": order[0]}, "axes": {"axes": some}, "order": {"axes": tuple(order)}}
    flags = {name: b.chance(50) for name, v in sample.op.attributes.items() if isinstance(v, bool)}
    op = dataclasses.replace(sample.op, **flags, **chosen[op_type.varies])  # type: ignore[type-var]
    args = [x, *(b.argument(x.type, sample) for _ in sample.types[1:])]
    return apply(op, *args)


def elementwise(b: Builder, op_type: type[Op]) -> Value:
    """A formula of values that broadcast."""
    sample = noted(b, b.choose(samples_of(Map)))
    body = sample.op.body  # type: ignore[attr-defined]
    x = b.any_of([sample.types[0].dtype], 0, sample)
    args = [x]
    for type_ in sample.types[1:]:
        args.append(b.argument(type_.dtype[broadcasting(b, x.shape)], sample))
    return mapped(body, args)


def by_product(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of([f32, f64], 1, RANGE)
    rows, columns = x.shape[-1], b.dim()
    batch = x.shape[:-2] if b.chance(30) else ()
    if b.chance(20):
        return (
            apply(MatMul(), b.argument(x.dtype[(*batch, columns, x.shape[0])], RANGE), x)
            if (x.rank == 1)
            else apply(MatMul(), b.argument(x.dtype[columns, x.shape[-2]], RANGE), x)
        )
    return apply(MatMul(), x, b.argument(x.dtype[(*batch, rows, columns)], RANGE))


def by_einsum(b: Builder, op_type: type[Op]) -> Value:
    x = b.any_of([f32, f64], 0, RANGE)
    letters = "abcdef"[: x.rank]
    common = "".join(c for c in letters if b.chance(60))
    other = common + ("z" if b.chance(60) else "")
    right = "".join(sorted(other, key=lambda _: b.integer(0, 9)))
    sizes = dict(zip(letters, x.shape, strict=True)) | {"z": b.dim()}
    y = b.argument(x.dtype[tuple(sizes[c] for c in right)], RANGE)
    # An axis that is in neither the other argument nor the result is not allowed.
    kept = [c for c in letters if c not in common or b.chance(40)] + ["z"] * ("z" in right)
    output = "".join(sorted(kept, key=lambda _: b.integer(0, 9)))
    return apply(Einsum(letters, right, output), x, y)


def by_cast(b: Builder, op_type: type[Op]) -> Value:
    sample = noted(b, b.choose(samples_of(Cast)))
    x = b.any_of([sample.types[0].dtype], 0, sample)
    target = sample.op.dtype  # type: ignore[attr-defined]
    if x.dtype.is_float and target.is_bool:
        if any(((a != 0) & (np.abs(a) < 1e-3)).any() for a in b.arrays(x)):
            raise Rejected  # a difference that is nearly zero may be zero
    elif x.dtype.is_float and target.is_integer:
        limits = np.iinfo(target.numpy)
        if any((a < limits.min).any() or (a > limits.max).any() for a in b.arrays(x)):
            raise Rejected  # undefined: the type cannot hold the number
    return apply(sample.op, x)


def by_barrier(b: Builder, op_type: type[Op]) -> Value:
    return apply(Barrier(), *(b.any_of(DTYPES, 0, ANY) for _ in range(b.integer(1, 2))))


FITTING: dict[type[Op], Step] = {
    Map: elementwise,
    MatMul: by_product,
    Einsum: by_einsum,
    Reshape: by_reshape,
    Slice: by_slice,
    Pad: by_pad,
    Expand: by_expand,
    Cast: by_cast,
    Concat: by_joining,
    Split: by_split,
    LayerNorm: by_normalization,
    Training: by_training,
    Barrier: by_barrier,
    NonZero: by_mask,
    Counted: by_count,
    SizeOf: by_size,
    Iota: by_size,
    Constant: by_constant,
    Recompute: by_recompute,
    Scan: by_scan,
    MaxPlaces: by_images,
    Enlarge: by_images,
    **dict.fromkeys(MATRICES, by_matrix),
}
# Of these the samples are not what a graph is made of: `recompute` computes its arguments from what
# it is given, formulas have a canonical form, and sizes that depend on data names of their own.
ALONE = (Recompute, Map, NonZero, Counted)
