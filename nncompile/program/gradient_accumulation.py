"""Means over the batches since the last update, with the sums so far in slots."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from nncompile.elementwise import where
from nncompile.ir.basic import cast, const
from nncompile.ir.broadcasting import zeros_like
from nncompile.ir.graph import input_of
from nncompile.ir.op import Value
from nncompile.ir.types import f64
from nncompile.optim.schedules import TRAINING
from nncompile.program.metric_aggregation import is_sum, weight_of
from nncompile.program.model import Model
from nncompile.program.updated_state import Forms, UpdatedState, Window


@dataclass(frozen=True)
class BatchWeight:
    """How much a batch weighs among those since the last update (`share`), and how much they all do
    (`divisor`). `values` are the leaves that the gradient half hands over for it, `following` the
    next value of the sum of the weights."""

    share: Value
    divisor: Value
    values: Mapping[Value, Value] = field(default_factory=dict)
    following: Mapping[Value, Value] = field(default_factory=dict)


def weighing(model: Model, name: str) -> tuple[bool, Value | None]:
    """Whether an output of several batches is the sum of theirs, and what a batch weighs where it
    is their mean; None where all weigh the same."""
    value = model.outputs[name]
    needed = model.needs(name) or model.cut  # of random numbers, for as many examples
    shapes = (model.inputs[n].shape for n in needed)
    examples = next((s[0] for s in shapes if s and not isinstance(s[0], int)), None)
    if is_sum(value, examples):
        return True, None
    return False, weight_of(value, examples)


def batch_weight(model: Model, state: UpdatedState, name: str, is_present: bool) -> BatchWeight:
    """What a batch weighs in a mean of the output over several: in the state after the updates so
    far, where it `is_present`, or that before the step; added up in a slot where batches may
    differ."""
    adds_up, weight = weighing(model, name)
    unit = const(1.0, f64)
    if adds_up:
        return BatchWeight(unit, unit)
    if weight is None and state.window.is_whole:
        every = const(float(state.accumulate), f64)
        is_closing = state.window is Window.CLOSING
        return BatchWeight(unit, cast(state.accumulated + 1, f64) if is_closing else every)
    weight = (
        unit if weight is None else weight
    )  # of which apart from the step nobody knows how many
    total = state.slot(f"{TRAINING}{name}", "accumulated", zeros_like(weight))
    state.accumulators.add(total)
    if state.window is Window.APPLY:
        return BatchWeight(unit, _divisor(total), {}, {total: zeros_like(weight)})
    forms = state.present([weight]) if is_present else Forms([weight], [weight])
    (current,), (in_turn,) = forms
    share = state.hand_over(f"{name}.batch_weight", current, in_turn)
    following = {total: state.due(zeros_like(weight), total + share)}
    return BatchWeight(share, _divisor(total + share), {share: current}, following)


def _divisor(weights: Value) -> Value:
    """The sum of the weights; where nothing has any, no gradient has either."""
    divisor: Value = where(weights == 0, 1.0, weights)
    return divisor


def accumulated_mean(
    state: UpdatedState,
    path: str,
    slot: str,
    x: Value,
    weight: BatchWeight,
    following: dict[Value, Value],
    handed: str = "",
) -> Value:
    """The mean of `x` over the batches since the last update: the slot holds the sum of that of
    each times its share, and its next value joins `following`. To be applied, all are in it. What
    is `handed` over by a name is noted with its sum."""
    total = state.slot(path, slot, zeros_like(x))
    state.accumulators.add(total)
    is_known = state.window is Window.APPLY
    sum_ = total if is_known else total + cast(weight.share, x.dtype) * x
    if handed:
        state.sums[handed] = input_of(total).name, sum_
    following[total] = state.due(zeros_like(x), sum_)
    mean: Value = sum_ / cast(weight.divisor, x.dtype)
    return mean
