"""Recurrent layers: RNN, LSTM, GRU; stacked, bidirectional, of sequences of several lengths; and
their cells, which are one step of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from dsl.building import active
from dsl.initializers import uniform
from dsl.layer import Layer
from nncompile.dims import same_shape
from nncompile.elementwise import sigmoid, tanh, where
from nncompile.errors import ModelError, ShapeError, whole_number
from nncompile.graph import Value
from nncompile.ops import concatenate, expand_dims, full, iota, scan, split, stack, swapaxes
from nncompile.ops import dropout as drop
from nncompile.ops.basic import as_value, floating
from nncompile.ops.claims import LENGTHS, in_range
from nncompile.optim.schedules import real
from nncompile.types import Type, boolean

State = tuple[Value, ...]
Product = Callable[[Value], Value]


class Recurrent(Layer):
    """What RNN, LSTM and GRU have in common: `[batch, time, features]` goes in, and
    `[batch, time, hidden]` comes out, or `[batch, hidden]`, the state after the last step, unless
    `return_sequences`. With `bidirectional` there is a second pass from the end with weights of its
    own, and both outputs are joined along the last axis (of the last outputs, each pass gives the
    one where it ends, as in Keras). `layers` are stacked, with `dropout` between them; `reverse`
    goes from the end alone. The number of time steps is symbolic in the model.

    Called as `layer(x, initial, lengths=…)`. `initial` is the first state, zeros by default:
    `[layers·directions, batch, hidden]` as in torch, or `[batch, hidden]` where there is one (for
    LSTM a pair of such, h and c). `lengths`, i64 of `[batch]`, says how many steps of each row are
    there, or `mask`, bool of `[batch, time]`, which ones: past the end the state is kept, and the
    outputs are zero, as of torch's packed sequences. A row of length 0 keeps its first state; other
    lengths than 0 … time are a `FeedError` where the data are fed. With `return_state` the last
    states follow, `[layers·directions, batch, hidden]` each.

    Parameters are called as in torch.nn, `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`,
    `bias_hh_l0`, of the second layer `…_l1`, of the second pass `…_reverse`, with the same order of
    gates; weights are transposed: `[features, gates·hidden]` and `[hidden, gates·hidden]`. All
    start uniform in ±1/√hidden, as in torch. `init`, `recurrent_init` and `bias_init` are others.

    Raises `ShapeError` or `DTypeError` for an x that is not real or not of three axes, for an
    initial state, lengths or a mask that do not fit it, `ModelError` for options out of range.
    """

    hidden: int
    return_sequences: bool = False
    bidirectional: bool = False
    layers: int = 1
    reverse: bool = False
    dropout: float = 0.0
    return_state: bool = False
    use_bias: bool = True
    init: Any = None
    recurrent_init: Any = None
    bias_init: Any = None

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1
    inner_bias: ClassVar[bool] = False  # whether something stands between h·W + b and x·W + b

    def __post_init__(self) -> None:
        kind = type(self).__name__
        whole_number(f"the hidden size of {kind}", self.hidden, 1)
        whole_number(f"the number of layers of {kind}", self.layers, 1)
        for option in ("return_sequences", "bidirectional", "reverse", "return_state"):
            given = getattr(self, option)
            if not isinstance(given, bool):
                raise ModelError(
                    f"{option} of {kind} is True or False, got {given!r}",
                    hint=f"{kind}({given}) alone: the width of x is known, and not given"
                    if isinstance(given, int)
                    else None,
                )
        if not 0 <= real(f"the dropout of {kind}", self.dropout) < 1:
            raise ModelError(f"the dropout of {kind} is in [0, 1), got {self.dropout!r}")
        if self.bidirectional and self.reverse:
            raise ModelError(
                f"{kind} is bidirectional, and reversed, too",
                hint="bidirectional goes both ways; reverse goes from the end alone",
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
        for layer in range(self.layers):
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
        rows, product = _weighed(self, x, f"_l{layer}{'_reverse' if second else ''}")

        def body(*given: Value) -> State:
            state, row, *here = given[: self.states], *given[self.states :]
            new = self.step(row, state, product)
            if here:
                pairs = zip(new, state, strict=True)
                new = tuple(where(here[0], after, before) for after, before in pairs)
            return (*new, new[0])

        along = rows if present is None else (rows, present)
        *last, outputs = scan(body, initial, along, reverse=bool(second) or self.reverse)
        if present is not None:
            outputs = where(present, outputs, 0)
        return outputs, tuple(last)

    def _checked(self, x: Value) -> Value:
        kind = type(self).__name__
        floating(kind, x, "x.astype(f32) converts; Embedding is for class numbers")
        if x.rank != 3:
            raise ShapeError(
                f"{kind} needs [batch, time, features], x is {x.type}",
                hint="expand_dims(x, -1) adds an axis for one feature",
            )
        if not isinstance(x.shape[-1], int):
            raise ShapeError(f"{kind} needs a known number of features, x is {x.type}")
        return x

    def _mask(self, x: Value, lengths: Any, mask: Any) -> Value | None:
        """Which steps are there, `[time, batch, 1]`."""
        batch, time, _ = x.shape
        kind = type(self).__name__
        if lengths is not None and mask is not None:
            raise ModelError(f"{kind} takes lengths or a mask, not both")
        if lengths is not None:
            ends = as_value(lengths)
            if not ends.dtype.is_integer or same_shape(ends.shape, (batch,)) is not True:
                raise ShapeError(f"the lengths for {x.type} are i64[{batch}], got {ends.type}")
            ends = in_range(ends, 0, time, f"the lengths of {kind} are", LENGTHS)
            return expand_dims(expand_dims(iota(time, ends.dtype), 1) < ends, 2)
        if mask is None:
            return None
        present = as_value(mask)
        if not present.dtype.is_bool or same_shape(present.shape, (batch, time)) is not True:
            expected = Type(boolean, (batch, time))
            raise ShapeError(f"the mask for {x.type} is {expected}, got {present.type}")
        return expand_dims(swapaxes(present, 0, 1), 2)

    def _start(self, x: Value, initial: Any) -> list[State]:
        """The first state of each layer and direction."""
        count, batch = self.layers * self._directions, x.shape[0]
        if initial is None:
            zero = full((batch, self.hidden), 0, x.dtype)
            return [(zero,) * self.states] * count
        whole = Type(x.dtype, (count, batch, self.hidden))
        given = _states(self, "initial state", initial, whole, "[layers·directions, batch, hidden]")
        return list(zip(*([part[i] for i in range(count)] for part in given), strict=True))


def _states(
    layer: Recurrent | Cell, name: str, given: Any, expected: Type, hint: str | None = None
) -> State:
    """The parts of a state, each of the expected type; a first axis of size 1 may be left out."""
    kind = type(layer).__name__
    parts = list(given) if isinstance(given, tuple | list) else [given]
    if len(parts) != layer.states:
        raise ModelError(
            f"the {name} of {kind} has {layer.states} parts, got {len(parts)}",
            hint="a pair (h, c) for LSTM, one value for RNN and GRU",
        )
    found = []
    for part in map(as_value, parts):
        x = expand_dims(part, 0) if part.rank == expected.rank - 1 else part
        if x.dtype is not expected.dtype or same_shape(x.shape, expected.shape) is not True:
            raise ShapeError(f"the {name} of {kind} is {expected}, got {part.type}", hint=hint)
        found.append(x)
    return tuple(found)


def _weighed(layer: Recurrent | Cell, x: Value, suffix: str) -> tuple[Value, Product]:
    """x·W + b, and what makes h·W + b of the recurrent weights."""
    limit = 1 / math.sqrt(layer.hidden)

    def weights(name: str, shape: Any, init: Any) -> Value:
        start = uniform(-limit, limit) if init is None else init
        return layer.parameter(f"{name}{suffix}", shape, start, x.dtype)

    wide = layer.gates * layer.hidden
    weight = weights("weight_ih", (x.shape[-1], wide), layer.init)
    recurrent = weights("weight_hh", (layer.hidden, wide), layer.recurrent_init)
    rows, bias = x @ weight, None
    if layer.use_bias:
        outer = weights("bias_ih", wide, layer.bias_init)
        bias = weights("bias_hh", wide, layer.bias_init)
        if not layer.inner_bias:  # added once, and not in each step
            outer, bias = outer + bias, None
        rows = rows + outer

    def product(h: Value) -> Value:
        y: Value = h @ recurrent
        return y if bias is None else y + bias

    return rows, product


def _joined(parts: Sequence[Value]) -> Value:
    return concatenate(parts, -1)


class _ElmanStep:
    """h' = activation(x·W + b + h·W + b)."""

    activation: Callable[[Any], Any]

    def step(self, row: Value, state: State, product: Product) -> State:
        (h,) = state
        return (self.activation(row + product(h)),)


