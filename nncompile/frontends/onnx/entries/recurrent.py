"""Recurrent layers with ONNX's options: directions, lengths, peepholes, clipping, activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nncompile import elementwise as e
from nncompile.frontends.onnx.entries.activations import elu_of, leaky_relu_of
from nncompile.frontends.onnx.refusals import Refused
from nncompile.frontends.onnx.registry import Node, imports
from nncompile.ir.basic import cast, const
from nncompile.ir.broadcasting import broadcast_to, full
from nncompile.ir.op import Value
from nncompile.ir.types import i64
from nncompile.ops.contraction.matmul import matmul
from nncompile.ops.core.counting import iota
from nncompile.ops.loops.scan import scan
from nncompile.ops.shape.gathering import take_along_axis
from nncompile.ops.shape.joining import split, stack
from nncompile.ops.shape.reshape import expand_dims, reshape, swapaxes, transpose
from nncompile.ops.shape.slicing import along, flip

Activation = Callable[[Value], Value]

_DEFAULTS = {
    "RNN": ("Tanh",),
    "GRU": ("Sigmoid", "Tanh"),
    "LSTM": ("Sigmoid", "Tanh", "Tanh"),
}
_ACTIVATIONS: dict[str, Callable[[Value, float, float], Value]] = {
    "relu": lambda x, a, b: e.relu(x),
    "tanh": lambda x, a, b: e.tanh(x),
    "sigmoid": lambda x, a, b: e.sigmoid(x),
    "affine": lambda x, a, b: a * x + b,
    "leakyrelu": lambda x, a, b: leaky_relu_of(x, a),
    "thresholdedrelu": lambda x, a, b: e.where(x > a, x, 0 * x),
    "scaledtanh": lambda x, a, b: a * e.tanh(b * x),
    "hardsigmoid": lambda x, a, b: e.hard_clip(a * x + b, 0, 1),
    "elu": lambda x, a, b: elu_of(x, a),
    "softsign": lambda x, a, b: x / (1 + e.abs(x)),
    "softplus": lambda x, a, b: e.softplus(x),
}
_ALPHA = {"affine": 1.0, "leakyrelu": 0.01, "thresholdedrelu": 1.0, "scaledtanh": 1.0,
          "hardsigmoid": 0.2, "elu": 1.0}  # fmt: skip
_BETA = {"scaledtanh": 1.0, "hardsigmoid": 0.5}


@imports("LSTM", "GRU", "RNN")
def _recurrent(n: Node, x: Value, w: Value, r: Value, *optional: Value | None) -> Any:
    padded: list[Value | None] = [*optional, *(None,) * (5 - len(optional))]
    bias, lengths, hidden, cell, peepholes = padded
    _check(n, x, w, r, padded)
    if n["layout"]:
        x = swapaxes(x, 0, 1)
        hidden, cell = (None if v is None else swapaxes(v, 0, 1) for v in (hidden, cell))
    activations = _activations(n, w.shape[0])
    ways = [
        _one_way(n, d, x, lengths, (w, r, bias, peepholes), (hidden, cell), functions)
        for d, functions in enumerate(activations)
    ]
    y = stack([outputs for outputs, _ in ways], 1)
    finals = [stack(states) for states in zip(*(final for _, final in ways), strict=True)]
    if n["layout"]:
        y = transpose(y, (2, 0, 1, 3))
        finals = [swapaxes(f, 0, 1) for f in finals]
    return (y, *finals)[: len(n.outputs)]


def _check(n: Node, x: Value, w: Value, r: Value, optional: Sequence[Value | None]) -> None:
    """Raises `Refused` for inputs of other ranks, and weights of other directions, than those of
    the operator."""
    for i, (v, rank) in enumerate(zip((x, w, r, *optional), _RANKS, strict=True)):
        if v is not None and v.rank != rank:
            raise Refused(f"its input {n.label(i)} is of rank {v.rank}, not {rank}")
    count = _DIRECTIONS.get(n["direction"] or "forward")
    if count is None:
        raise Refused(f"the direction {n['direction']!r}")
    for i, v in enumerate((w, r, optional[0]), 1):
        if v is not None and v.shape[0] != count:
            raise Refused(f"its input {n.label(i)} has {v.shape[0]} directions, not {count}")


_RANKS = (3, 3, 3, 2, 1, 3, 3, 2)
_DIRECTIONS = {"forward": 1, "reverse": 1, "bidirectional": 2}


def _one_way(
    n: Node, d: int, x: Value, lengths: Value | None, weights: Sequence[Value | None],
    states: Sequence[Value | None], functions: list[Activation],
) -> tuple[Value, list[Value]]:  # fmt: skip
    """The outputs and the last states of one direction."""
    backward = n["direction"] == "reverse" or d == 1
    own = [_row(v, d) for v in weights]
    recurrent = own[1]
    assert recurrent is not None
    zeros = full((x.shape[1], recurrent.shape[-1]), 0, x.dtype)
    initial = [zeros if v is None else _row(v, d) for v in states]
    cell: Any = _CELLS[n.op](n, *own, functions)
    steps = _reversed(x, lengths) if backward else x
    outputs, final = _run(cell, steps, initial if n.op == "LSTM" else initial[:1], lengths)
    return _reversed(outputs, lengths) if backward else outputs, final


def _row(v: Value | None, direction: int) -> Value | None:
    """What belongs to one direction."""
    return None if v is None else reshape(along(v, 0, direction, 1, 1), v.shape[1:])


def _activations(n: Node, directions: Any) -> list[list[Activation]]:
    """The functions of each direction, with their numbers."""
    defaults = _DEFAULTS[n.op]
    names = [x.lower() for x in n["activations"] or defaults * directions]
    names = names[: len(defaults) * directions]  # the schema's default is of two directions
    if len(names) != len(defaults) * directions:
        raise Refused(f"{len(names)} activations instead of {len(defaults) * directions}")
    alphas, betas = list(n["activation_alpha"] or ()), list(n["activation_beta"] or ())
    functions: list[Activation] = []
    for name in names:
        if name not in _ACTIVATIONS:
            raise Refused(f"the activation {name!r}")
        a = (alphas.pop(0) if alphas else _ALPHA[name]) if name in _ALPHA else 0.0
        b = (betas.pop(0) if betas else _BETA[name]) if name in _BETA else 0.0
        function = _ACTIVATIONS[name]
        functions.append(lambda x, f=function, a=a, b=b: f(x, a, b))  # type: ignore[misc]  # bound now
    count = len(defaults)
    return [functions[i * count : (i + 1) * count] for i in range(directions)]


def _reversed(x: Value, lengths: Value | None) -> Value:
    """The steps in the other order, of each sequence as long as it is."""
    if lengths is None:
        return flip(x, 0)
    positions = expand_dims(iota(x.shape[0]), 1)
    ends = expand_dims(cast(lengths, i64), 0)
    index = e.where(positions < ends, ends - 1 - positions, positions)
    return take_along_axis(x, broadcast_to(expand_dims(index, -1), x.shape), 0)


Cell = Callable[[Value, Sequence[Value]], tuple[Value, ...]]


def _run(
    cell: tuple[Value | Callable[[Value], Value], Cell], x: Value, states: Any, lengths: Any
) -> tuple[Value, list[Value]]:
    """The outputs of all steps, zeros behind the end of a sequence, and the last states."""
    project, step = cell
    inputs = project(x)  # type: ignore[operator]  # a function
    numbers = iota(x.shape[0])

    def body(*values: Value) -> tuple[Value, ...]:
        *carried, row, number = values
        following = step(row, carried)
        if lengths is None:
            return (*following, following[0])
        going = expand_dims(number < cast(lengths, i64), -1)
        kept = [e.where(going, new, old) for new, old in zip(following, carried, strict=True)]
        return (*kept, e.where(going, following[0], 0 * following[0]))

    *final, outputs = scan(body, tuple(states), (inputs, numbers))
    return outputs, final


def _bounded(n: Node, x: Value) -> Value:
    clip = n["clip"]
    return x if clip is None else e.clip(x, -float(clip), float(clip))


def _biases(b: Value | None, like: Value) -> list[Value]:
    """The biases of the input, and those of the recurrence."""
    if b is None:
        return [const(0, like.dtype)] * 2
    return list(split(b, 2, 0))


def _rnn(n: Node, w: Any, r: Any, b: Any, p: Any, f: list[Activation]) -> Any:
    of_input, of_state = _biases(b, w)

    def step(row: Value, states: Sequence[Value]) -> tuple[Value, ...]:
        return (f[0](_bounded(n, row + matmul(states[0], transpose(r)) + of_state)),)

    return lambda x: matmul(x, transpose(w)) + of_input, step


def _gru(n: Node, w: Any, r: Any, b: Any, p: Any, f: list[Activation]) -> Any:
    of_input, of_state = _biases(b, w)
    rz, rr, rh = (transpose(v) for v in split(r, 3, 0))
    zeros = [of_state] * 3
    bz, br, bh = split(of_state, 3, 0) if b is not None else zeros

    def step(row: Value, states: Sequence[Value]) -> tuple[Value, ...]:
        (h,) = states
        xz, xr, xh = split(row, 3, -1)
        z = f[0](_bounded(n, xz + matmul(h, rz) + bz))
        reset = f[0](_bounded(n, xr + matmul(h, rr) + br))
        inner = (
            reset * (matmul(h, rh) + bh) if n["linear_before_reset"] else matmul(reset * h, rh) + bh
        )
        candidate = f[1](_bounded(n, xh + inner))
        return ((1 - z) * candidate + z * h,)

    return lambda x: matmul(x, transpose(w)) + of_input, step


def _lstm(n: Node, w: Any, r: Any, b: Any, p: Any, f: list[Activation]) -> Any:
    of_input, of_state = _biases(b, w)
    from_input, from_output, from_forget = split(p, 3, 0) if p is not None else (None,) * 3

    def peep(gate: Value, weight: Value | None, cell: Value) -> Value:
        return gate if weight is None else gate + weight * cell

    def step(row: Value, states: Sequence[Value]) -> tuple[Value, ...]:
        h, c = states
        gates = row + matmul(h, transpose(r)) + of_state
        i, o, forget, candidate = split(gates, 4, -1)
        i = f[0](_bounded(n, peep(i, from_input, c)))
        own = f[0](_bounded(n, peep(forget, from_forget, c)))
        forget = 1 - i if n["input_forget"] else own
        c = forget * c + i * f[1](_bounded(n, candidate))
        o = f[0](_bounded(n, peep(o, from_output, c)))
        return o * f[2](c), c

    return lambda x: matmul(x, transpose(w)) + of_input, step


_CELLS: dict[str, Callable[..., Any]] = {"RNN": _rnn, "GRU": _gru, "LSTM": _lstm}
