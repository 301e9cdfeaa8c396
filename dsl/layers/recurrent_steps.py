"""What recurrent layers and their cells share: the steps, the weights and the checks of states."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Protocol

from dsl.initializers import uniform
from nncompile.diagnostics.errors import ModelError, ShapeError
from nncompile.elementwise import gate, tanh
from nncompile.ir.basic import as_value
from nncompile.ir.dims import same_shape
from nncompile.ir.op import Value
from nncompile.ir.types import Type
from nncompile.ops import expand_dims, split

State = tuple[Value, ...]
Product = Callable[[Value], Value]


class Stepped(Protocol):
    """A recurrent layer or a cell: its options, and the properties of its step."""

    gates: ClassVar[int]
    states: ClassVar[int]
    inner_bias: ClassVar[bool]

    @property
    def hidden_size(self) -> int: ...
    @property
    def bias(self) -> bool: ...
    @property
    def init(self) -> Any: ...
    @property
    def recurrent_init(self) -> Any: ...
    @property
    def bias_init(self) -> Any: ...

    @property
    def parameter(self) -> Callable[..., Value]: ...


def states_of(
    layer: Stepped, name: str, initial: Any, expected: Type, hint: str | None = None
) -> State:
    """The parts of a state, each of the expected type; a first axis of size 1 may be left out."""
    kind = type(layer).__name__
    parts = list(initial) if isinstance(initial, tuple | list) else [initial]
    if len(parts) != layer.states:
        raise ModelError(
            f"the {name} of {kind} must have {layer.states} parts, got {len(parts)}",
            hint="a pair (h, c) for LSTM, one value for RNN and GRU",
        )
    states = []
    for part in map(as_value, parts):
        x = expand_dims(part, 0) if part.rank == expected.rank - 1 else part
        if x.dtype is not expected.dtype or same_shape(x.shape, expected.shape) is not True:
            raise ShapeError(f"the {name} of {kind} must be {expected}, got {part.type}", hint=hint)
        states.append(x)
    return tuple(states)


def weighed(layer: Stepped, x: Value, suffix: str) -> tuple[Value, Product]:
    """x·W + b, and what makes h·W + b of the recurrent weights."""
    limit = 1 / math.sqrt(layer.hidden_size)

    def weights(name: str, shape: Any, init: Any) -> Value:
        start = uniform(-limit, limit) if init is None else init
        return layer.parameter(f"{name}{suffix}", shape, start, x.dtype)

    wide = layer.gates * layer.hidden_size
    weight = weights("weight_ih", (x.shape[-1], wide), layer.init)
    recurrent = weights("weight_hh", (layer.hidden_size, wide), layer.recurrent_init)
    rows, bias = x @ weight, None
    if layer.bias:
        outer = weights("bias_ih", wide, layer.bias_init)
        bias = weights("bias_hh", wide, layer.bias_init)
        if not layer.inner_bias:  # added once, and not in each step
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
