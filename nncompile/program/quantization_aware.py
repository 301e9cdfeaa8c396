"""A model that learns as a quantized one: its products are those of 8-bit integers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import numpy as np

from nncompile.diagnostics.errors import ModelError, ModelWarning, did_you_mean, warn
from nncompile.diagnostics.locations import recording_locations
from nncompile.diagnostics.options import flag, fraction
from nncompile.elementwise import abs, maximum, minimum, rint, stop_gradient, where
from nncompile.elementwise import clip as bounded
from nncompile.ir.basic import cast, const
from nncompile.ir.graph import Input, input_of
from nncompile.ir.names import matches, unused_name
from nncompile.ir.op import Value
from nncompile.ir.transform import rebuilt, transformed
from nncompile.ir.types import Array, Type, f32, i32, u8
from nncompile.ops.contraction.gemm import Gemm
from nncompile.ops.contraction.matmul import MatMul
from nncompile.ops.convolution.convolve import Conv
from nncompile.ops.core.modes import while_training
from nncompile.ops.quantization.linear import fake_quantize
from nncompile.ops.reduction.extremes import max as largest
from nncompile.ops.reduction.extremes import min as least
from nncompile.passes.normalization_folding import fixed
from nncompile.program.model import Model, leaves_of
from nncompile.program.updates import patterns_of

M = TypeVar("M", bound=Model)

SMALLEST = 1e-12  # of scales, for weights that are all zero
LOW, HIGH = "input_low", "input_high"
"""The states of a layer: the range of what enters it."""


def with_quantization(
    model: M, params: str | Sequence[str] = "*", momentum: float = 0.1, per_channel: bool = True
) -> M:
    """The model with what enters its products rounded to 8-bit integers; see
    `dsl.quantization_aware`. Raises `ModelError` where no product has a weight that is matched."""
    aware = _Aware(
        model,
        patterns_of("params", params),
        fraction("momentum", momentum),
        flag("per_channel", per_channel),
    )
    result: Any = aware.result()
    changed: M = result
    return changed


class UnknownRangeWarning(ModelWarning):
    """A model that was not trained since its products are rounded: of what enters them no range is
    known, so that all of it is rounded to 0."""


def warn_of_unknown_ranges(state: Mapping[str, Array]) -> None:
    """Warns of a state in which layers have not seen what enters them."""
    lows = [path for path in state if path.rpartition(".")[2] == LOW]
    highs = {path: f"{path.removesuffix(LOW)}{HIGH}" for path in lows}
    unknown = [low for low, high in highs.items() if high in state and state[low] > state[high]]
    if unknown:
        owners = ", ".join(low.rpartition(".")[0] for low in unknown)
        warn(
            f"the ranges of what enters {owners} are not known, and all of it is rounded to 0: "
            "train some steps first, trainer.fit(...)",
            UnknownRangeWarning,
        )


class _Aware:
    def __init__(
        self, model: Model, patterns: str | Sequence[str], momentum: float, per_channel: bool
    ) -> None:
        self.model, self.patterns = model, patterns
        self.momentum, self.per_channel = momentum, per_channel
        self.is_fixed = fixed()
        self.taken = {*model.whole.leaves, *model.outputs}
        self.initial = dict(model.initial)
        self.updates: dict[str, Value] = {}
        self.states: list[Value] = []
        self.seen: dict[Value, Value] = {}  # what enters several products is rounded once
        self.known: list[str] = []

    def result(self) -> Model:
        """The model whose states are the ranges, too."""
        model = self.model
        with recording_locations(model.graph.locations):
            values = [*model.outputs.values(), *model.updates.values()]
            values = transformed(values, self._made)
        if not self.states:
            if not self.known:
                raise ModelError(
                    f"model {model.name} has no matrix product or convolution of float32 weights "
                    "that are not rounded already"
                )
            names = (self.patterns,) if isinstance(self.patterns, str) else self.patterns
            raise ModelError(
                f"model {model.name} has no matrix product or convolution whose weight "
                f"{', '.join(map(repr, names))} matches",
                rows=[("weight", path) for path in self.known],
                hint=did_you_mean(names[0], self.known),
            )
        outputs = dict(zip(model.outputs, values, strict=False))
        updates = dict(zip(model.updates, values[len(outputs) :], strict=True))
        inputs = (*model.whole.leaves.values(), *self.states)
        graph = replace(model.graph, outputs=outputs, inputs=inputs)
        return replace(
            model,
            graph=graph,
            initial=self.initial,
            updates={**updates, **self.updates},
            origin=model,
        )

    def _made(self, value: Value, args: list[Value]) -> Value:
        op = value.op
        if not isinstance(op, MatMul | Gemm | Conv) or value.dtype is not f32:
            return rebuilt(value, args)
        x, weight = value.args[:2]
        if self.is_fixed(x) or not self.is_fixed(weight):
            return rebuilt(value, args)
        path = _path(weight)
        self.known.append(path)
        if not matches(path, self.patterns):
            return rebuilt(value, args)
        quantized = self._activation(args[0], path), self._weight(args[1], _channels(op, weight))
        return op.rebuild(*quantized, *args[2:])

    def _weight(self, w: Value, axis: int | None) -> Value:
        """The weight as whole numbers from −127 to 127, with a scale for each channel."""
        axis = axis if self.per_channel else None
        others = tuple(i for i in range(w.rank) if i != axis)
        scale = maximum(largest(abs(stop_gradient(w)), others), SMALLEST) / 127
        return fake_quantize(w, scale, const(np.zeros(scale.shape, np.int8)), axis)

    def _activation(self, x: Value, path: str) -> Value:
        """x as whole numbers from 0 to 255 over the range that was seen so far."""
        if x not in self.seen:
            owner = path.rpartition(".")[0]
            low, high = (self._state(owner, name, start) for name, start in ((LOW, 1), (HIGH, -1)))
            fixed_x = stop_gradient(x)
            is_first = low > high
            now = {}
            for leaf, of_batch in ((low, least(fixed_x)), (high, largest(fixed_x))):
                moved = leaf + self.momentum * (of_batch - leaf)
                now[leaf] = where(is_first, of_batch, moved)
                self.updates[input_of(leaf).name] = now[leaf]
            # The range holds 0 always, so that it is exact: of paddings, and behind a ReLU.
            bottom = minimum(while_training(now[low], low), 0)
            top = maximum(while_training(now[high], high), 0)
            scale = maximum(top - bottom, SMALLEST) / 255
            zero = cast(cast(bounded(rint(-bottom / scale), 0.0, 255.0), i32), u8)
            self.seen[x] = fake_quantize(x, scale, zero)
        return self.seen[x]

    def _state(self, owner: str, name: str, start: float) -> Value:
        path = unused_name(f"{owner}.{name}" if owner else name, self.taken)
        self.taken.add(path)
        self.initial[path] = const(float(start), f32)
        leaf = Input(path, Type(f32, ()), "state")()
        self.states.append(leaf)
        return leaf


def _channels(op: object, weight: Value) -> int | None:
    """The axis of a weight along which its results are apart."""
    if isinstance(op, Conv):
        return 0
    if isinstance(op, Gemm):
        return 0 if op.transpose_b else 1
    return weight.rank - 1 if weight.rank > 1 else None


def _path(weight: Value) -> str:
    """The path of the first parameter that a weight is made of."""
    names = [input_of(leaf) for leaf in leaves_of([weight])]
    parameters = sorted(x.name for x in names if x.kind == "parameter")
    return parameters[0] if parameters else ""
