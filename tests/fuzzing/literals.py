"""Formulas, fields of ops, types and data as text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import sympy as sp

from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.op import Value
from nncompile.ir.types import DTYPES, DType, Type, numpy_name


def formula_text(body: sp.Expr, names: Sequence[str], casts: bool) -> str:
    """A body as Python, without rounding; with its conversions or without."""
    given = {placeholder(i): name for i, name in enumerate(names)}

    def walk(x: sp.Expr) -> str:
        if x in given:
            return given[x]
        if x.is_Integer:
            return str(int(x)) if x >= 0 else f"({int(x)})"
        if x.is_Rational:
            exact = sp.Rational(str(float(x)))
            return repr(float(x)) if exact == x else f"({int(x.p)} / {int(x.q)})"
        if x.is_Add:
            return f"({' + '.join(map(walk, x.args))})"
        if x.is_Mul:
            number, factors = x.args[0], x.args[1:]
            if number.is_Rational and number.q != 1 and number != sp.Rational(str(float(number))):
                return f"({int(number.p)} * {' * '.join(map(walk, factors))} / {int(number.q)})"
            return f"({' * '.join(map(walk, x.args))})"
        if x.is_Pow:
            return f"({walk(x.base)} ** {walk(x.exp)})"
        name = getattr(getattr(x, "meaning", None), "name", type(x).__name__)
        operands = list(map(walk, x.args))
        if name in _OPERATORS and len(operands) == 2:
            return f"({operands[0]} {_OPERATORS[name]} {operands[1]})"
        if name in _CASTS:
            return f"cast({operands[0]}, {_CASTS[name]})" if casts else operands[0]
        if name == "where" and any(map(_is_truth, x.args[1:])):
            operands[1:] = [_truth(a) if a.is_Integer else walk(a) for a in x.args[1:]]
        if name == "int_negative":
            return f"(-{operands[0]})"
        return f"{name}({', '.join(operands)})"

    text = walk(body)
    return text[1:-1] if text.startswith("(") and _closes_last(text) else text


def _is_truth(x: sp.Expr) -> bool:
    """Whether it is a truth value, as what is compared is."""
    name = getattr(getattr(x, "meaning", None), "name", type(x).__name__)
    return name.startswith(_TRUTHS)


def _truth(x: sp.Expr) -> str:
    return str(bool(x))


def _closes_last(text: str) -> bool:
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return i == len(text) - 1
    return False


_TRUTHS = ("logical_", "less", "greater", "equal", "not_equal", "isnan", "isinf", "isfinite")
_OPERATORS = {"int_add": "+", "int_subtract": "-", "int_multiply": "*", "int_power": "**"}
_CASTS = {d.name: "boolean" if d.is_bool else d.short for d in DTYPES}


def literal(x: Any) -> str:
    if isinstance(x, sp.Expr):
        return f'dim("{_size(x)}")'
    if isinstance(x, tuple):
        inner = ", ".join(map(literal, x))
        return f"({inner},)" if len(x) == 1 else f"({inner})"
    if isinstance(x, np.ndarray):
        return array_text(x)
    if isinstance(x, Type):
        return type_text(x)
    if isinstance(x, float) and not np.isfinite(x):
        return f'float("{x}")'
    if callable(x) and hasattr(x, "__qualname__"):
        return str(x.__qualname__)
    if hasattr(x, "__dataclass_fields__") and not isinstance(x, DType):
        fields = ", ".join(f"{k}={literal(getattr(x, k))}" for k in x.__dataclass_fields__)
        return f"{type(x).__name__}({fields})"
    return repr(x)


def slices(op: Any, v: Value) -> Iterator[str]:
    """A slice in Python's way; whether there is such a spelling shows by trying."""
    for start, size, step, whole in zip(
        op.starts, op.sizes, op.steps, v.args[0].shape, strict=True
    ):
        if step == 1 and start == 0 and size == whole:
            yield ":"
        elif step == -1 and size == whole:
            yield "::-1"
        elif all(isinstance(x, int) for x in (start, size, step)):
            stop = start + (size - 1) * step + (1 if step > 0 else -1) if size else start
            yield f"{start}:{stop if stop >= 0 else ''}:{step}"
        else:
            yield f"{literal(start)}:{literal(start + size * step)}:{step}"


def _size(size: sp.Expr) -> str:
    """A size as text that is read as the same one: powers are products there."""
    return re.sub(r"(\w+)\*\*(\d+)", lambda found: "*".join([found[1]] * int(found[2])), str(size))


def type_text(type_: Type) -> str:
    sizes = ", ".join(str(d) if isinstance(d, int) else f'"{_size(d)}"' for d in type_.shape)
    short = "boolean" if type_.dtype.is_bool else type_.dtype.short
    return f"{short}[{sizes}]" if type_.rank else f"{short}[()]"


def array_text(array: np.ndarray) -> str:
    kind = "bool" if array.dtype == bool else numpy_name(array.dtype)
    if not array.size:
        return f"np.zeros({array.shape}, {kind})"
    return f"np.array({array.tolist()}, {kind})"


def feeds_text(feeds: dict[str, np.ndarray]) -> str:
    entries = [f'    "{name}": {array_text(array)},' for name, array in feeds.items()]
    return "\n".join(["{", *entries, "}"])
