"""What recurrent layers and their cells share: the steps, the weights and the checks of states."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar

from dsl.initializers import uniform
from dsl.layers.base import Layer
from nncompile.diagnostics.errors import ModelError, ShapeError, whole_number
from nncompile.elementwise import gate, tanh
from nncompile.ir.basic import as_value
from nncompile.ir.dims import Dim, same_shape
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.ops import expand_dims, split

State = tuple[Value, ...]
Product = Callable[[Value], Value]


# The options, each declared once. A class that joins several has those of the last one first.


class Sized(Layer):
    """A layer with a number of hidden features."""

    hidden_size: Dim


class Stepped(Sized):
    """A recurrent layer or a cell: its weights, and the properties of its step."""

    bias: bool = True
    init: Any = None
    recurrent_init: Any = None
    bias_init: Any = None

    gates: ClassVar[int] = 1
    states: ClassVar[int] = 1
    inner_bias: ClassVar[bool] = False  # whether something stands between h·W + b and x·W + b

    def __post_init__(self) -> None:
        whole_number(f"hidden_size of {type(self).__name__}", self.hidden_size, 1)

    def _states_of(self, name: str, initial: Any, expected: Type, hint: str | None = None) -> State:
        """The parts of a state, of the expected type; a first axis of size 1 may be left out."""
        kind = type(self).__name__
        parts = list(initial) if isinstance(initial, tuple | list) else [initial]
        if len(parts) != self.states:
            raise ModelError(
                f"the {name} of {kind} must have {self.states} parts, got {len(parts)}",
                hint="a pair (h, c) for LSTM, one value for RNN and GRU",
            )
        states = []
        for part in map(as_value, parts):
            x = expand_dims(part, 0) if part.rank == expected.rank - 1 else part
            if x.dtype is not expected.dtype or same_shape(x.shape, expected.shape) is not True:
                raise ShapeError(
                    f"the {name} of {kind} must be {expected}, got {part.type}", hint=hint
                )
            states.append(x)
        return tuple(states)

    def _weighed(self, x: Value, suffix: str) -> tuple[Value, Product]:
        """x·W + b, and what makes h·W + b of the recurrent weights."""
        limit = 1 / math.sqrt(self.hidden_size)

        def weights(name: str, shape: Any, init: Any) -> Value:
            start = uniform(-limit, limit) if init is None else init
            return self.parameter(f"{name}{suffix}", shape, start, x.dtype)

        wide = self.gates * self.hidden_size
        weight = weights("weight_ih", (x.shape[-1], wide), self.init)
        recurrent = weights("weight_hh", (self.hidden_size, wide), self.recurrent_init)
        rows, bias = x @ weight, None
        if self.bias:
            outer = weights("bias_ih", wide, self.bias_init)
            bias = weights("bias_hh", wide, self.bias_init)
            if not self.inner_bias:  # added once, and not in each step
                outer, bias = outer + bias, None
            rows = rows + outer

        def product(h: Value) -> Value:
            y: Value = h @ recurrent
            return y if bias is None else y + bias

        return rows, product


class ElmanStep:
    """h' = activation(x·W + b + h·W + b)."""

    activation: Callable[[Any], Any]

    def step(self, row: Value, state: State, product: Product) -> State:
        """h' = activation(row + W·h)."""
        (h,) = state
        return (self.activation(row + product(h)),)


class LongShortTermStep:
    """c' = σ(f)·c + σ(i)·tanh(g), h' = σ(o)·tanh(c')."""

    gates: ClassVar[int] = 4
    states: ClassVar[int] = 2

    def step(self, row: Value, state: State, product: Product) -> State:
        """(h', c') of gates i, f, g, o: c' = f·c + i·g, h' = o·tanh(c')."""
        h, c = state
        i, f, g, o = split(row + product(h), 4, axis=-1)
        c = gate(f) * c + gate(i) * tanh(g)
        return gate(o) * tanh(c), c


class GatedStep:
    """h' = (1 − z)·n + z·h."""

    gates: ClassVar[int] = 3
    inner_bias: ClassVar[bool] = True

    def step(self, row: Value, state: State, product: Product) -> State:
        """h' = (1 − z)·n + z·h of gates r, z and n."""
        (h,) = state
        x_r, x_z, x_n = split(row, 3, axis=-1)
        h_r, h_z, h_n = split(product(h), 3, axis=-1)
        r, z = gate(x_r + h_r), gate(x_z + h_z)
        n = tanh(x_n + r * h_n)
        return ((1 - z) * n + z * h,)