class _LongShortTermStep:
    """c' = σ(f)·c + σ(i)·tanh(g), h' = σ(o)·tanh(c')."""

    gates: ClassVar[int] = 4
    states: ClassVar[int] = 2

    def step(self, row: Value, state: State, product: Product) -> State:
        h, c = state
        i, f, g, o = split(row + product(h), 4, axis=-1)
        c = sigmoid(f) * c + sigmoid(i) * tanh(g)
        return sigmoid(o) * tanh(c), c


class _GatedStep:
    """h' = (1 − z)·n + z·h."""

    gates: ClassVar[int] = 3
    inner_bias: ClassVar[bool] = True

    def step(self, row: Value, state: State, product: Product) -> State:
        (h,) = state
        x_r, x_z, x_n = split(row, 3, axis=-1)
        h_r, h_z, h_n = split(product(h), 3, axis=-1)
        r, z = sigmoid(x_r + h_r), sigmoid(x_z + h_z)
        n = tanh(x_n + r * h_n)
        return ((1 - z) * n + z * h,)


class RNN(_ElmanStep, Recurrent):
    """h' = activation(x·W + b + h·W + b), Elman's network; tanh unless another is given. Options,
    shapes and parameters are those of `Recurrent`."""

    activation: Callable[[Any], Any] = tanh


