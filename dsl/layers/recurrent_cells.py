"""Cells of recurrent layers: one step of RNN, LSTM and GRU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dsl.layers.known_sizes import known_size
from dsl.layers.recurrent_steps import (
    ElmanStep,
    GatedStep,
    LongShortTermStep,
    Product,
    State,
    Stepped,
)
from nncompile.diagnostics.errors import ModelError
from nncompile.elementwise import tanh
from nncompile.ir.basic import floating
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.ops import full


class Cell(Stepped):
    """What RNNCell, LSTMCell and GRUCell have in common: one step of the layer, for a loop of one's
    own. `cell(x, state)` gives the next state, `[..., features]` and `[..., hidden_size]` to
    `[..., hidden_size]`, zeros by default; of LSTM a state is a pair (h, c), and so is the result.

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

    def step(self, row: Value, state: State, product: Product) -> State:
        """As `Recurrent.step`."""
        raise ModelError(f"the cell {type(self).__name__} has no step")

    def __call__(self, x: Any, state: Any = None) -> Any:
        kind = type(self).__name__
        x = floating(kind, x, "x.astype(f32) converts; Embedding is for class indices")
        known_size(f"{kind} needs a known number of features, x is {x.type}", x, -1)
        rows, product = self._weighed(x, "")
        new = self.step(rows, self._state(x, state), product)
        return new if self.states > 1 else new[0]

    def _state(self, x: Value, state: Any) -> State:
        expected = Type(x.dtype, (*x.shape[:-1], self.hidden_size))
        if state is None:
            return (full(expected.shape, 0, x.dtype),) * self.states
        return self._states_of("state", state, expected)


class RNNCell(ElmanStep, Cell):
    """One step of `RNN`: h' = activation(x·W + b + h·W + b), tanh unless another is given. Options,
    shapes and parameters are those of `Cell`."""

    activation: Callable[[Any], Any] = tanh


class LSTMCell(LongShortTermStep, Cell):
    """One step of `LSTM`, from (h, c) to (h', c'). Options, shapes and parameters are those of
    `Cell`."""


class GRUCell(GatedStep, Cell):
    """One step of `GRU`. Options, shapes and parameters are those of `Cell`."""


__all__ = [
    "GRUCell",
    "LSTMCell",
    "RNNCell",
]
