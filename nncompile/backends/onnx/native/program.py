"""Chains of elementwise ONNX nodes as programs of the native kernel `Elementwise`.

A program is text, such as `mul.f 0 2;add.f 3 1`: operations on values by their numbers, which are
the inputs first and then the results in their order; the letter is the element type of the
operands. It says what the nodes say: see kernels/source/elementwise_operator.cpp.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import onnx

from nncompile.backends.onnx.kernels import ELEMENT_TYPES
from nncompile.backends.onnx.protos import attributes_of
from nncompile.ir.types import DTYPES, Array, DType, boolean, f32, f64, i32, i64, u32
from nncompile.ops.loops.outlined import Elementwise

LETTERS = {f32: "f", f64: "d", i64: "l", i32: "i", u32: "u", boolean: "b"}
_REAL, _NUMBERS, _ALL = "fd", "fdliu", "fdliub"
# The operation of an ONNX operator, and the element types of operands that it has.
OPERATIONS = {
    **{name: (name.lower(), _NUMBERS) for name in ("Add", "Sub", "Mul", "Max", "Min")},
    **{name: (name.lower(), _REAL) for name in ("Div", "Neg", "Abs", "Sign", "Relu")},
    **{name: (name.lower(), _REAL) for name in ("Sqrt", "Exp", "Log", "Tanh", "Erf")},
    **{name: (name.lower(), _REAL) for name in ("Floor", "Ceil", "Round", "Sin", "Cos", "Pow")},
    "Sigmoid": ("logistic", _REAL),
    "Less": ("less", _ALL),
    "LessOrEqual": ("less_equal", _ALL),
    "Equal": ("equal", _ALL),
    "IsNaN": ("is_nan", _REAL),
    **{name: (name.lower(), "b") for name in ("Not", "And", "Or", "Xor")},
    "BitwiseAnd": ("bit_and", "liu"),
    "BitwiseOr": ("bit_or", "liu"),
    "BitwiseXor": ("bit_xor", "liu"),
    "BitwiseNot": ("bit_not", "liu"),
}
_REVERSED = {"Greater": "Less", "GreaterOrEqual": "LessOrEqual"}
_TYPES = {ELEMENT_TYPES[d.name]: d for d in DTYPES}
_SHIFTS = {"LEFT": "left", "RIGHT": "right"}


class Lowered(NamedTuple):
    """Values that are lowered, with the element type of each name."""

    inputs: Sequence[str]
    nodes: Sequence[onnx.NodeProto]
    constants: Mapping[str, Array]
    results: Sequence[str]
    dtypes: Mapping[str, DType]


def elementwise_program(op: Elementwise, lowered: Lowered) -> dict[str, Any]:
    """The attributes of a call of the kernel that say what it computes."""
    written = program(lowered)
    assert written is not None, "what is outlined has a program"
    text, outputs = written
    types = "".join(LETTERS[v.type.dtype] for v in op.body.formals)
    return {"program": text, "results": outputs, "types": types}


def program(lowered: Lowered) -> tuple[str, list[int]] | None:
    """The program of the nodes and the numbers of its results; None where there is no operation for
    one of them."""
    places = {name: i for i, name in enumerate(lowered.inputs)}
    lines: list[str] = []

    def add(name: str, line: str) -> None:
        places[name] = len(lowered.inputs) + len(lines)
        lines.append(line)

    for name, array in lowered.constants.items():
        letter = LETTERS.get(lowered.dtypes[name])
        if letter is None or array.size != 1:
            return None
        add(name, f"number.{letter} {_number(array)}")
    for node in lowered.nodes:
        if any(name not in places for name in node.input):
            return None
        if node.op_type == "Identity":
            places[node.output[0]] = places[node.input[0]]
            continue
        operation = _operation(node, lowered.dtypes)
        if operation is None:
            return None
        names = reversed(node.input) if node.op_type in _REVERSED else node.input
        add(node.output[0], " ".join((operation, *(str(places[name]) for name in names))))
    if any(name not in places for name in lowered.results):
        return None
    return ";".join(lines), [places[name] for name in lowered.results]


def _number(array: Array) -> str:
    """A number as text that is read as that very number."""
    value = array.reshape(()).item()
    return float(value).hex() if isinstance(value, float) else str(int(value))


def _operation(node: onnx.NodeProto, dtypes: Mapping[str, DType]) -> str | None:
    """The name of a node's operation with the letters of its element types."""
    operator = _REVERSED.get(node.op_type, node.op_type)
    operand = node.input[1] if operator == "Where" else node.input[0]
    letter = LETTERS.get(dtypes[operand])
    if letter is None:
        return None
    attributes = attributes_of(node)
    if operator == "Cast":
        target = LETTERS.get(_TYPES[attributes["to"]])
        return None if target is None else f"cast.{letter}{target}"
    if operator == "Where":
        return f"where.{letter}"
    if operator == "BitShift":
        shift = _SHIFTS[attributes["direction"].decode()]
        return f"{shift}.u" if letter == "u" else None
    if attributes or operator not in OPERATIONS or len(node.input) > 2:
        return None
    name, letters = OPERATIONS[operator]
    return f"{name}.{letter}" if letter in letters else None
