"""Recurrent layers: RNN, LSTM, GRU; stacked, bidirectional, of sequences of several lengths."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from dsl.building import active
from dsl.layers.known_sizes import known_size
from dsl.layers.noise import probability_of
from dsl.layers.recurrent_steps import (
    ElmanStep,
    GatedStep,
    LongShortTermStep,
    Product,
    Sized,
    State,
    Stepped,
)
from nncompile.diagnostics.errors import ModelError, ShapeError, whole_number
from nncompile.elementwise import tanh, where
from nncompile.ir.basic import as_value, floating
from nncompile.ir.dims import same_shape
from nncompile.ir.op import Value
from nncompile.ir.types import Type, boolean
from nncompile.ops import concatenate, expand_dims, full, iota, scan, stack, swapaxes
from nncompile.ops import dropout as drop
from nncompile.ops.core.assertions import LENGTHS, in_range


class _Passes(Sized):
    return_sequences: bool = False
    bidirectional: bool = False
    num_layers: int = 1
    reverse: bool = False
    dropout: float = 0.0
    return_state: bool = False


class Recurrent(Stepped, _Passes):
    """What RNN, LSTM and GRU have in common: `[batch, time, features]` goes in, and
    `[batch, time, hidden_size]` comes out, or `[batch, hidden_size]`, the state after the last
    step, unless `return_sequences`. With `bidirectional` there is a second pass from the end with
    weights of its own, and both outputs are joined along the last axis (of the last outputs, each
    pass gives the one where it ends, as in Keras). `num_layers` are stacked, with `dropout` between
    them; `reverse` goes from the end alone. The number of time steps is symbolic in the model.

    Called as `layer(x, initial, lengths=…)`. `initial` is the first state, zeros by default:
    `[num_layers·directions, batch, hidden_size]` as in torch, or `[batch, hidden_size]` where there
    is one (for LSTM a pair of such, h and c). `lengths`, i64 of `[batch]`, says how many steps of
    each row are there, or `mask`, bool of `[batch, time]`, which ones: past the end the state is
    kept, and the outputs are zero, as of torch's packed sequences. A row of length 0 keeps its
    first state; other lengths than 0 … time are a `FeedError` where the data are fed. With
    `return_state` the last states follow, `[num_layers·directions, batch, hidden_size]` each.

    Parameters are called as in torch.nn, `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`,
    `bias_hh_l0`, of the second layer `…_l1`, of the second pass `…_reverse`, with the same order of
    gates; weights are transposed: `[features, gates·hidden_size]` and
    `[hidden_size, gates·hidden_size]`. All start uniform in ±1/√hidden_size, as in torch. `init`,
    `recurrent_init` and `bias_init` are others.

    Raises `ShapeError` or `DTypeError` for an x that is not real or not of three axes, for an
    initial state, lengths or a mask that do not fit it, `ModelError` for options out of range.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        kind = type(self).__name__
        whole_number(f"num_layers of {kind}", self.num_layers, 1)
        for option in ("return_sequences", "bidirectional", "reverse", "return_state"):
            flag = getattr(self, option)
            if not isinstance(flag, bool):
                raise ModelError(
                    f"{option} of {kind} must be True or False, got {flag!r}",
                    hint=f"{kind}({flag}) alone is enough: the width of x is inferred"
                    if isinstance(flag, int)
                    else None,
                )
        probability_of(f"the dropout of {kind}", self.dropout)
        if self.bidirectional and self.reverse:
            raise ModelError(
                f"{kind} cannot be both bidirectional and reversed",
                hint="bidirectional runs in both directions; reverse runs from the end only",
            )

    def step(self, row: Value, state: State, product: Product) -> State:
        """The next state, whose first part is the output. `row` is x·W + b of this step, and
        `product(h)` is h·W + b of the recurrent weights."""
        raise ModelError(f"the layer {type(self).__name__} has no step")

    def __call__(
        self, x: Any, initial: Any = None, *, lengths: Any = None, mask: Any = None
    ) -> Any:
        x = self._checked(as_value(x))
        present = self._mask(x, lengths, mask)
        start = self._start(x, initial)
        y = swapaxes(x, 0, 1)  # time first, as the loop goes
        ends: list[State] = []
        for layer in range(self.num_layers):
            if layer and self.dropout:
                y = drop(y, self.dropout, salt=active(type(self).__name__).salt())
            passes = [
                self._pass(y, layer, second, start[len(ends) + second], present)
                for second in range(self._directions)
            ]
            ends += [state for _, state in passes]
            y = _joined([outputs for outputs, _ in passes])
        if self.return_sequences:
            result = swapaxes(y, 0, 1)
        else:
            result = _joined([state[0] for state in ends[-self._directions :]])
        if not self.return_state:
            return result
        return result, *(stack([end[i] for end in ends]) for i in range(self.states))

    @property
    def _directions(self) -> int:
        return 2 if self.bidirectional else 1

    def _pass(
        self, x: Value, layer: int, second: int, initial: State, present: Value | None
    ) -> tuple[Value, State]:
        """The outputs, time first, and the last state of one layer in one direction."""
        rows, product = self._weighed(x, f"_l{layer}{'_reverse' if second else ''}")

        def body(*operands: Value) -> State:
            state, row, *presence = operands[: self.states], *operands[self.states :]
            new = self.step(row, state, product)
            if presence:
                pairs = zip(new, state, strict=True)
                new = tuple(where(presence[0], after, before) for after, before in pairs)
            return (*new, new[0])

        along = rows if present is None else (rows, present)
        *last, outputs = scan(body, initial, along, reverse=bool(second) or self.reverse)
        if present is not None:
            outputs = where(present, outputs, 0)
        return outputs, tuple(last)

    def _checked(self, x: Value) -> Value:
        kind = type(self).__name__
        floating(kind, x, "x.astype(f32) converts; Embedding is for class indices")
        if x.rank != 3:
            raise ShapeError(
                f"{kind} needs [batch, time, features], x is {x.type}",
                hint="expand_dims(x, -1) adds an axis for one feature",
            )
        known_size(f"{kind} needs a known number of features, x is {x.type}", x, -1)
        return x

    def _mask(self, x: Value, lengths: Any, mask: Any) -> Value | None:
        """Which steps are there, `[time, batch, 1]`."""
        batch, time, _ = x.shape
        kind = type(self).__name__
        if lengths is not None and mask is not None:
            raise ModelError(f"{kind} takes either lengths or a mask")
        if lengths is not None:
            ends = as_value(lengths)
            if not ends.dtype.is_integer or same_shape(ends.shape, (batch,)) is not True:
                raise ShapeError(f"the lengths for {x.type} must be i64[{batch}], got {ends.type}")
            ends = in_range(ends, 0, time, f"the lengths of {kind} must be", LENGTHS)
            return expand_dims(expand_dims(iota(time, ends.dtype), 1) < ends, 2)
        if mask is None:
            return None
        present = as_value(mask)
        if not present.dtype.is_bool or same_shape(present.shape, (batch, time)) is not True:
            expected = Type(boolean, (batch, time))
            raise ShapeError(f"the mask for {x.type} must be {expected}, got {present.type}")
        return expand_dims(swapaxes(present, 0, 1), 2)

    def _start(self, x: Value, initial: Any) -> list[State]:
        """The first state of each layer and direction."""
        count, batch = self.num_layers * self._directions, x.shape[0]
        if initial is None:
            zero = full((batch, self.hidden_size), 0, x.dtype)
            return [(zero,) * self.states] * count
        expected = Type(x.dtype, (count, batch, self.hidden_size))
        form = "[num_layers·directions, batch, hidden_size]"
        states = self._states_of("initial state", initial, expected, form)
        return list(zip(*([state[i] for i in range(count)] for state in states), strict=True))


def _joined(parts: Sequence[Value]) -> Value:
    return concatenate(parts, -1)


class RNN(ElmanStep, Recurrent):
    """h' = activation(x·W + b + h·W + b), Elman's network; tanh unless another is given. Options,
    shapes and parameters are those of `Recurrent`."""

    activation: Callable[[Any], Any] = tanh


class LSTM(LongShortTermStep, Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al.
    2000): c' = σ(f)·c + σ(i)·tanh(g), h' = σ(o)·tanh(c'), the gates i, f, g, o, in this order,
    of x·W + b + h·W + b. Options, shapes and parameters are those of `Recurrent`; a state is a pair
    (h, c)."""


class GRU(GatedStep, Recurrent):
    """Gated recurrent unit (Cho et al. 2014): h' = (1 − z)·n + z·h, with the gates r, z, n, in this
    order: r and z are σ of x·W + b + h·W + b, and n = tanh(x·W + b + r·(h·W + b)).

    That r is applied after the product, with a bias of its own, is torch's convention, and Keras'
    `reset_after`. Options, shapes and parameters are those of `Recurrent`."""


SimpleRNN = RNN
"""Keras' name."""


__all__ = [
    "GRU",
    "LSTM",
    "RNN",
    "SimpleRNN",
]
