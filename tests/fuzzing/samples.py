"""Samples of ops for programs of the fuzzer, and shapes and numbers that fit."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from nncompile.ir.barriers import Barrier
from nncompile.ir.dims import Shape
from nncompile.ir.op import Op, Sample, Value
from nncompile.ir.types import INTEGERS, bf16, f16, f32, i64
from tests.fuzzing.program import Builder
from tests.op_types import typed

Step = Callable[[Builder, type[Op]], Value]


@cache
def samples_of(op_type: type[Op]) -> tuple[Sample, ...]:
    return tuple(op_type.samples())


def noted(b: Builder, sample: Sample) -> Sample:
    """The sample, now and then in other element types; its limits are those of the program from now
    on."""
    sample = _retyped(b, sample)
    b.order = min(b.order, sample.order)
    if not type(sample.op).differentiable:
        b.smooth = False
    return sample


def _retyped(b: Builder, sample: Sample) -> Sample:
    kind = b.choose((f32, i64))
    if b.chance(80) or all(t.dtype is not kind for t in sample.types):
        return sample
    others = (f16, bf16) if kind is f32 else tuple(d for d in INTEGERS if d is not i64)
    return typed(sample, {kind: b.choose(others)}) or sample


def broadcasting(b: Builder, shape: Shape) -> Shape:
    """A shape that broadcasts to this one."""
    kind = b.integer(0, 3)
    if kind == 0:
        return shape
    if kind == 1:
        return shape[b.integer(0, len(shape)) :]
    return tuple(1 if b.chance(40) else d for d in shape)


# What an argument is asked for: usual numbers, distinct ones, integers of any size.
RANGE = Sample(Barrier(), ())
APART = Sample(Barrier(), (), distinct=True)
ANY = Sample(Barrier(), (), integers=(-(2**40), 2**40))
