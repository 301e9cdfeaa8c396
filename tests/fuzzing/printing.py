"""Programs as text: a model in the DSL, with its data, to be pasted and run.

What has a public spelling is written so: each is tried, and taken where it makes the very node.
Other nodes are written as their ops, applied.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from nncompile.diagnostics.errors import CompileError
from nncompile.elementwise.map import Map
from nncompile.ir.basic import Constant
from nncompile.ir.graph import Item, toposort
from nncompile.ir.op import Op, Value, apply
from nncompile.ir.types import TupleType
from nncompile.ops.loops.body import Body
from nncompile.ops.loops.outlined import Outlined
from nncompile.ops.loops.scan import Scan
from tests.fuzzing.environment import environment, imports, op_name
from tests.fuzzing.literals import array_text, feeds_text, formula_text, literal, slices, type_text
from tests.fuzzing.program import Program

Names = dict[Value, str]

# How the public functions are called, from the fields of an op and the names of its arguments.
SPELLINGS: dict[str, Callable[[Any, Value, list[str]], str]] = {
    "Average": lambda op, v, a: f"ratio({a[0]}, {a[1]})",
    "Barrier": lambda op, v, a: f"barrier({', '.join(a)})",
    "Cast": lambda op, v, a: f"cast({a[0]}, {op.dtype})",
    "Concat": lambda op, v, a: f"concatenate([{', '.join(a)}], axis={op.axis})",
    "CumSum": lambda op, v, a: (
        f"cumsum({a[0]}, {op.axis}, exclusive={op.exclusive}, reverse={op.reverse})"
    ),
    "Einsum": lambda op, v, a: f'einsum("{op.left},{op.right}->{op.output}", {a[0]}, {a[1]})',
    "Expand": lambda op, v, a: f"broadcast_to({a[0]}, {literal(op.shape)})",
    "Gather": lambda op, v, a: f"take({a[0]}, {a[1]}, axis={op.axis})",
    "Iota": lambda op, v, a: f"iota({literal(op.size)}, {op.dtype})",
    "LogSoftmax": lambda op, v, a: f"log_softmax({a[0]}, {op.axis})",
    "MatMul": lambda op, v, a: f"{a[0]} @ {a[1]}",
    "Pad": lambda op, v, a: (
        f"pad({a[0]}, {literal(tuple(zip(op.before, op.after, strict=True)))}, "
        f"constant_values={op.value!r})"
    ),
    "Pooled": lambda op, v, a: f"pooled({a[0]})",
    "Reshape": lambda op, v, a: f"reshape({a[0]}, {literal(op.shape)})",
    "ScatterAdd": lambda op, v, a: f"add_along_axis({', '.join(a)}, axis={op.axis})",
    "SizeOf": lambda op, v, a: f"size_value({literal(op.size)}, {op.dtype})",
    "Slice": lambda op, v, a: f"{a[0]}[{', '.join(slices(op, v))}]",
    "Softmax": lambda op, v, a: f"softmax({a[0]}, {op.axis})",
    "TakeAlongAxis": lambda op, v, a: f"take_along_axis({a[0]}, {a[1]}, {op.axis})",
    "Total": lambda op, v, a: f"total({a[0]})",
    "Training": lambda op, v, a: f"while_training({a[0]}, {a[1]})",
    "Transpose": lambda op, v, a: f"transpose({a[0]}, {op.axes})",
}
for _names, _along in (("Sum Max Min LogSumExp", "axes"), ("Prod ArgMax ArgMin", "axis")):
    for _name in _names.split():
        SPELLINGS[_name] = lambda op, v, a, f=_name.lower(), along=_along: (  # type: ignore[misc]
            f"{f}({a[0]}, {getattr(op, along)}, keepdims={op.keepdims})"
        )


def printed(program: Program) -> str:
    """The program as a file in the DSL: its model, and its data in each binding as `feeds`."""
    names: Names = {x: x.op.name for x in program.inputs}  # type: ignore[attr-defined]
    lines = list(_lines(program.outputs, names))
    types = ", ".join(f"{names[x]}={type_text(x.type)}" for x in program.inputs)
    outputs = ", ".join(f'"y{i}": {names[y]}' for i, y in enumerate(program.outputs))
    body = [*lines, f"return {{{outputs}}}"]
    text = "\n".join(f"    {line}" for line in body)
    import_lines = imports(f"{types} {text}")
    data = [
        f"feeds = {feeds_text({names[x]: feeds[names[x]] for x in program.inputs})}"
        for feeds in program.feeds
    ]
    return "\n".join(
        [*import_lines, "", "", "@model", f"def program({types}):", text, "", "", *data, ""]
    )


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
    if isinstance(v.op, Outlined):
        yield from _outlined(name, v, names)
        return
    text = _expression(v, [names[a] for a in v.args])
    several = isinstance(v.type, TupleType)
    yield f"{name} = items({text})" if several else f"{name} = {text}"


def _expression(v: Value, args: list[str]) -> str:
    for text in _spellings(v, args):
        if _makes(text, v, args):
            return text
    return f"{op_text(v.op)}({', '.join(args)})"


def _spellings(v: Value, args: list[str]) -> Iterator[str]:
    if isinstance(v.op, Map):
        own = [f"x{i}" for i in range(len(args))]
        for casts in (False, True):  # the types of the arguments may bring them about
            yield formula_text(v.op.body, args, casts)
            inner = formula_text(v.op.body, own, casts)
            yield f"formula(lambda {', '.join(own)}: {inner})({', '.join(args)})"
        yield f"{formula_text(v.op.body, args, False)} + 0.0"  # a truth value as a number
        return
    if isinstance(v.op, Constant):
        yield f"const({array_text(v.op.value)})"
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


def _outlined(name: str, v: Value, names: Names) -> Iterator[str]:
    """A part as one op, with what it computes before it."""
    op = v.op
    assert isinstance(op, Outlined)
    inner: Names = {x: f"{name}_{i}" for i, x in enumerate(op.body.formals)}
    for i, (x, formal) in enumerate(list(inner.items())):
        yield f"{formal} = formal({i}, {type_text(x.type)})"
    formals = literal_names(inner.values())
    yield from _lines(op.body.results, inner, f"{name}_v")
    results = literal_names(inner[y] for y in op.body.results)
    options = {k: x for k, x in op.attributes.items() if k != "body"}
    fields = ", ".join(f"{k}={literal(x)}" for k, x in options.items())
    call = f"{op_name(type(op))}(Body({formals}, {results}), {fields})"
    yield f"{name} = items({call}({', '.join(names[a] for a in v.args)}))"


def literal_names(names: Iterable[str]) -> str:
    """A tuple of what has these names."""
    return f"({''.join(f'{name}, ' for name in names)})"


def op_text(op: Op) -> str:
    fields = ", ".join(f"{k}={literal(x)}" for k, x in op.attributes.items())
    return f"{op_name(type(op))}({fields})"
