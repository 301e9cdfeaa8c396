"""Halves of a step that hand gradients over in a few long vectors, which are reduced so."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from nncompile.ir.graph import Input, input_of
from nncompile.ir.names import unused_name
from nncompile.ir.op import Value, apply
from nncompile.ir.transform import replace as replaced
from nncompile.ir.types import Type, f32
from nncompile.ops.shape.joining import concatenate, sections
from nncompile.ops.shape.reshape import ravel, reshape
from nncompile.program.reductions import Place
from nncompile.program.step import Step

BUCKET = 25 * 2**20
"""Bytes that a vector has at most, unless a single gradient has more: as many as in torch."""


def flattened(step: Step, most: int = BUCKET) -> Step:
    """The step with other halves: the gradients in float32 that are reduced alike lie in vectors
    `gradients.0`, `gradients.1`, …, in the order in which they are made, which is that of the
    layers turned round. `reductions.flat` says where. Others stay as they are."""
    outputs, leaves = dict(step.gradient.outputs), step.update.leaves
    reductions = step.reductions
    rules, flat, order = dict(reductions.by_name), dict[str, list[Place]](), []
    pieces: dict[Value, Value] = {}
    for names in _buckets(step, most):
        bucket = unused_name(f"gradients.{len(flat)}", outputs)
        values = [outputs.pop(name) for name in names]
        shapes = [tuple(map(int, v.shape)) for v in values]
        lengths = [math.prod(shape) for shape in shapes]
        firsts = [sum(lengths[:i]) for i in range(len(lengths))]
        outputs[bucket] = concatenate([ravel(v) for v in values], 0)
        flat[bucket] = [Place(*place) for place in zip(names, firsts, shapes, strict=True)]
        order.append(bucket)
        rules[bucket] = rules.pop(names[0])
        for name in names[1:]:
            del rules[name]
        leaf = apply(Input(bucket, Type(f32, (sum(lengths),))))
        for name, part, shape in zip(names, sections(leaf, lengths, 0), shapes, strict=True):
            if name in leaves:
                pieces[leaves[name]] = reshape(part, shape)
    kept = [name for name in reductions.gradients if name in outputs]
    values = replaced(list(step.update.outputs.values()), pieces)
    state = tuple(leaf for leaf in step.update.inputs if input_of(leaf).kind != "input")
    return replace(
        step,
        gradient=replace(step.gradient, outputs=outputs),
        update=replace(
            step.update,
            outputs=dict(zip(step.update.outputs, values, strict=True)),
            inputs=state,
        ),
        reductions=replace(reductions, by_name=rules, gradients=[*order, *kept], flat=flat),
    )


def _buckets(step: Step, most: int) -> Iterator[Sequence[str]]:
    """The names of gradients that are reduced alike, in vectors of so many bytes."""
    outputs, rules = step.gradient.outputs, step.reductions.by_name
    names = [n for n in step.reductions.gradients if outputs[n].dtype is f32]
    for rule in dict.fromkeys(rules[n] for n in names):
        bucket: list[str] = []
        size = 0
        for name in (n for n in names if rules[n] == rule):
            own = 4 * math.prod(map(int, outputs[name].shape))
            if bucket and size + own > most:
                yield bucket
                bucket, size = [], 0
            bucket.append(name)
            size += own
        yield bucket
