"""`lora`: a model that learns something new by few further weights; and without them again."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from glob import escape
from typing import Any, TypeVar

from nncompile.diagnostics.errors import ModelError, did_you_mean, whole_number
from nncompile.diagnostics.locations import recording_locations
from nncompile.diagnostics.options import real
from nncompile.ir.basic import Cast
from nncompile.ir.broadcasting import full
from nncompile.ir.graph import Input, input_of
from nncompile.ir.names import matches, unused_name
from nncompile.ir.op import Value
from nncompile.ir.transform import replace as substituted
from nncompile.ir.types import Type
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.convolution.convolve import Conv, ConvTranspose
from nncompile.ops.random.generator import random_key, seed_leaf, uniform
from nncompile.ops.shape.gathering import Gather
from nncompile.ops.shape.reshape import Transpose
from nncompile.program.low_rank import Layout, LowRank, factor_names, is_factor
from nncompile.program.model import RANDOM_STATE, Model
from nncompile.program.updates import patterns_of

M = TypeVar("M", bound=Model)


def with_low_rank(
    model: M, rank: int, alpha: float | None = None, params: str | Sequence[str] = "*"
) -> M:
    """The model with a low-rank change beside each trained matrix and each kernels that `params`
    matches, and all that it had before frozen; see `dsl.lora`.

    Raises `ModelError` for a rank below 1, and where no matrix is matched that has no change yet.
    """
    whole_number("the rank of LoRA", rank, 1)
    alpha = float(rank) if alpha is None else real("the alpha of LoRA", alpha)
    patterns = patterns_of("params", params)
    weights = {
        path: leaf
        for path, leaf in model.parameters.items()
        if leaf.rank >= 2 and leaf.dtype.is_float and leaf.type.is_static
        and path not in model.adapters and not is_factor(path)
    }  # fmt: skip
    chosen = {path: leaf for path, leaf in weights.items() if matches(path, patterns)}
    if not chosen:
        names = (patterns,) if isinstance(patterns, str) else patterns
        raise ModelError(
            f"LoRA found no weight matrix (or kernels) of model {model.name} that "
            f"{', '.join(map(repr, names))} matches",
            rows=[("matrix", path, str(leaf.type)) for path, leaf in weights.items()],
            hint=did_you_mean(names[0], weights) if names else 'params="*" adapts all of them',
        )
    taken = {*model.whole.leaves, *model.outputs}
    changes: list[LowRank] = []
    starts: dict[str, Value] = {}
    for path, layout in _layouts(model, chosen).items():
        a, b = (unused_name(name, taken) for name in factor_names(path))
        taken |= {a, b}
        change = LowRank(path, rank, alpha, layout, a, b)
        changes.append(change)
        leaf = chosen[path]
        shapes = change.shapes(leaf.shape)
        starts[a] = _started(Type(leaf.dtype, shapes[0]), a, change.fans(leaf.shape)[0])
        starts[b] = full(shapes[1], 0, leaf.dtype)
    return with_changes(model, changes, starts)


def with_changes(model: M, changes: Iterable[LowRank], starts: Mapping[str, Value]) -> M:
    """The model with these changes of its weights, whose factors start there."""
    adapters = {change.path: change for change in changes}
    new: dict[Value, Value] = {}
    factors: list[Value] = []
    with recording_locations(model.graph.locations):
        for path, change in adapters.items():
            leaf = model.parameters[path]
            a, b = (
                Input(name, Type(leaf.dtype, shape), "parameter")()
                for name, shape in zip((change.a, change.b), change.shapes(leaf.shape), strict=True)
            )
            factors += [a, b]
            new[leaf] = change.changed(leaf, a, b)
        held = {**model.parameters, **model.states}
        free = {name for change in model.adapters.values() for name in (change.a, change.b)}
        return _substituted(
            model,
            new,
            factors,
            initial={**model.initial, **starts},
            adapters={**model.adapters, **adapters},
            frozen=tuple(escape(p) for p in held if p not in free and p not in RANDOM_STATE),
        )


def without_low_rank(model: M) -> M:
    """The model as it was before `lora`, or as it is without it in its layers: each weight in the
    place of its changed one."""
    leaves = model.parameters
    new: dict[Value, Value] = {}
    with recording_locations(model.graph.locations):
        for path, change in model.adapters.items():
            weight = leaves[path]
            new[change.changed(weight, leaves[change.a], leaves[change.b])] = weight
        gone = {name for change in model.adapters.values() for name in (change.a, change.b)}
        initial = {path: value for path, value in model.initial.items() if path not in gone}
        return _substituted(model, new, [], initial=initial, adapters={}, frozen=())


def _started(type_: Type, path: str, fan_in: int) -> Value:
    """What A starts with, as the paper's own code and torch's dense layers do: uniform within
    ±1/√in."""
    limit = 1 / math.sqrt(max(fan_in, 1))
    return uniform(random_key(path, seed_leaf()), type_.shape, -limit, limit, type_.dtype)


def _substituted(model: M, new: Mapping[Value, Value], added: Sequence[Value], **fields: Any) -> M:
    """The model with these values in the place of others, these leaves after its own, and these
    fields; leaves without an initial value are gone."""
    values = substituted([*model.outputs.values(), *model.updates.values()], new)
    outputs = dict(zip(model.outputs, values, strict=False))
    updates = dict(zip(model.updates, values[len(outputs) :], strict=True))
    kept = {*fields["initial"], *model.inputs, *RANDOM_STATE}
    leaves = (*model.whole.leaves.values(), *added)
    inputs = tuple(leaf for leaf in leaves if input_of(leaf).name in kept)
    graph = replace(model.graph, outputs=outputs, inputs=inputs)
    return replace(model, graph=graph, updates=updates, origin=model, **fields)


def _layouts(model: Model, weights: Mapping[str, Value]) -> dict[str, Layout]:
    """How the weights lie, by the operation that they get to first."""
    readers = model.whole.readers
    return {path: _layout(leaf, readers) for path, leaf in weights.items()}


def _layout(leaf: Value, readers: Mapping[Value, Sequence[Value]]) -> Layout:
    waiting, seen = [(leaf, False)], {leaf}
    while waiting:
        value, is_turned = waiting.pop(0)
        for user in readers.get(value, ()):
            layout = _laid_out(leaf, value, user, is_turned)
            if layout is not None:
                return layout
            op = user.op
            arranged = op.moves and not isinstance(op, Gather)  # of an embedding, its rows enter
            if user not in seen and (arranged or isinstance(op, Cast)):
                seen.add(user)
                waiting.append((user, is_turned ^ (isinstance(op, Transpose) and _turns(op))))
    return "in out"


def _laid_out(leaf: Value, value: Value, user: Value, is_turned: bool) -> Layout | None:
    """How a weight lies that `user` takes as `value`, with its axes in turn or not; None where that
    does not tell."""
    op = user.op
    if isinstance(op, Conv | ConvTranspose) and user.args[1] is value:
        return "kernel" if leaf.rank > 2 else "out in"
    if not isinstance(op, Gemm | MatMul):
        return None
    is_left = user.args[0] is value
    flags = (op.transpose_a, op.transpose_b) if isinstance(op, Gemm) else (False, False)
    return "out in" if is_turned ^ is_left ^ flags[not is_left] else "in out"


def _turns(op: Transpose) -> bool:
    """Whether the last two axes change places."""
    return tuple(op.axes[-2:]) == (len(op.axes) - 1, len(op.axes) - 2)
