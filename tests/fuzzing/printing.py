"""Programs as text: a model in the DSL, with its data, to be pasted and run.

What has a public spelling is written so: each is tried, and taken where it makes the very node.
Other nodes are written as their ops, applied.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import Any

import ml_dtypes
import numpy as np
import sympy as sp

import dsl
import nncompile.ops
from nncompile.diagnostics.errors import CompileError
from nncompile.elementwise.map import Map
from nncompile.elementwise.sympy_functions import placeholder
from nncompile.ir.basic import Constant
from nncompile.ir.dims import dim
from nncompile.ir.graph import Item, items, toposort
from nncompile.ir.op import Op, Value, apply
from nncompile.ir.types import DTYPES, DType, TupleType, Type, numpy_name
from nncompile.ops.core.annotations import CustomVjp
from nncompile.ops.loops.body import Body
from nncompile.ops.loops.scan import Scan
from nncompile.ops.windows.pooling import Window
from tests.fuzzing.program import Program

Names = dict[Value, str]

# How the public functions are called, from the fields of a op and the names of its arguments.
SPELLINGS: dict[str, Callable[[Any, Value, list[str]], str]] = {
    "Average": lambda op, v, a: f"ratio({a[0]}, {a[1]})",
    "Barrier": lambda op, v, a: f"barrier({', '.join(a)})",
    "Cast": lambda op, v, a: f"cast({a[0]}, {op.dtype})",
    "Concat": lambda op, v, a: f"concatenate([{', '.join(a)}], axis={op.axis})",
    "CumSum": lambda op, v, a: (
        f"cumsum({a[0]}, {op.axis}, exclusive={op.exclusive}, reverse={op.reverse})"
    ),
    "Einsum": lambda op, v, a: f'einsum("{op.left},{op.right}->{op.output}", {a[0]}, {a[1]})',
    "Expand": lambda op, v, a: f"broadcast_to({a[0]}, {_literal(op.shape)})",
    "Gather": lambda op, v, a: f"take({a[0]}, {a[1]}, axis={op.axis})",
    "Iota": lambda op, v, a: f"iota({_literal(op.size)}, {op.dtype})",
    "LogSoftmax": lambda op, v, a: f"log_softmax({a[0]}, {op.axis})",
    "LogSumExp": lambda op, v, a: f"logsumexp({a[0]}, {op.axes}, keepdims={op.keepdims})",
    "MatMul": lambda op, v, a: f"{a[0]} @ {a[1]}",
    "Pad": lambda op, v, a: (
        f"pad({a[0]}, {_literal(tuple(zip(op.before, op.after, strict=True)))}, "
        f"constant_values={op.value!r})"
    ),
    "Pooled": lambda op, v, a: f"pooled({a[0]})",
    "Prod": lambda op, v, a: f"prod({a[0]}, {op.axis}, keepdims={op.keepdims})",
    "Reshape": lambda op, v, a: f"reshape({a[0]}, {_literal(op.shape)})",
    "ScatterAdd": lambda op, v, a: f"add_along_axis({', '.join(a)}, axis={op.axis})",
    "SizeOf": lambda op, v, a: f"size_value({_literal(op.size)}, {op.dtype})",
    "Slice": lambda op, v, a: f"{a[0]}[{', '.join(_slices(op, v))}]",
    "Softmax": lambda op, v, a: f"softmax({a[0]}, {op.axis})",
    "TakeAlongAxis": lambda op, v, a: f"take_along_axis({a[0]}, {a[1]}, {op.axis})",
    "Total": lambda op, v, a: f"total({a[0]})",
    "Training": lambda op, v, a: f"while_training({a[0]}, {a[1]})",
    "Transpose": lambda op, v, a: f"transpose({a[0]}, {op.axes})",
}
for _name, _function in (("Sum", "sum"), ("Max", "max"), ("Min", "min")):
    SPELLINGS[_name] = lambda op, v, a, f=_function: (  # type: ignore[misc]
        f"{f}({a[0]}, {op.axes}, keepdims={op.keepdims})"
    )
for _name, _function in (("ArgMax", "argmax"), ("ArgMin", "argmin")):
    SPELLINGS[_name] = lambda op, v, a, f=_function: (  # type: ignore[misc]
        f"{f}({a[0]}, {op.axis}, keepdims={op.keepdims})"
    )


def printed(program: Program) -> str:
    """The program as a file in the DSL: its model, and its data in each binding as `feeds`."""
    names: Names = {x: x.op.name for x in program.inputs}  # type: ignore[attr-defined]
    lines = list(_lines(program.outputs, names))
    types = ", ".join(f"{names[x]}={_type(x.type)}" for x in program.inputs)
    outputs = ", ".join(f'"y{i}": {names[y]}' for i, y in enumerate(program.outputs))
    body = [*lines, f"return {{{outputs}}}"]
    text = "\n".join(f"    {line}" for line in body)
    imports = _imports(f"{types} {text}")
    data = [
        f"feeds = {_feeds({names[x]: feeds[names[x]] for x in program.inputs})}"
        for feeds in program.feeds
    ]
    return "\n".join(
        [*imports, "", "", "@model", f"def program({types}):", text, "", "", *data, ""]
    )


def environment() -> dict[str, Any]:
    """What the printed text may name: the DSL, numpy, the ops; those that are called as a layer
    is have `_op` behind."""
    return dict(_environment())


@cache
def _environment() -> dict[str, Any]:
    op_types = {
        _op_name(op_type): op_type
        for (module, _), op_type in Op.registry.items()
        if module.startswith("nncompile.")
    }
    return {
        **op_types,
        **{name: getattr(nncompile.ops, name) for name in nncompile.ops.__all__},
        **{name: getattr(dsl, name) for name in (*dsl.__all__, *dsl.BUILTINS)},
        "Window": Window,
        "dim": dim,
        **{s.op.gradient.__name__: s.op.gradient for s in CustomVjp.samples()},  # type: ignore[attr-defined]
        "items": items,
        "np": np,
        "ml_dtypes": ml_dtypes,
    }


def _op_name(op_type: type[Op]) -> str:
    return f"{op_type.__name__}_op" if op_type.__name__ in dsl.__all__ else op_type.__name__


def _imports(text: str) -> list[str]:
    """The imports of the names that the text uses."""
    words = set(_words(text)) | {"model"}
    known = environment()
    by_module: dict[str, list[str]] = {}
    for word in sorted(words & known.keys()):
        if word in ("np", "ml_dtypes"):
            continue
        if word in dsl.__all__ or word in dsl.BUILTINS:
            module = "dsl"
        elif word in nncompile.ops.__all__:
            module = "nncompile.ops"
        else:
            module = known[word].__module__
        own = word.removesuffix("_op")
        by_module.setdefault(module, []).append(word if own == word else f"{own} as {word}")
    lines = ["import ml_dtypes"] if "bf16" in text or "bfloat16" in text else []
    lines.append("import numpy as np")
    return lines + [f"from {m} import {', '.join(names)}" for m, names in by_module.items()]


def _words(text: str) -> list[str]:
    return "".join(c if c.isalnum() or c == "_" else " " for c in text).split()


def _lines(outputs: Sequence[Value], names: Names, stem: str = "v") -> Iterator[str]:
    """An assignment for each node; `names` gets the names of their results."""
    count = 0
    for v in toposort(outputs):
        if v in names or isinstance(v.op, Item):
            if v not in names:
                names[v] = f"{names[v.args[0]]}[{v.op.index}]"
            continue
        name = f"{stem}{count}"
        count += 1
        yield from _assignment(name, v, names)
        names[v] = name


def _assignment(name: str, v: Value, names: Names) -> Iterator[str]:
    if isinstance(v.op, Scan):
        yield from _loop(name, v, names)
        return
    text = _expression(v, [names[a] for a in v.args])
    several = isinstance(v.type, TupleType)
    yield f"{name} = items({text})" if several else f"{name} = {text}"


def _expression(v: Value, args: list[str]) -> str:
    for text in _spellings(v, args):
        if _makes(text, v, args):
            return text
    return f"{_op(v.op)}({', '.join(args)})"


def _spellings(v: Value, args: list[str]) -> Iterator[str]:
    if isinstance(v.op, Map):
        own = [f"x{i}" for i in range(len(args))]
        for casts in (False, True):  # the types of the arguments may bring them about
            yield _formula(v.op.body, args, casts)
            inner = _formula(v.op.body, own, casts)
            yield f"formula(lambda {', '.join(own)}: {inner})({', '.join(args)})"
        return
    if isinstance(v.op, Constant):
        yield f"const({_array(v.op.value)})"
        return
    spelling = SPELLINGS.get(type(v.op).__name__)
    if spelling is not None:
        yield spelling(v.op, v, args)


def _makes(text: str, v: Value, args: list[str]) -> bool:
    """Whether the text, evaluated, is the node itself."""
    known = environment()
    for name, value in zip(args, v.args, strict=True):
        root, bracket, _ = name.partition("[")
        known[root] = _Items(value) if bracket else value
    try:
        return eval(text, known) is v
    except (CompileError, TypeError, ValueError, SyntaxError, NameError, AttributeError):
        return False


class _Items:
    """Stands for the results of an op with several."""

    def __init__(self, item: Value) -> None:
        self.whole = item.args[0]

    def __getitem__(self, index: int) -> Value:
        return apply(Item(index), self.whole)


def _loop(name: str, v: Value, names: Names) -> Iterator[str]:
    """A scan as the op with its body as a function, which is readable."""
    op = v.op
    assert isinstance(op, Scan)
    body: Body = op.body
    formals = [f"{name}_{i}" for i in range(len(body.formals))]
    inner: Names = dict(zip(body.formals, formals, strict=True))
    yield f"def {name}_body({', '.join(formals[: op.carries + op.elements])}):"
    outside = formals[op.carries + op.elements :]
    given = [names[a] for a in v.args]
    for formal, value in zip(outside, given[op.carries + op.elements :], strict=True):
        yield f"    {formal} = {value}"
    for line in _lines(body.results, inner, f"{name}_v"):
        yield f"    {line}"
    yield f"    return {', '.join(inner[r] for r in body.results)},"
    carries = ", ".join(given[: op.carries])
    rows = ", ".join(given[op.carries : op.carries + op.elements])
    yield f"{name} = scan({name}_body, [{carries}], [{rows}], reverse={op.reverse})"


# Literals.


def _formula(body: sp.Expr, names: Sequence[str], casts: bool) -> str:
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
        if name == "int_negative":
            return f"(-{operands[0]})"
        return f"{name}({', '.join(operands)})"

    text = walk(body)
    return text[1:-1] if text.startswith("(") and _closes_last(text) else text


def _closes_last(text: str) -> bool:
    depth = 0
    for i, c in enumerate(text):
        depth += (c == "(") - (c == ")")
        if depth == 0:
            return i == len(text) - 1
    return False


_OPERATORS = {"int_add": "+", "int_subtract": "-", "int_multiply": "*", "int_power": "**"}
_CASTS = {d.name: "boolean" if d.is_bool else d.short for d in DTYPES}


def _op(op: Op) -> str:
    fields = ", ".join(f"{k}={_literal(x)}" for k, x in op.attributes.items())
    return f"{_op_name(type(op))}({fields})"


def _literal(x: Any) -> str:
    if isinstance(x, sp.Expr):
        return f'dim("{_size(x)}")'
    if isinstance(x, tuple):
        inner = ", ".join(map(_literal, x))
        return f"({inner},)" if len(x) == 1 else f"({inner})"
    if isinstance(x, np.ndarray):
        return _array(x)
    if isinstance(x, Type):
        return _type(x)
    if isinstance(x, float) and not np.isfinite(x):
        return f'float("{x}")'
    if callable(x) and hasattr(x, "__qualname__"):
        return str(x.__qualname__)
    if hasattr(x, "__dataclass_fields__") and not isinstance(x, DType):
        fields = ", ".join(f"{k}={_literal(getattr(x, k))}" for k in x.__dataclass_fields__)
        return f"{type(x).__name__}({fields})"
    return repr(x)


def _slices(op: Any, v: Value) -> Iterator[str]:
    """A slice in Python's way; what has no such spelling is found out by trying."""
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
            yield f"{_literal(start)}:{_literal(start + size * step)}:{step}"


def _size(size: sp.Expr) -> str:
    """A size as text that is read as the same one: powers are products there."""
    return re.sub(r"(\w+)\*\*(\d+)", lambda found: "*".join([found[1]] * int(found[2])), str(size))


def _type(type_: Type) -> str:
    sizes = ", ".join(str(d) if isinstance(d, int) else f'"{_size(d)}"' for d in type_.shape)
    short = "boolean" if type_.dtype.is_bool else type_.dtype.short
    return f"{short}[{sizes}]" if type_.rank else f"{short}[()]"


def _array(array: np.ndarray) -> str:
    kind = "bool" if array.dtype == bool else numpy_name(array.dtype)
    if not array.size:
        return f"np.zeros({array.shape}, {kind})"
    return f"np.array({array.tolist()}, {kind})"


def _feeds(feeds: dict[str, np.ndarray]) -> str:
    entries = [f'    "{name}": {_array(array)},' for name, array in feeds.items()]
    return "\n".join(["{", *entries, "}"])


__all__ = ["environment", "printed"]