class LSTM(_LongShortTermStep, Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with the forget gate of Gers et al.
    2000): c' = σ(f)·c + σ(i)·tanh(g), h' = σ(o)·tanh(c'), the gates i, f, g, o, in this order,
    of x·W + b + h·W + b. Options, shapes and parameters are those of `Recurrent`; a state is a pair
    (h, c)."""


class GRU(_GatedStep, Recurrent):
    """Gated recurrent unit (Cho et al. 2014): h' = (1 − z)·n + z·h, with the gates r, z, n, in this
    order: r and z are σ of x·W + b + h·W + b, and n = tanh(x·W + b + r·(h·W + b)).

    That r is applied after the product, with a bias of its own, is torch's convention, and Keras'
    `reset_after`. Options, shapes and parameters are those of `Recurrent`."""


SimpleRNN = RNN
"""Keras' name."""


class Cell(Layer):
    """What RNNCell, LSTMCell and GRUCell have in common: one step of the layer, for a loop of one's
    own. `cell(x, state)` gives the next state, `[..., features]` and `[..., hidden]` to
    `[..., hidden]`, zeros by default; of LSTM a state is a pair (h, c), and so is the result.

    In a `scan` all iterations have the same weights, as of any layer. Parameters are called as in
    torch.nn, `weight_ih`, `weight_hh`, `bias_ih` and `bias_hh`, transposed, in the order of gates
    and with the start of `Recurrent`'s.

    Raises `ShapeError` or `DTypeError` for an x that is not floating or whose number of features
    only the data tell, and for a state that does not fit it.

    >>> from dsl import f32, model, scan
    >>> @model
    ... def net(x=f32["time", "batch", 3], start=f32["batch", 8]):
    ...     cell = GRUCell(8)
    ...
    ...     def body(state, row):
    ...         state = cell(row, state)
    ...         return state, state
    ...
    ...     last, states = scan(body, start, x)
    ...     return {"last": last, "states": states}
    >>> net.outputs["states"].type
    f32[time, batch, 8]
    """

    hidden: int
    use_bias: bool = True
    init: Any = None
    recurrent_init: Any = None
    bias_init: Any = None

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1
    inner_bias: ClassVar[bool] = False

    def __post_init__(self) -> None:
        whole_number(f"the hidden size of {type(self).__name__}", self.hidden, 1)

    def step(self, row: Value, state: State, product: Product) -> State:
        """As `Recurrent.step`."""
        raise ModelError(f"the cell {type(self).__name__} has no step")

    def __call__(self, x: Any, state: Any = None) -> Any:
        kind = type(self).__name__
        x = floating(kind, x, "x.astype(f32) converts; Embedding is for class numbers")
        if x.rank == 0 or not isinstance(x.shape[-1], int):
            raise ShapeError(f"{kind} needs a known number of features, x is {x.type}")
        rows, product = _weighed(self, x, "")
        new = self.step(rows, self._state(x, state), product)
        return new if self.states > 1 else new[0]

    def _state(self, x: Value, state: Any) -> State:
        expected = Type(x.dtype, (*x.shape[:-1], self.hidden))
        if state is None:
            return (full(expected.shape, 0, x.dtype),) * self.states
        return _states(self, "state", state, expected)


class RNNCell(_ElmanStep, Cell):
    """One step of `RNN`: h' = activation(x·W + b + h·W + b), tanh unless another is given. Options,
    shapes and parameters are those of `Cell`."""

    activation: Callable[[Any], Any] = tanh


class LSTMCell(_LongShortTermStep, Cell):
    """One step of `LSTM`, from (h, c) to (h', c'). Options, shapes and parameters are those of
    `Cell`."""


class GRUCell(_GatedStep, Cell):
    """One step of `GRU`. Options, shapes and parameters are those of `Cell`."""
