"""Means over the batches since the last update, with the sums so far in slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nncompile.elementwise import where
from nncompile.ir.basic import cast, const
from nncompile.ir.broadcasting import zeros_like
from nncompile.ir.op import Value
from nncompile.ir.transform import replace
from nncompile.ir.types import f64
from nncompile.optim.schedules import TRAINING
from nncompile.program.metric_aggregation import is_sum, weight_of
from nncompile.program.model import Model
from nncompile.program.updated_state import UpdatedState


@dataclass(frozen=True)
class BatchWeight:
    """How much a batch weighs among those since the last update (`share`), and how much they all do
    (`divisor`). `values` are the leaves that the gradient half hands over for it, `following` the
    next value of the sum of the weights."""

    share: Value
    divisor: Value
    values: Mapping[Value, Value] = field(default_factory=dict)
    following: Mapping[Value, Value] = field(default_factory=dict)


def batch_weight(
    model: Model, state: UpdatedState, name: str, now: Mapping[Value, Value]
) -> BatchWeight:
    """What a batch weighs in a mean of the output over several: in the state `now`, and added up in
    a slot where batches may differ."""
    value = model.outputs[name]
    shapes = (model.inputs[n].shape for n in model.needs(name))
    examples = next((s[0] for s in shapes if s and not isinstance(s[0], int)), None)
    unit = const(1.0, f64)
    if is_sum(value, examples):
        return BatchWeight(unit, unit)
    weight = weight_of(value, examples)
    if weight is None:
        every = const(float(state.accumulate), f64)
        return BatchWeight(unit, cast(state.accumulated + 1, f64) if state.closing else every)
    current = replace([weight], now)[0] if now else weight
    share = state.hand_over(f"{name}.batch_weight", current)
    total = state.slot(f"{TRAINING}{name}", "accumulated", zeros_like(weight))
    following = {total: state.due(zeros_like(weight), total + share)}
    # Where nothing has any weight, no gradient has either.
    divisor = where(total + share == 0, 1.0, total + share)
    return BatchWeight(share, divisor, {share: current}, following)


def accumulated_mean(
    state: UpdatedState,
    path: str,
    slot: str,
    x: Value,
    weight: BatchWeight,
    following: dict[Value, Value],
) -> Value:
    """The mean of `x` over the batches since the last update: the slot holds the sum of that of
    each times its share, and its next value joins `following`."""
    total = state.slot(path, slot, zeros_like(x))
    sum_ = total + cast(weight.share, x.dtype) * x
    following[total] = state.due(zeros_like(x), sum_)
    mean: Value = sum_ / cast(weight.divisor, x.dtype)
    return mean
